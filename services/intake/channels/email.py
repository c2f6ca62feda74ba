"""E-mail: a mail as it stands on the wire (RFC 5322) to the customer's message. docs/channels/email.md.

Mails come by SMTP (`services.intake.smtp`) or are fetched by IMAP (`services.intake.imap`), never over HTTP; answers
go out by the notifier's mail server. Nothing in a mail is opened, followed or fetched: attachments are listed.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Annotated, ClassVar, Final, Literal
from urllib.parse import quote

from pydantic import AfterValidator, Field, SecretStr

from services.intake.channels import mime
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
)
from services.intake.channels.fields import MOST_ID_CHARACTERS, MOST_SHORT_CHARACTERS, cut
from services.intake.channels.mime import Found, Part
from services.intake.channels.quoting import Kind, bare_subject, html_text, own_text, tidy, unflowed
from shared.events import Attachment, Customer
from shared.events.channel import Contact
from shared.taxonomy import Channel

_MOST_ATTACHMENTS: Final = 50
_MOST_REFERENCES: Final = 50
_MOST_HOPS: Final = 100
"""`Received` headers: a mail that has come through so many servers goes round in a circle (RFC 5321, 6.3)."""
_OLDEST: Final = timedelta(days=30)
"""No server keeps a mail so long: a `Date` before tells of a wrong clock."""
_FUTURE_MOST: Final = timedelta(days=1)


def _mail_address(value: str) -> str:
    found = mime.address(value)
    if found is None:
        raise ValueError("is not an e-mail address of the form name@host.example")
    return found


class ImapConfig(AdapterConfig):
    """A mailbox to fetch from. Accepted mails are marked read, or moved to the folder `move_to`."""

    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)] = 993
    username: Annotated[str, Field(min_length=1)]
    password: SecretStr
    folder: Annotated[str, Field(min_length=1)] = "INBOX"
    security: Literal["tls", "starttls", "none"] = "tls"
    move_to: Annotated[str, Field(min_length=1)] | None = None


class EmailConfig(AdapterConfig):
    """`addresses`: the brand's own, by which its mail is known. `trusted_authserv`: the name by which the brand's own
    mail server signs its `Authentication-Results`; it must take such headers out of what it receives. `own_lists`:
    List-Ids of lists that are the brand's own mailbox (a group in place of a mailbox).
    """

    addresses: Annotated[tuple[Annotated[str, AfterValidator(_mail_address)], ...], Field(min_length=1)]
    imap: ImapConfig | None = None
    trusted_authserv: Annotated[str, Field(min_length=1)] | None = None
    own_lists: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Envelope:
    """What SMTP says beside the mail. `sender` is empty for what must not be answered (`MAIL FROM:<>`)."""

    sender: str
    recipients: tuple[str, ...]


class EmailAdapter(Adapter[EmailConfig]):
    provider: ClassVar[str] = "email"
    channel: ClassVar[Channel] = Channel.EMAIL
    config_type: ClassVar[type[EmailConfig]] = EmailConfig

    def receive(self, request: ChannelRequest) -> Answer:
        """For `parse` and for tests: the body is the mail. Over HTTP, where nobody vouches for it, it is refused."""
        if request.client or request.url:
            raise Refused(404, "method", "mail is not taken over HTTP; send it by SMTP")
        return self.read_mail(request.body, request.received_at)

    async def send(self, reply: Reply, call: Call) -> Sent:
        """Mail goes out by the notifier's own output; what comes here has an address that no mail server takes."""
        raise NotSent("no mail address that the notifier's mail server takes", hopeless=True)

    def owns(self, address: str) -> bool:
        """Whether mail to this address is the brand's: one of its own, also with a tag (`service+news@...`)."""
        found = mime.address(address)
        if found is None:
            return False
        local, _, host = found.rpartition("@")
        return not {found, f"{local.partition('+')[0]}@{host}"}.isdisjoint(self.config.addresses)

    def read_mail(self, raw: bytes, received_at: datetime, envelope: Envelope | None = None) -> Answer:
        """The message in a mail, or why it is none: `spam`, `receipt`, `bounce`, `auto_reply`, `list`, `own`.

        `raw` as it came, with CRLF or LF. Raises Refused: too large, too deep, or nobody has sent it.
        """
        mail = mime.parse(raw)
        if len(mime.raw_headers(mail, "received")) > _MOST_HOPS:
            raise Refused(422, "loop", f"the mail has passed more than {_MOST_HOPS} servers")
        sender = _sender(mail, envelope)
        no_message = _no_message(mail, sender[1] if sender else "", envelope, self.config)
        if no_message is not None:
            return Answer(ignored=(no_message,))
        if sender is None:
            raise Refused(422, "malformed", "no sender: `From` holds no address")
        name, address = sender
        message_id = _message_id(mail, raw)
        in_reply_to = _in_reply_to(mail, message_id)
        subject, kind = bare_subject(mime.header(mail, "subject"))
        kind = Kind(is_reply=kind.is_reply or (bool(in_reply_to) and not kind.is_forward), is_forward=kind.is_forward)
        body = _body(Found("", mail))
        message = self.message(
            message_id=message_id,
            customer=Customer(id=address, name=cut(name, MOST_SHORT_CHARACTERS) or None, email=address),
            text=cut(_text(body, kind)),
            sent_at=_sent_at(mail, received_at),
            subject=cut(subject, MOST_SHORT_CHARACTERS) or None,
            reply_to=_reply_to(mail, address),
            attachments=_attachments(body, message_id),
            in_reply_to=in_reply_to,
            verified=(Contact.EMAIL,) if _is_authentic(mail, address, self.config.trusted_authserv) else (),
        )
        return Answer(messages=(message,))


# --- who, when, what it answers --------------------------------------------------------------------------------------


def _sender(mail: Part, envelope: Envelope | None) -> tuple[str, str] | None:
    """Name and address of who wrote."""
    for name, address in mime.addresses(mail, "from"):
        return ("" if name.lower() == address else name), address
    returned = mime.address(envelope.sender) if envelope else None
    return ("", returned) if returned else None


def _reply_to(mail: Part, sender: str) -> str:
    return next((address for _, address in mime.addresses(mail, "reply-to")), sender)


def _sent_at(mail: Part, received_at: datetime) -> datetime:
    try:
        sent_at = parsedate_to_datetime(mime.raw_header(mail, "date")[:200])
        if sent_at.tzinfo is None:  # "-0000": UTC, of a sender who does not tell his zone (RFC 5322, 3.3)
            sent_at = sent_at.replace(tzinfo=UTC)
        is_possible = received_at - _OLDEST <= sent_at <= received_at + _FUTURE_MOST
    except (ValueError, TypeError, IndexError, OverflowError):
        return received_at
    return sent_at if is_possible else received_at


_BRACKETED_ID: Final = re.compile(r"<([^<>\s]{1,4000})>")


def _ids(value: str) -> list[str]:
    found = _BRACKETED_ID.findall(value) or [token.strip("<>") for token in value.split() if "@" in token]
    return [_identifier(item) for item in found if item]


def _identifier(written: str) -> str:
    """A Message-ID as an identifier: the same for the mail itself and for those that answer it."""
    if len(written) <= MOST_ID_CHARACTERS and written.isascii() and written.isprintable():
        return written
    return f"sha256-{hashlib.sha256(written.encode('utf-8', 'surrogateescape')).hexdigest()}"


def _message_id(mail: Part, raw: bytes) -> str:
    """Its Message-ID; for a mail without one a hash of what servers on its way leave as it is."""
    ids = _ids(mime.raw_header(mail, "message-id"))
    if ids:
        return ids[0]
    told = [f"{name}: {mime.raw_header(mail, name)}" for name in ("from", "to", "date", "subject")]
    _, _, body = raw.replace(b"\r\n", b"\n").partition(b"\n\n")
    digest = hashlib.sha256("\n".join(told).encode("utf-8", "surrogateescape") + b"\n\n" + body.rstrip())
    return f"sha256-{digest.hexdigest()}"


def _in_reply_to(mail: Part, message_id: str) -> tuple[str, ...]:
    """The mail that it answers, then those before, nearest first."""
    answered = [found for value in mime.raw_headers(mail, "in-reply-to") for found in _ids(value)]
    before = [found for value in mime.raw_headers(mail, "references") for found in _ids(value)]
    ordered = dict.fromkeys((*answered, *reversed(before)))
    ordered.pop(message_id, None)
    return tuple(ordered)[:_MOST_REFERENCES]


# --- mails that are no message ---------------------------------------------------------------------------------------

_OURS: Final = re.compile(r"(?:[0-9a-f-]{36}\.)?[0-9a-f-]{36}@(?P<host>.+)")
"""Message-IDs of the notifier's mails."""
_BOUNCERS: Final = frozenset({"mailer-daemon", "postmaster", "mail-daemon", "maildaemon", "mdaemon"})
_AUTO_SUBJECT: Final = re.compile(
    r"(?i)\s*[\[【(]?\s*(?:自动回复|自动答复|自動回覆|自動回復|外出自动回复|automatic reply|auto[- ]?reply"
    r"|auto[- ]?response|out of (?:the )?office)\s*[\])】]?\s*(?:[:：-]|$)"
)
_AUTO_HEADERS: Final = ("x-autoreply", "x-autorespond", "x-autoresponder", "x-auto-reply", "x-autogenerated")
_SUPPRESSES: Final = re.compile(r"(?i)(?:^|[\s,;])(?:all|dr|autoreply)(?:$|[\s,;])")
"""Values of X-Auto-Response-Suppress with which machines write; "OOF" alone is also set for people."""


def _no_message(mail: Part, sender: str, envelope: Envelope | None, config: EmailConfig) -> str | None:
    """Why the mail is no message of a customer, or None."""
    if mime.raw_header(mail, "x-spam-flag").lower().startswith("yes"):
        return "spam"
    report = _report(mail)
    if report is not None:
        return report
    if _is_automatic(mail):
        return "auto_reply"
    if _is_bounce(mail, sender, envelope):
        return "bounce"
    if _is_of_a_list(mail, config.own_lists):
        return "list"
    return "own" if _is_own(mail, sender, config) else None


def _report(mail: Part) -> str | None:
    parts = [mail, *mime.children(mail)]
    kinds = {mime.content_type(part) for part in parts}
    asked = (mime.parameter(mail, "content-type", "report-type") or "").lower()
    if "message/disposition-notification" in kinds or asked == "disposition-notification":
        return "receipt"
    is_bounce = "message/delivery-status" in kinds or "multipart/report" in kinds
    return "bounce" if is_bounce or mime.raw_header(mail, "x-failed-recipients") else None


def _is_automatic(mail: Part) -> bool:
    submitted = mime.raw_header(mail, "auto-submitted").partition(";")[0].strip().lower()
    precedence = mime.raw_header(mail, "precedence").lower()
    return (
        submitted not in ("", "no")
        or any(mime.raw_header(mail, name) for name in _AUTO_HEADERS)
        or precedence in ("bulk", "junk", "auto_reply")
        or _SUPPRESSES.search(mime.raw_header(mail, "x-auto-response-suppress")) is not None
        or _AUTO_SUBJECT.match(mime.header(mail, "subject")) is not None
    )


def _is_bounce(mail: Part, sender: str, envelope: Envelope | None) -> bool:
    has_null_sender = envelope is not None and envelope.sender in ("", "<>")
    returns_nowhere = mime.raw_header(mail, "return-path") == "<>"
    return has_null_sender or returns_nowhere or sender.partition("@")[0] in _BOUNCERS


def _is_of_a_list(mail: Part, own_lists: tuple[str, ...]) -> bool:
    lists = mime.raw_headers(mail, "list-id")
    if any(own.lower() in named.lower() for own in own_lists for named in lists):
        return False
    return bool(lists) or mime.raw_header(mail, "precedence").lower() == "list"


def _is_own(mail: Part, sender: str, config: EmailConfig) -> bool:
    """Our own mail on its way back. Not every Message-ID of the brand's host: it may be that of a mail provider."""
    ours = _OURS.fullmatch(next(iter(_ids(mime.raw_header(mail, "message-id"))), ""))
    hosts = {address.rpartition("@")[2] for address in config.addresses}
    return sender in config.addresses or (ours is not None and ours["host"].lower() in hosts)


# --- whether it is from whom it says ---------------------------------------------------------------------------------

_MOST_RESULTS_CHARACTERS: Final = 4000
_MOST_NESTED_COMMENTS: Final = 4
_COMMENT_OR_QUOTED: Final = re.compile(r'\([^()]*\)|"[^"]*"')
_DMARC: Final = re.compile(r"(?i)\s*dmarc\s*=\s*pass\b(?P<properties>[^;]*)")
_HEADER_FROM: Final = re.compile(r"(?i)\bheader\.from\s*=\s*(\S+)")


def _is_authentic(mail: Part, sender: str, authserv: str | None) -> bool:
    """Whether the brand's own mail server has found that the sender's host vouches for the mail (RFC 8601, RFC 7489).

    Only the topmost header counts: it is the last that was put on, and the sender can write others below.
    """
    if authserv is None or len(mime.addresses(mail, "from")) != 1 or len(mime.raw_headers(mail, "from")) != 1:
        return False
    plain = mime.raw_header(mail, "authentication-results")[:_MOST_RESULTS_CHARACTERS]
    for _ in range(_MOST_NESTED_COMMENTS):
        plain = _COMMENT_OR_QUOTED.sub(" ", plain)
    if not set('()"').isdisjoint(plain):
        return False
    server, *results = plain.split(";")
    if server.split()[:1] != [authserv]:
        return False
    passed = [found for result in results if (found := _DMARC.match(result))]
    about = [host[1] for found in passed if (host := _HEADER_FROM.search(found["properties"]))]
    return [host.lower() for host in about] == [sender.rpartition("@")[2]]


# --- text and attachments --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Body:
    """`texts`: the parts that a mail program shows, in their order. `files`: all others."""

    texts: list[Part] = field(default_factory=list)
    files: list[Found] = field(default_factory=list)

    @property
    def has_plain_text(self) -> bool:
        return any(mime.content_type(part) != "text/html" and mime.text_of(part).strip() for part in self.texts)

    @property
    def has_text(self) -> bool:
        return any(mime.content(part).strip() for part in self.texts)


def _body(found: Found) -> _Body:
    """Depth is bounded: see `mime.parse`."""
    part = found.part
    kind = mime.content_type(part)
    if not kind.startswith("multipart/"):
        is_file = mime.disposition(part) == "attachment" or bool(mime.file_name(part))
        if kind in ("text/plain", "text/html") and not is_file:
            return _Body(texts=[part])
        return _Body(files=[found if found.section else Found("1", part)])
    if isinstance(part.held, str):  # its boundary is missing: then this is all text there is
        return _Body(texts=[part])
    bodies = [_body(child) for child in found.inside()]
    whole = _Body(files=[file for body in bodies for file in body.files])
    if kind == "multipart/alternative":
        options = [body for body in bodies if body.has_plain_text] or [body for body in bodies if body.has_text][-1:]
        whole.texts = options[0].texts if options else []
    elif kind == "multipart/related":
        whole.texts = bodies[0].texts if bodies else []
    else:
        whole.texts = [text for body in bodies for text in body.texts]
    return whole


def _text(body: _Body, kind: Kind) -> str:
    own = "\n\n".join(filter(None, (own_text(_read(part, kind, whole=False), kind) for part in body.texts)))
    if own:
        return own
    # Answers written into the quoted lines, or a quotation alone: better too much than nothing.
    return tidy("\n\n".join(_read(part, kind, whole=True) for part in body.texts))


def _read(part: Part, kind: Kind, *, whole: bool) -> str:
    text = mime.text_of(part)
    if mime.content_type(part) == "text/html":
        return html_text(text, kind, whole=whole)
    if (mime.parameter(part, "content-type", "format") or "").lower() == "flowed":
        return unflowed(text, delete_space=(mime.parameter(part, "content-type", "delsp") or "").lower() == "yes")
    return text


def _attachments(body: _Body, message_id: str) -> tuple[Attachment, ...]:
    files = [_attachment(file, message_id) for file in body.files[:_MOST_ATTACHMENTS]]
    beyond = len(body.files) - _MOST_ATTACHMENTS
    if beyond > 0:
        files[-1] = Attachment(name=f"… +{beyond + 1}")
    return tuple(files)


def _attachment(file: Found, message_id: str) -> Attachment:
    """By reference: a `mid:` address (RFC 2392) of the mail, with the part's number as fragment."""
    kind = mime.content_type(file.part)
    # A forwarded mail's own parts are its business.
    size_bytes = None if mime.children(file.part) else len(mime.content(file.part))
    url = f"mid:{quote(message_id, safe='@$!*+=.-_~')}#{file.section}"
    return Attachment(
        name=_whole_ending(mime.file_name(file.part)) or _unnamed(kind, file.part),
        media_type=cut(kind, MOST_SHORT_CHARACTERS),
        url=url if len(url) <= MOST_SHORT_CHARACTERS else None,
        size_bytes=size_bytes,
    )


def _whole_ending(name: str) -> str:
    """A name of at most 500 characters that still tells what it ends in: that is what opens the file."""
    clean = cut(name, 10_000)
    if len(clean) <= MOST_SHORT_CHARACTERS:
        return clean
    return f"{clean[: MOST_SHORT_CHARACTERS - 101]}…{clean[-100:]}"


def _unnamed(kind: str, part: Part) -> str:
    if kind == "message/rfc822":
        return f"{cut(_forwarded_subject(part), MOST_SHORT_CHARACTERS - 4) or 'mail'}.eml"
    return "invite.ics" if kind == "text/calendar" else "unnamed"


def _forwarded_subject(part: Part) -> str:
    return next((mime.header(child, "subject") for child in mime.children(part)), "")
