"""Kafka goes away while providers send: they are told to try again, and nothing that was accepted is lost."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import uuid
from collections import defaultdict
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path
from typing import Final

import aiosmtplib
import httpx
import pytest

from deploy.audit import read_all
from deploy.brokers import Broker
from deploy.embedded.broker import EmbeddedBroker
from deploy.processes import free_port
from deploy.stack import ExternalBroker, Stack
from shared import topics
from tests.support.waiting import eventually

BRAND: Final = "upay"
API_KEY: Final = uuid.uuid4().hex
APP_SECRET: Final = uuid.uuid4().hex
_BEFORE, _AFTER = 40, 40


def brand_file() -> str:
    return f"""
brand: {BRAND}
name: {{zh: UPay, en: UPay}}
mail_from: service@upay.example
gateways: {{default: upay}}
leads: {{default: [service_lead]}}
channels:
  app_chat:
    hours: always
    keys: [{{key_env: OUTAGE_API_KEY}}]
  whatsapp:
    hours: always
    adapter:
      provider: whatsapp
      app_secret: ${{OUTAGE_APP_SECRET}}
      verify_token: ${{OUTAGE_APP_SECRET}}
      access_token: ${{OUTAGE_APP_SECRET}}
      phone_number_id: "106540352242922"
  email:
    hours: always
    adapter: {{provider: email, addresses: [service@upay.example]}}
"""


def webhook(message_id: str) -> bytes:
    sender = f"86138{int(hashlib.sha256(message_id.encode()).hexdigest(), 16) % 10**8:08}"
    value = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "15550783881", "phone_number_id": "106540352242922"},
        "contacts": [{"profile": {"name": "Lin"}, "wa_id": sender}],
        "messages": [
            {
                "from": sender,
                "id": message_id,
                "timestamp": "1764129600",
                "type": "text",
                "text": {"body": "充值没到账"},
            }
        ],
    }
    entry = {"id": "1", "changes": [{"field": "messages", "value": value}]}
    return json.dumps({"object": "whatsapp_business_account", "entry": [entry]}).encode()


class Senders:
    """A provider, a channel of our own, and a mail server."""

    def __init__(self, client: httpx.AsyncClient, smtp_port: int) -> None:
        self._client = client
        self._smtp_port = smtp_port
        self.accepted: list[str] = []
        self.refused: list[httpx.Response] = []
        self.mails_refused: list[int] = []

    async def by_provider(self) -> httpx.Response:
        message_id = f"wamid.{uuid.uuid4().hex}"
        body = webhook(message_id)
        signature = hmac.new(APP_SECRET.encode(), body, hashlib.sha256).hexdigest()
        headers = {"X-Hub-Signature-256": f"sha256={signature}", "Content-Type": "application/json"}
        return await self._sent(message_id, "/v1/channels/whatsapp/upay", body, headers)

    async def by_api(self) -> httpx.Response:
        message_id = uuid.uuid4().hex
        message = {
            "brand": BRAND,
            "channel": "app_chat",
            "message_id": message_id,
            "customer": {"id": message_id},
            "text": "怎么提现",
            "sent_at": "2026-11-26T12:00:00+08:00",
        }
        headers = {"Authorization": f"Bearer {API_KEY}", "Content-Type": "application/json"}
        return await self._sent(message_id, "/v1/messages", json.dumps(message).encode(), headers)

    async def by_mail(self) -> int:
        """The code that the mail is answered with."""
        mail = EmailMessage()
        message_id = f"{uuid.uuid4().hex}@example.com"
        mail["From"], mail["To"] = f"{uuid.uuid4().hex}@example.com", "service@upay.example"
        mail["Subject"], mail["Message-ID"] = "refund", f"<{message_id}>"
        mail["Date"] = "Thu, 26 Nov 2026 12:00:00 +0800"
        mail.set_content("Where is my refund?")
        try:
            await aiosmtplib.send(mail, hostname="127.0.0.1", port=self._smtp_port, start_tls=False, timeout=30)
        except aiosmtplib.SMTPResponseException as refused:
            self.mails_refused.append(refused.code)
            return refused.code
        self.accepted.append(message_id)
        return 250

    async def _sent(self, message_id: str, path: str, body: bytes, headers: dict[str, str]) -> httpx.Response:
        answer = await self._client.post(path, content=body, headers=headers)
        if answer.is_success:
            self.accepted.append(message_id)
        else:
            self.refused.append(answer)
        return answer

    async def both(self, count: int) -> list[httpx.Response]:
        return [answer for _ in range(count) for answer in (await self.by_provider(), await self.by_api())]


async def published(stack: Stack) -> dict[str, set[bytes]]:
    """By message, what was published of it. A record whose acknowledgement was lost is published again, the same."""
    records = (await read_all(stack.settings, [topics.TICKETS_MESSAGES.name]))[topics.TICKETS_MESSAGES.name]
    found: defaultdict[str, set[bytes]] = defaultdict(set)
    for record in records:
        found[json.loads(record.value or b"{}")["message_id"]].add(record.value or b"")
    return found


@pytest.mark.timeout(300)
async def test_senders_are_told_of_an_outage_and_what_was_accepted_goes_out_after_it(
    own_broker: Callable[..., Broker], run_directory: Path, tmp_path: Path
) -> None:
    broker = own_broker()
    if isinstance(broker, EmbeddedBroker):
        pytest.skip("the embedded broker keeps its log in memory: it cannot come back from an outage")
    (tmp_path / f"{BRAND}.yaml").write_text(brand_file())
    smtp_port = free_port()
    stack = Stack(
        run_directory / "chaos-outage",
        ExternalBroker(broker.bootstrap_servers),
        services=("intake",),
        environment={
            "BRANDS_DIRECTORY": str(tmp_path),
            "OUTAGE_API_KEY": API_KEY,
            "OUTAGE_APP_SECRET": APP_SECRET,
            "INTAKE_SMTP_PORT": str(smtp_port),
        },
    )
    async with stack, httpx.AsyncClient(base_url=stack.url("intake"), timeout=30, trust_env=False) as client:
        senders = Senders(client, smtp_port)
        before = await senders.both(_BEFORE)
        assert [answer.status_code for answer in before if not answer.is_success] == []
        assert await senders.by_mail() == 250

        # Messages go on while Kafka stops: some are still accepted, then senders are told.
        stopping = asyncio.create_task(asyncio.to_thread(broker.stop))
        refusals = await eventually(lambda: _both_refused(senders), 60, 0.05) or []
        assert len(refusals) == 2
        await stopping
        in_the_gap = len(senders.accepted) - 2 * _BEFORE - 1
        for answer in refusals:
            assert answer.status_code == 503
            assert int(answer.headers["Retry-After"]) > 0
            assert answer.headers["content-type"] == "application/problem+json"
        still = await senders.both(5)
        assert [answer.status_code for answer in still] == [503] * 10
        assert [await senders.by_mail() for _ in range(3)] == [451] * 3
        assert (await client.get("/livez")).status_code == 200

        broker.start()
        await eventually(lambda: _both_accepted(senders), 60, 0.2)
        await senders.both(_AFTER)
        assert await senders.by_mail() == 250
        found = await eventually(lambda: _all_of(stack, senders), 60, 0.5)
    assert [message_id for message_id, events in found.items() if len(events) != 1] == []
    assert set(found) == set(senders.accepted)
    print(
        f"accepted {len(senders.accepted)} ({in_the_gap} while Kafka was stopping), "
        f"refused {len(senders.refused)} requests and {len(senders.mails_refused)} mails"
    )


async def _both_refused(senders: Senders) -> list[httpx.Response] | None:
    answers = [await senders.by_provider(), await senders.by_api()]
    return answers if not any(answer.is_success for answer in answers) else None


async def _both_accepted(senders: Senders) -> bool:
    return all([(await senders.by_provider()).is_success, (await senders.by_api()).is_success])


async def _all_of(stack: Stack, senders: Senders) -> dict[str, set[bytes]]:
    found = await published(stack)
    assert set(senders.accepted) <= set(found), "accepted messages are missing"
    return found
