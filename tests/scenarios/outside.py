"""The world outside of Switchyard, as the stories need it: providers that sign what customers write and take answers.

Each request is built as its provider documents it (tests/channels/ has recorded ones), with secrets that are made up
for this run. What is asked of a provider's API is checked for the brand's token, and kept with whom it is for.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
import smtplib
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from email.message import EmailMessage
from email.utils import formataddr
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

import httpx
import jwt
import uvicorn
import yaml
from fastapi import FastAPI, HTTPException, Request
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from deploy.processes import HOST, free_port
from shared.brands import BRANDS_DIRECTORY, load_brands
from shared.events.channel import Attachment, Customer
from shared.taxonomy import Channel
from shared.yaml_files import filled

_WITH_AN_API: Final = frozenset(
    {Channel.WECHAT, Channel.WEIBO, Channel.FACEBOOK, Channel.WHATSAPP, Channel.X, Channel.TELEGRAM}
)
_CHINA: Final = timezone(timedelta(hours=8))
_AGENTS: Final = re.compile(r"(坐席|Agent)[：:]\s*(.*)")
_CUSTOMERS: Final = re.compile(r"(客户|Customer)[：:]\s*(.*)")

Settings = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Said:
    """One message as its customer sends it. `number` is the same when the provider delivers it again."""

    brand: str
    customer: Customer
    number: str
    text: str
    subject: str | None
    attachments: tuple[Attachment, ...]
    sent_at: datetime


@dataclass(frozen=True, slots=True)
class Delivery:
    """The provider's request: what follows `/v1/channels/<provider>/<brand>`."""

    provider: str
    body: bytes
    headers: Mapping[str, str]
    query: Mapping[str, str] = field(default_factory=dict)


def person_of(channel: Channel, brand: str, customer: Customer, run: str) -> Customer:
    """The customer of a story as his channel knows him, another one in each run."""
    digest = hashlib.sha256(f"{run}/{brand}/{channel}/{customer.id}".encode()).hexdigest()
    digits = str(int(digest[:16], 16)).rjust(16, "1")
    match channel:
        case Channel.PHONE | Channel.WHATSAPP:
            number = f"+1212736{digits[-4:]}" if brand == "topay" else f"+86138{digits[-8:]}"
            known = number if channel is Channel.PHONE else number.removeprefix("+")
            return customer.model_copy(update={"id": known, "phone": number})
        case Channel.EMAIL | Channel.WEB_FORM:
            local, _, host = customer.id.partition("@")
            address = f"{local}.{run}@{host}"
            return customer.model_copy(update={"id": address, "email": address})
        case Channel.WECHAT:
            return customer.model_copy(update={"id": f"o{digest[:27]}"})
        case Channel.APP_CHAT:
            return customer.model_copy(update={"id": f"{customer.id}-{run}"})
    return customer.model_copy(update={"id": f"5{digits[-12:]}"})


class Outside:
    """`brands`: the committed brands' files, with these providers in the place of the real ones; `environment`: the
    secrets they name.
    """

    def __init__(self, directory: Path) -> None:
        self.arrived: list[tuple[str, Channel, str, str]] = []
        """Brand, channel, whom it is for, text."""
        self._port = free_port()
        self.environment: dict[str, str] = {}
        self.brands = directory / "brands"
        self.brands.mkdir(parents=True)
        self._settings: dict[tuple[str, Channel], Settings] = {}
        for code, brand in load_brands(BRANDS_DIRECTORY).items():
            content = yaml.safe_load((BRANDS_DIRECTORY / f"{code}.yaml").read_text(encoding="utf-8"))
            for channel, section in brand.channels.items():
                if section.adapter is None:
                    continue
                self._make_up(code, channel, section.adapter)
                adapter = content["channels"][channel.value]["adapter"]
                if channel in _WITH_AN_API:
                    adapter["api_url"] = self.url
                self._settings[code, channel] = filled(adapter, self.environment)[0]
            path = self.brands / f"{code}.yaml"
            path.write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False), encoding="utf-8")
        tokens = {
            Channel.FACEBOOK: "access_token",
            Channel.WHATSAPP: "access_token",
            Channel.X: "access_token",
            Channel.WEIBO: "access_token",
            Channel.TELEGRAM: "bot_token",
            Channel.WECHAT: "app_id",
        }
        self._accounts = {
            settings[tokens[channel]]: (brand, channel)
            for (brand, channel), settings in self._settings.items()
            if channel in tokens
        }

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._port}"

    def answers(self, brand: str, channel: Channel, customer_id: str) -> str:
        """All that this person was sent, joined: providers limit how long one message may be."""
        return "\n".join(text for *whose, text in self.arrived if whose == [brand, channel, customer_id])

    def token(self, said_by: Customer, brand: str) -> str:
        """A session of app chat, as the brand's back end makes one."""
        claims = {
            "sub": said_by.id,
            "aud": brand,
            "exp": int(time.time()) + 3600,
            "vip": said_by.vip,
            **({"name": said_by.name} if said_by.name else {}),
            **({"lang": said_by.language.value} if said_by.language else {}),
        }
        return jwt.encode(claims, self._settings[brand, Channel.APP_CHAT]["token_secret"], algorithm="HS256")

    def _make_up(self, brand: str, channel: Channel, adapter: Mapping[str, Any]) -> None:
        for name in filled(adapter, {})[1]:
            digest = hashlib.sha256(name.encode())
            self.environment[name] = digest.hexdigest()
            if name.endswith("_ID"):
                self.environment[name] = str(int(digest.hexdigest()[:12], 16))
            if channel is Channel.PHONE:
                self.environment[name] = _webhook_secret(name)
        if channel is Channel.PHONE:
            prefix = f"{brand.upper()}_PHONE"
            self.environment[f"{prefix}_SMS_URL"] = f"{self.url}/sms/{brand}"
            self.environment[f"{prefix}_OUTGOING_SECRET"] = _webhook_secret(f"{prefix}_OUTGOING_SECRET")

    # --- in ---------------------------------------------------------------------------------------------------------

    def delivery(self, channel: Channel, said: Said) -> Delivery:
        """The request by which the provider hands the message over."""
        settings = self._settings[said.brand, channel]
        build = {
            Channel.APP_CHAT: self._app_chat,
            Channel.WEB_FORM: _web_form,
            Channel.PHONE: _phone,
            Channel.WECHAT: _wechat,
            Channel.WEIBO: _weibo,
            Channel.FACEBOOK: _messenger,
            Channel.WHATSAPP: _whatsapp,
            Channel.X: _x,
            Channel.TELEGRAM: _telegram,
        }[channel]
        return build(settings, said)

    async def mail(self, said: Said, port: int) -> None:
        """The customer's mail, by SMTP. Raises smtplib.SMTPException when it is not taken."""
        mail = EmailMessage()
        mail["From"] = formataddr((said.customer.name or "", said.customer.id))
        mail["To"] = self._settings[said.brand, Channel.EMAIL]["addresses"][0]
        mail["Subject"] = said.subject or ""
        mail["Date"] = said.sent_at
        mail["Message-ID"] = f"<{said.number}@mail.example>"
        mail.set_content(said.text)
        for item in said.attachments:
            kind, _, subtype = item.media_type.partition("/")
            mail.add_attachment(b"made up", maintype=kind, subtype=subtype, filename=item.name)

        def send() -> None:
            with smtplib.SMTP(HOST, port, timeout=20) as server:
                server.send_message(mail)

        await asyncio.to_thread(send)

    def _app_chat(self, settings: Settings, said: Said) -> Delivery:
        content = {
            "message_id": said.number,
            "text": said.text,
            "sent_at": said.sent_at.isoformat(),
            "attachments": [item.model_dump(mode="json", exclude_none=True) for item in said.attachments],
        }
        headers = {"Authorization": f"Bearer {self.token(said.customer, said.brand)}"}
        return Delivery("app_chat", _json(content), headers)

    # --- out --------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Outside]:
        config = uvicorn.Config(self._app(), host=HOST, port=self._port, log_config=None, access_log=False)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server._serve())  # not `serve`: that takes Ctrl-C for itself
        try:
            while not server.started:  # noqa: ASYNC110 - uvicorn offers a flag, no event
                await asyncio.sleep(0.01)
            yield self
        finally:
            server.should_exit = True
            await serving

    def _account(self, token: str, *channels: Channel) -> tuple[str, Channel]:
        account = self._accounts.get(token)
        if account is None or account[1] not in channels:
            raise HTTPException(401)
        return account

    def _take(self, account: tuple[str, Channel], customer_id: object, text: str) -> int:
        self.arrived.append((*account, str(customer_id), text))
        return len(self.arrived)

    def _app(self) -> FastAPI:
        app = FastAPI(openapi_url=None)

        @app.post("/bot{token}/sendMessage")
        async def telegram(token: str, request: Request) -> Any:
            asked = await request.json()
            number = self._take(self._account(token, Channel.TELEGRAM), asked["chat_id"], asked["text"])
            return {"ok": True, "result": {"message_id": number, "chat": {"id": asked["chat_id"]}}}

        @app.post("/cgi-bin/stable_token")
        async def wechat_token(request: Request) -> Any:
            asked = await request.json()
            brand, channel = self._account(asked["appid"], Channel.WECHAT)
            if asked["secret"] != self._settings[brand, channel]["app_secret"]:
                raise HTTPException(401)
            return {"access_token": f"token-of-{asked['appid']}", "expires_in": 7200}

        @app.post("/cgi-bin/message/custom/send")
        async def wechat(access_token: str, request: Request) -> Any:
            asked = await request.json()
            account = self._account(access_token.removeprefix("token-of-"), Channel.WECHAT)
            self._take(account, asked["touser"], asked["text"]["content"])
            return {"errcode": 0, "errmsg": "ok"}

        @app.post("/2/messages/reply.json")
        async def weibo(request: Request) -> Any:
            form = await request.form()
            account = self._account(str(form["access_token"]), Channel.WEIBO)
            self._take(account, form["receiver_id"], json.loads(str(form["data"]))["text"])
            return {"result": True, "receiver_id": form["receiver_id"], "type": "text", "data": form["data"]}

        @app.post("/2/dm_conversations/with/{participant}/messages", status_code=201)
        async def x(participant: str, request: Request) -> Any:
            number = self._take(self._account(_bearer(request), Channel.X), participant, (await request.json())["text"])
            return {"data": {"dm_conversation_id": participant, "dm_event_id": str(number)}}

        @app.post("/{version}/{sender}/messages")
        async def meta(version: str, sender: str, request: Request) -> Any:
            asked = await request.json()
            account = self._account(_bearer(request), Channel.FACEBOOK, Channel.WHATSAPP)
            settings = self._settings[account]
            if sender != settings.get("page_id", settings.get("phone_number_id")):
                raise HTTPException(400)
            if account[1] is Channel.FACEBOOK:
                number = self._take(account, asked["recipient"]["id"], asked["message"]["text"])
                return {"recipient_id": asked["recipient"]["id"], "message_id": f"m_{number}"}
            number = self._take(account, asked["to"], asked["text"]["body"])
            return {"messaging_product": "whatsapp", "messages": [{"id": f"wamid.{number}"}]}

        @app.post("/sms/{brand}", status_code=202)
        async def sms(brand: str, request: Request) -> Any:
            webhook = Webhook(self._settings[brand, Channel.PHONE]["outgoing_secret"])
            try:
                asked = webhook.verify(await request.body(), dict(request.headers))
            except WebhookVerificationError:
                raise HTTPException(401) from None
            self._take((brand, Channel.PHONE), asked["data"]["number"], asked["data"]["text"])

        return app


async def chat_answers(intake_url: str, outside: Outside, brand: str, customer: Customer) -> str:
    """What the brand has said in a customer's chat, as his client finds it when he opens it."""
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(
            f"{intake_url}/v1/channels/app_chat/{brand}/history",
            headers={"Authorization": f"Bearer {outside.token(customer, brand)}"},
        )
    answer.raise_for_status()
    return "\n".join(item["text"] for item in answer.json()["items"] if item["sender"] == "brand")


# --- what providers send ---------------------------------------------------------------------------------------------


def _web_form(settings: Settings, said: Said) -> Delivery:
    body = _json(
        {
            "name": said.customer.name,
            "email": said.customer.email,
            "subject": said.subject,
            "message": said.text,
            "attachment_url": [item.url for item in said.attachments],
            "submission_id": said.number,
        }
    )
    signed_at = str(int(time.time()))
    signature = _hmac(settings["secret"], f"{signed_at}.".encode() + body).hex()
    headers = {"Content-Type": "application/json", "X-Switchyard-Signature": f"t={signed_at},v1={signature}"}
    return Delivery("web_form", body, headers)


def _phone(settings: Settings, said: Said) -> Delivery:
    parts = []
    for line in said.text.splitlines():
        agent, customer = _AGENTS.match(line), _CUSTOMERS.match(line)
        who = agent or customer
        parts.append({"speaker": "agent" if agent else "customer", "text": who[2] if who else line})
    body = _json(
        {
            "type": "call.ended",
            "timestamp": said.sent_at.isoformat(),
            "data": {
                "call_id": said.number,
                "direction": "inbound",
                "caller": said.customer.phone,
                "caller_verified": True,
                "transcript": parts,
            },
        }
    )
    now, webhook_id = datetime.now(UTC), f"msg-{said.number}"
    headers = {
        "Content-Type": "application/json",
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(settings["secret"]).sign(webhook_id, now, body.decode()),
    }
    return Delivery("phone", body, headers)


def _wechat(settings: Settings, said: Said) -> Delivery:
    kind, content = "text", f"<Content>{escape(said.text)}</Content>"
    if said.attachments:
        kind, content = "image", f"<PicUrl>{escape(said.attachments[0].url or '')}</PicUrl><MediaId>m</MediaId>"
    body = (
        f"<xml><ToUserName>gh_1</ToUserName><FromUserName>{said.customer.id}</FromUserName>"
        f"<CreateTime>{int(said.sent_at.timestamp())}</CreateTime><MsgType>{kind}</MsgType>{content}"
        f"<MsgId>{_digits(said.number)}</MsgId></xml>"
    )
    return Delivery("wechat", body.encode(), {"Content-Type": "text/xml"}, _signed_query(settings["token"]))


def _weibo(settings: Settings, said: Said) -> Delivery:
    body = _json(
        {
            "type": "text",
            "receiver_id": 1902538057,
            "sender_id": int(said.customer.id),
            "created_at": said.sent_at.astimezone(_CHINA).strftime("%a %b %d %H:%M:%S %z %Y"),
            "text": said.text,
            "data": {},
        }
    )
    return Delivery("weibo", body, {"Content-Type": "application/json"}, _signed_query(settings["app_secret"]))


def _messenger(settings: Settings, said: Said) -> Delivery:
    at = int(said.sent_at.timestamp() * 1000)
    event = {
        "sender": {"id": said.customer.id},
        "recipient": {"id": settings["page_id"]},
        "timestamp": at,
        "message": {"mid": f"m_{said.number}", "text": said.text},
    }
    return _meta("messenger", settings, "page", {"id": settings["page_id"], "time": at, "messaging": [event]})


def _whatsapp(settings: Settings, said: Said) -> Delivery:
    value = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "15550783881", "phone_number_id": settings["phone_number_id"]},
        "contacts": [{"profile": {"name": said.customer.name or "-"}, "wa_id": said.customer.id}],
        "messages": [
            {
                "from": said.customer.id,
                "id": f"wamid.{said.number}",
                "timestamp": str(int(said.sent_at.timestamp())),
                "type": "text",
                "text": {"body": said.text},
            }
        ],
    }
    entry = {"id": "102290129340398", "changes": [{"field": "messages", "value": value}]}
    return _meta("whatsapp", settings, "whatsapp_business_account", entry)


def _meta(provider: str, settings: Settings, topic: str, entry: Mapping[str, Any]) -> Delivery:
    body = json.dumps({"object": topic, "entry": [entry]}).encode()  # escaped, as Meta sends it
    signature = _hmac(settings["app_secret"], body).hex()
    return Delivery(provider, body, {"Content-Type": "application/json", "X-Hub-Signature-256": f"sha256={signature}"})


def _x(settings: Settings, said: Said) -> Delivery:
    event = {
        "type": "message_create",
        "id": _digits(said.number),
        "created_timestamp": str(int(said.sent_at.timestamp() * 1000)),
        "message_create": {
            "target": {"recipient_id": settings["account_id"]},
            "sender_id": said.customer.id,
            "message_data": {"text": escape(said.text), "entities": {"urls": []}},
        },
    }
    body = _json(
        {
            "for_user_id": settings["account_id"],
            "direct_message_events": [event],
            "users": {said.customer.id: {"id": said.customer.id, "name": said.customer.name or "-"}},
        }
    )
    signature = base64.b64encode(_hmac(settings["consumer_secret"], body)).decode()
    headers = {"Content-Type": "application/json", "x-twitter-webhooks-signature": f"sha256={signature}"}
    return Delivery("x", body, headers)


def _telegram(settings: Settings, said: Said) -> Delivery:
    person = {"id": int(said.customer.id), "is_bot": False, "first_name": said.customer.name or "-"}
    message = {
        "message_id": int(_digits(said.number)[:9]),
        "from": person,
        "chat": {"id": person["id"], "type": "private", "first_name": person["first_name"]},
        "date": int(said.sent_at.timestamp()),
        "text": said.text,
    }
    headers = {
        "Content-Type": "application/json",
        "X-Telegram-Bot-Api-Secret-Token": settings["secret_token"],
    }
    return Delivery("telegram", _json({"update_id": message["message_id"], "message": message}), headers)


def _signed_query(secret: str) -> dict[str, str]:
    timestamp, nonce = str(int(time.time())), "486452656"
    signature = hashlib.sha1("".join(sorted((secret, timestamp, nonce))).encode()).hexdigest()
    return {"signature": signature, "timestamp": timestamp, "nonce": nonce}


def _hmac(secret: str, content: bytes) -> bytes:
    return hmac.new(secret.encode(), content, hashlib.sha256).digest()


def _webhook_secret(name: str) -> str:
    return "whsec_" + base64.b64encode(hashlib.sha256(name.encode()).digest()).decode()


def _digits(number: str) -> str:
    """A provider's number for a message."""
    return "1" + str(int(hashlib.sha256(number.encode()).hexdigest()[:14], 16))


def _bearer(request: Request) -> str:
    return request.headers.get("authorization", "").removeprefix("Bearer ")


def _json(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode()
