"""Web forms: what a brand's site posts for its visitors, signed; or what they send by a form of ours.

A signed request carries `X-Switchyard-Signature: t=<seconds since 1970>,v1=<hex>`: HMAC-SHA256 with the brand's secret
over `<t>.<body>`. Our own form (`public`) carries a token instead, which tells when its page was made: not a moment
ago, as programs do it, nor hours. Its id is the message's, so a form that is sent twice is one message.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import AfterValidator
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, FormParser, parse_options_header

from services.intake.channels.app_chat import Secret
from services.intake.channels.base import (
    Adapter,
    AdapterConfig,
    Answer,
    Call,
    ChannelRequest,
    NotSent,
    Refused,
    Reply,
    Sent,
    json_object,
    need_method,
)
from services.intake.channels.embedding import Origin, framed_policy
from services.intake.channels.fields import MOST_SHORT_CHARACTERS, address, cut, e164, text
from services.intake.channels.web_form_page import (
    HONEYPOT,
    STYLE_SOURCE,
    PageLanguage,
    form_page,
    label_of,
    order_line,
    thanks_page,
)
from shared.events import Attachment, ChannelMessage, Customer
from shared.events.channel import MAX_TEXT_CHARACTERS
from shared.taxonomy import Channel, Language

SIGNATURE: Final = "x-switchyard-signature"
_TOLERANCE: Final = timedelta(minutes=5)
_PAGE_LEAST: Final = timedelta(seconds=2)
_PAGE_MOST: Final = timedelta(hours=2)
_MOST_FIELDS: Final = 100
_MOST_ATTACHMENTS: Final = 10
_MOST_ID_CHARACTERS: Final = 150
_MOST_ADDRESS_CHARACTERS: Final = 200  # it is the customer's id
_ADDRESS: Final = re.compile(r"[^@\s,;<>\"]+@[^@\s,;<>\"]+\.[^@\s,;<>\".]+")
_SECONDS: Final = re.compile(r"[0-9]{1,11}")
_CHINESE: Final = re.compile(r"[\u4e00-\u9fff]")
_CHARSETS: Final = frozenset({"utf-8", "gb18030", "gbk", "gb2312", "big5"})
_URLENCODED: Final = "application/x-www-form-urlencoded"
_MULTIPART: Final = "multipart/form-data"

Values = Mapping[str, Sequence[str]]


def _is_region(value: str) -> str:
    if not re.fullmatch(r"[A-Z]{2}", value):
        raise ValueError("write a country's two letters, such as CN")
    return value


class WebFormConfig(AdapterConfig):
    """`secret`: what the brand's site signs with, and what our own form's tokens are made of. `public`: there is
    such a form; `allowed_origins`: the sites that may frame it. `region`: of phone numbers without a country.
    """

    secret: Secret
    public: bool = False
    allowed_origins: tuple[Origin, ...] = ()
    region: Annotated[str, AfterValidator(_is_region)] = "CN"


@dataclass(frozen=True, slots=True)
class Filled:
    """A form that can be used. `attachments`: addresses of files."""

    customer: Customer
    text: str
    subject: str | None
    attachments: tuple[Attachment, ...]


class Faulty(Exception):
    """A form that cannot be used. `fields`: which are wrong; `contact`: neither e-mail nor phone number is given."""

    def __init__(self, fields: Sequence[str]) -> None:
        super().__init__(", ".join(fields))
        self.fields = tuple(fields)


_WHY: Final = {
    "contact": "email, phone: give at least one",
    "email": "email: is no address",
    "phone": "phone: is no number that can be dialled; write one from abroad with + and the country code",
    "message": "message: is missing",
    "attachment_url": f"attachment_url: must be an http(s) address of at most {MOST_SHORT_CHARACTERS} characters",
}


class WebForm(Adapter[WebFormConfig]):
    """One brand's form."""

    provider: ClassVar[str] = "web_form"
    channel: ClassVar[Channel] = Channel.WEB_FORM
    config_type: ClassVar[type[AdapterConfig]] = WebFormConfig

    def receive(self, request: ChannelRequest) -> Answer:
        need_method(request, "POST", *(("GET",) if self.config.public else ()))
        if request.method == "GET":
            language = _page_language(request, {})
            return self._page(200, form_page(language, self._token(request.received_at), {}))
        if SIGNATURE in request.headers:
            return self._signed(request)
        if not self.config.public:
            raise Refused(401, "signature", "sign the request: X-Switchyard-Signature: t=<seconds>,v1=<hex>")
        return self._from_page(request)

    async def send(self, reply: Reply, call: Call) -> Sent:
        """Forms are answered by mail, which is the notifier's; nobody is there to be written to otherwise."""
        if "@" in (reply.reply_to or reply.customer_id):
            raise NotSent("web forms are answered by mail: name web_form under mail_channels in notifications.yaml")
        raise NotSent("this customer left only a phone number: call him", hopeless=True)

    # --- posted by the brand's site ------------------------------------------------------------------------------

    def _signed(self, request: ChannelRequest) -> Answer:
        signed_at = self._verify(request)
        values = _values(request)
        try:
            filled = self._filled(values)
        except Faulty as faulty:
            raise Refused(422, "invalid", "; ".join(_WHY[field] for field in faulty.fields)) from None
        given = request.headers.get("idempotency-key") or _first(values, "submission_id")
        if len(given) > _MOST_ID_CHARACTERS or not given.isprintable():
            raise Refused(422, "invalid", f"submission_id: at most {_MOST_ID_CHARACTERS} printable characters")
        # Without an id, the same signature over the same words is the same message: a request sent again as it is.
        own = f"site-{given}" if given else f"request-{_digest(signed_at, request.body)}"
        message = self._message(own, filled, request.received_at)
        answer = json.dumps({"type": "accepted", "message_id": message.message_id})
        return Answer(body=answer, media_type="application/json", messages=(message,))

    def _verify(self, request: ChannelRequest) -> str:
        """`t` of the signature. Raises Refused."""
        parts = [part.strip().partition("=") for part in request.headers[SIGNATURE].split(",")[:10]]
        signed_at = next((value for name, _, value in parts if name == "t"), "")
        if not _SECONDS.fullmatch(signed_at):
            raise Refused(401, "signature", "the signature has no time: t=<seconds since 1970>,v1=<hex>")
        expected = self._hmac(b"", f"{signed_at}.".encode() + request.body)
        # Several, while the secret changes. All are compared.
        matching = [
            hmac.compare_digest(expected.encode(), value.encode("utf-8", "replace"))
            for name, _, value in parts
            if name == "v1"
        ]
        if not any(matching):
            raise Refused(401, "signature", "the signature is wrong: HMAC-SHA256 over <t>.<body>, in hex")
        if abs(request.received_at.timestamp() - int(signed_at)) > _TOLERANCE.total_seconds():
            raise Refused(401, "stale", "the signature is more than five minutes old, or of the future")
        return signed_at

    # --- sent by our own page ------------------------------------------------------------------------------------

    def _from_page(self, request: ChannelRequest) -> Answer:
        if _media_type(request) not in (_URLENCODED, _MULTIPART):
            raise Refused(401, "signature", "only the form itself is accepted without a signature")
        now = request.received_at
        values = _values(request)
        language = _page_language(request, values)
        shown = {name: given[0] for name, given in values.items()}
        if _first(values, HONEYPOT):
            # Told apart from nothing: who fills in everything need not learn what gave him away.
            return self._page(200, thanks_page(language, by_mail=True), ignored=("honeypot",))
        issued = self._issued(_first(values, "token"))
        if issued is None or now - issued[0] > _PAGE_MOST:
            page = form_page(language, self._token(now), shown, notice="expired")
            return self._page(422, page, ignored=("expired",))
        issued_at, token_id = issued
        if now - issued_at < _PAGE_LEAST:
            page = form_page(language, _first(values, "token"), shown, notice="too_soon")
            return self._page(422, page, ignored=("too_soon",))
        try:
            filled = self._filled({**values, "lang": [language]})
        except Faulty as faulty:
            page = form_page(language, _first(values, "token"), shown, faulty.fields)
            return self._page(422, page, ignored=("invalid",))
        message = self._message(f"form-{token_id}", filled, now)
        return self._page(200, thanks_page(language, by_mail=filled.customer.email is not None), messages=(message,))

    def _page(
        self, status: int, page: str, messages: tuple[ChannelMessage, ...] = (), ignored: tuple[str, ...] = ()
    ) -> Answer:
        policy = framed_policy(self.config.allowed_origins, f"style-src {STYLE_SOURCE}", "form-action 'self'")
        return Answer(
            status=status,
            body=page,
            media_type="text/html",
            headers={"Content-Security-Policy": policy},
            messages=messages,
            ignored=ignored,
        )

    def _token(self, now: datetime) -> str:
        said = f"{int(now.timestamp())}.{secrets.token_urlsafe(12)}"
        return f"{said}.{self._hmac(b'page', said.encode())}"

    def _issued(self, token: str) -> tuple[datetime, str] | None:
        """When a page was made, and its token's id; none of a token that is not ours."""
        said, _, signature = token.rpartition(".")
        expected = self._hmac(b"page", said.encode("utf-8", "replace"))
        if not hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace")):
            return None
        seconds, _, token_id = said.partition(".")
        return datetime.fromtimestamp(int(seconds), UTC), token_id

    def _hmac(self, purpose: bytes, said: bytes) -> str:
        key = self.config.secret.get_secret_value().encode()
        if purpose:  # with a key of its own, so that the one cannot pass for the other
            key = hmac.new(key, b"switchyard web_form " + purpose + self.brand.encode(), hashlib.sha256).digest()
        return hmac.new(key, said, hashlib.sha256).hexdigest()

    # --- what is filled in ---------------------------------------------------------------------------------------

    def _filled(self, values: Values) -> Filled:
        """What the form says. Raises Faulty with all that is wrong."""
        faults = []
        email = _first(values, "email")
        if email and (
            len(email) > _MOST_ADDRESS_CHARACTERS or not _ADDRESS.fullmatch(email) or not email.isprintable()
        ):
            faults.append("email")
        phone = _first(values, "phone")
        number = e164(phone, self.config.region) if phone else None
        if phone and number is None:
            faults.append("phone")
        if not (email or phone):
            faults.append("contact")
        message = _first(values, "message").replace("\r\n", "\n")  # as browsers send line breaks
        if not message:
            faults.append("message")
        urls = [url for url in (item.strip() for item in values.get("attachment_url", ())) if url]
        if any(address({"url": url}, "url") is None for url in urls):
            faults.append("attachment_url")
        if faults:
            raise Faulty(faults)
        tag = _first(values, "lang").lower()[:2]
        language: PageLanguage = "en" if tag == "en" or (tag != "zh" and not _CHINESE.search(message)) else "zh"
        order_no = cut(_first(values, "order_no"), 100)
        rest = f"\n{order_line(order_no, language)}" if order_no else ""
        category = label_of(cut(_first(values, "category"), 100), language)
        subject = f"{f'[{category}] ' if category else ''}{_first(values, 'subject')}".strip()
        return Filled(
            customer=Customer(
                id=email.lower() if email else number or "",
                name=cut(_first(values, "name"), MOST_SHORT_CHARACTERS) or None,
                phone=number,
                email=email or None,
                language=Language(tag) if tag in ("zh", "en") else None,
            ),
            text=cut(message, MAX_TEXT_CHARACTERS - len(rest)) + rest,
            subject=cut(subject, MOST_SHORT_CHARACTERS) or None,
            attachments=tuple(Attachment(name=_file_name(url), url=url) for url in urls[:_MOST_ATTACHMENTS]),
        )

    def _message(self, message_id: str, filled: Filled, now: datetime) -> ChannelMessage:
        return self.message(
            message_id=message_id,
            customer=filled.customer,
            text=filled.text,
            subject=filled.subject,
            sent_at=now,
            reply_to=filled.customer.email or filled.customer.phone,
            attachments=filled.attachments,
        )


def _digest(*parts: str | bytes) -> str:
    joined = b"\x1f".join(part.encode() if isinstance(part, str) else part for part in parts)
    return hashlib.sha256(joined).hexdigest()[:40]


def _first(values: Values, name: str) -> str:
    return values[name][0].strip() if values.get(name) else ""


def _file_name(url: str) -> str:
    return cut(unquote(urlsplit(url).path.rpartition("/")[2]), MOST_SHORT_CHARACTERS) or "attachment"


def _media_type(request: ChannelRequest) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _page_language(request: ChannelRequest, values: Values) -> PageLanguage:
    """Of the address, else of the form, else of the browser; Chinese where none is known."""
    asked = request.query.get("lang") or _first(values, "lang") or request.headers.get("accept-language", "")
    return "en" if asked[:2].lower() == "en" else "zh"


def _values(request: ChannelRequest) -> Values:
    """The form's fields, each with all that was given for it. Raises Refused."""
    media_type, options = parse_options_header(request.headers.get("content-type", "").encode("latin-1", "replace"))
    if media_type == b"application/json":
        return _of_json(json_object(request.body))
    named = options.get(b"charset", b"utf-8").decode("latin-1").lower()
    charset = named if named in _CHARSETS else "utf-8"
    if media_type == _URLENCODED.encode():
        return _of_urlencoded(request.body, charset)
    if media_type == _MULTIPART.encode():
        return _of_multipart(request.body, options.get(b"boundary", b""), charset)
    raise Refused(415, "malformed", f"send {_URLENCODED}, {_MULTIPART} or application/json")


def _of_json(content: Mapping[str, Any]) -> Values:
    found: dict[str, list[str]] = {}
    for name, value in content.items():
        given = [
            str(item) if isinstance(item, int | float) else text({name: item}, name)
            for item in (value if isinstance(value, list) else [value])
        ]
        if any(given):
            found[name] = given
    return found


def _of_urlencoded(body: bytes, charset: str) -> Values:
    found: defaultdict[str, list[str]] = defaultdict(list)
    try:
        pairs = parse_qsl(
            body.decode(charset, "replace"), encoding=charset, errors="replace", max_num_fields=_MOST_FIELDS
        )
    except ValueError:
        raise Refused(400, "malformed", f"the form has more than {_MOST_FIELDS} fields") from None
    for name, value in pairs:
        found[name].append(value)
    return found


def _of_multipart(body: bytes, boundary: bytes, charset: str) -> Values:
    found: defaultdict[str, list[str]] = defaultdict(list)

    def on_field(field: Field) -> None:
        if field.field_name is not None:
            name = field.field_name.decode(charset, "replace")
            found[name].append((field.value or b"").decode(charset, "replace"))

    def on_file(file: File) -> None:
        if file.size:
            raise Refused(422, "invalid", "files are not taken: store the file, and give its address as attachment_url")

    if not boundary:
        raise Refused(400, "malformed", "multipart/form-data needs a boundary")
    try:
        parser = FormParser(
            _MULTIPART,
            on_field,
            on_file,
            boundary=boundary,
            # Bodies are bounded by the gateway; nothing is ever written to a disk.
            config={"MAX_FIELDS": _MOST_FIELDS, "MAX_MEMORY_FILE_SIZE": float("inf")},
        )
        parser.write(body)
        parser.finalize()
    except FormParserError:
        raise Refused(400, "malformed", "the body is not multipart/form-data") from None
    return found
