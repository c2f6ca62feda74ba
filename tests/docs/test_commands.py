"""Every command in the documents is run, against the five services, where a newcomer would run it: in the repository.

What cannot be run so stands in `not_run.yaml`, with the test that runs it instead, or with what it needs.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import sys
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import asyncpg
import httpx
import pytest

from deploy.demo.receivers import Receivers
from deploy.demo.settings import Credentials, environment
from deploy.kafka import native
from deploy.processes import REPOSITORY
from deploy.stack import ExternalBroker, Stack
from tests.docs.snippets import Snippet, exception_for, not_run, snippets
from tests.support.surroundings import Kafka
from tests.support.waiting import eventually

EXCEPTIONS: Final = not_run()
RUN: Final = [snippet for snippet in snippets() if exception_for(snippet, EXCEPTIONS) is None]
_MOST_SECONDS: Final = 120.0
_TELEGRAM_SECRET: Final = "made-up-webhook-secret"
_TELEGRAM_UPDATE: Final = {
    "update_id": 1,
    "message": {
        "message_id": 41,
        "date": 1795147200,
        "text": "转账失败",
        "chat": {"id": 830145267, "type": "private"},
        "from": {"id": 830145267, "is_bot": False, "first_name": "Lei", "language_code": "zh-hans"},
    },
}
_MAIL: Final = """\
From: Lei <lei@example.com>
To: service@topay.example
Subject: top-up
Message-ID: <1@example.com>
Date: Fri, 20 Nov 2026 12:00:00 +0800

My top-up has not arrived.
"""
_KAFKA_TOOLS: Final = {
    "kafka-console-producer.sh": "org.apache.kafka.tools.ConsoleProducer",
    "kafka-console-consumer.sh": "org.apache.kafka.tools.consumer.ConsoleConsumer",
}


class Site:
    """The repository as a newcomer has it, with the files that the documents speak of, and services to talk to."""

    def __init__(self, directory: Path, variables: dict[str, str]) -> None:
        self.directory = directory
        self.variables = variables

    async def run(self, text: str) -> tuple[int, str]:
        """Exit status and output of a script."""
        process = await asyncio.create_subprocess_exec(
            *("bash", "-euo", "pipefail", "-c", text),
            cwd=self.directory,
            env={**os.environ, **self.variables},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            said, _ = await asyncio.wait_for(process.communicate(), _MOST_SECONDS)
        except TimeoutError:
            process.kill()
            raise AssertionError(f"not over within {_MOST_SECONDS:g} s:\n{text}") from None
        assert process.returncode is not None
        return process.returncode, said.decode()


@pytest.fixture(scope="module")
async def site(kafka: Kafka, run_directory: Path) -> AsyncIterator[Site]:
    credentials = Credentials()
    receivers = Receivers(credentials)
    settings = environment(credentials, receiver_url=receivers.url, mail_port=receivers.mail_port)
    settings["OPERATIONS_TOKEN"] = secrets.token_urlsafe(24)
    stack = Stack(run_directory / "docs-stack", ExternalBroker(kafka.bootstrap_servers), environment=settings)
    async with receivers.listening(), stack:
        directory = await asyncio.to_thread(_lay_out, run_directory / "docs")
        variables = {
            "PATH": f"{directory / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "DATABASE_URL": stack.database_url,
            "INTAKE_URL": stack.url("intake"),
            "INTAKE_KEY": credentials.channel,
            "DESK_URL": stack.url("desk"),
            "DESK_TOKEN": credentials.lead,
            "SERVICE_URL": stack.url("notifier"),
            "OPERATIONS_TOKEN": settings["OPERATIONS_TOKEN"],
            "TICKET": await _ticket(stack, credentials),
            "TP_WALLET_TELEGRAM_BOT_TOKEN": "1:made-up-token",
            "TP_WALLET_TELEGRAM_SECRET_TOKEN": _TELEGRAM_SECRET,
        }
        await _weeks_of_arrivals(stack)
        yield Site(directory, variables)


def _lay_out(directory: Path) -> Path:
    """The repository by links, so that what a command writes lands here."""
    directory.mkdir(parents=True)
    for path in REPOSITORY.iterdir():
        if path.name not in (".git", ".run"):
            (directory / path.name).symlink_to(path)
    (directory / "bin").mkdir()
    for name, main_class in _KAFKA_TOOLS.items():
        tool = directory / "bin" / name
        command = " ".join(f"'{part}'" for part in native.client_command(main_class))
        tool.write_text(f'#!/bin/sh\nexec {command} "$@"\n', "utf-8")
        tool.chmod(0o755)
    (directory / "headers.json").write_text(json.dumps({"x-telegram-bot-api-secret-token": _TELEGRAM_SECRET}), "utf-8")
    (directory / "update.json").write_text(json.dumps(_TELEGRAM_UPDATE), "utf-8")
    (directory / "mail.eml").write_text(_MAIL, "utf-8")
    (directory / "labelled.tsv").write_text("充值没到账\ttop_up\n忘记密码了\taccount_access\n", "utf-8")
    return directory


async def _weeks_of_arrivals(stack: Stack) -> None:
    """Enough of them for a forecast."""
    connection = await asyncpg.connect(stack.database_url)
    try:
        await connection.execute(
            "INSERT INTO sla_timer.arrivals (ticket_id, brand, queue, channel, at) "
            "SELECT gen_random_uuid(), 'upay', 'general', 'email', at "
            "FROM generate_series(now() - interval '70 days', now(), interval '20 minutes') AS at"
        )
    finally:
        await connection.close()


async def _ticket(stack: Stack, credentials: Credentials) -> str:
    """A ticket of its own, seen by the sla_timer."""
    message = {
        "brand": "upay_wallet",
        "channel": "app_chat",
        "message_id": uuid.uuid4().hex,
        "customer": {"id": uuid.uuid4().hex},
        "text": "充值没到账",
        "sent_at": datetime.now(UTC).isoformat(),
    }
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(
            f"{stack.url('intake')}/v1/messages",
            json=message,
            headers={"Authorization": f"Bearer {credentials.channel}"},
        )
    ticket: str = answer.raise_for_status().json()["ticket_id"]
    connection = await asyncpg.connect(stack.database_url)
    try:
        await eventually(
            lambda: connection.fetchval(
                "SELECT count(*) FROM sla_timer.clocks WHERE ticket_id = $1", uuid.UUID(ticket)
            ),
            timeout_seconds=60,
        )
    finally:
        await connection.close()
    return ticket


@pytest.mark.parametrize("snippet", RUN, ids=str)
async def test_the_command_works(site: Site, snippet: Snippet) -> None:
    if any(tool in snippet.text for tool in _KAFKA_TOOLS) and (why_not := native.unavailable_reason()):
        pytest.skip(f"there is no client of Apache Kafka here: {why_not}")
    status, said = await site.run(snippet.text)
    assert status == 0, f"{snippet}:\n{snippet.text}\nexit status {status}\n{said}"


def test_exceptions_are_true() -> None:
    """Each is needed, says one reason, and names a file that is there."""
    texts = snippets()
    for exception in EXCEPTIONS:
        assert any(exception_for(snippet, [exception]) for snippet in texts), f"{exception.has} finds nothing"
        assert (exception.run_by is None) != (exception.needs is None), exception
        assert exception.run_by is None or (REPOSITORY / exception.run_by).exists(), exception


def test_a_command_that_fails_is_found(tmp_path: Path) -> None:
    """The check itself: a newcomer's typing slip must not pass."""
    status, said = asyncio.run(Site(tmp_path, {}).run("python -m services.nobody | cat"))
    assert (status, shutil.which("bash") is None) == (1, False)
    assert "services.nobody" in said
