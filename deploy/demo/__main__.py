"""`make demo`: starts everything, replays example messages, lets agents answer them, shows what became of them.

Environment: ONCE=1 ends by itself; MESSAGES=file.jsonl takes other messages; BROKER=kafka takes Apache Kafka in place
of the embedded broker; DESK_PORT fixes the desk's port.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx
from aiokafka import AIOKafkaProducer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from deploy.audit import audit_when_settled
from deploy.brokers import Broker, NoRealKafka, real_kafka
from deploy.demo import report
from deploy.demo.agents import Agents
from deploy.demo.messages import Line, load
from deploy.demo.receivers import Receivers
from deploy.demo.settings import Credentials, environment
from deploy.embedded.broker import EmbeddedBroker
from deploy.processes import REPOSITORY, ProgramFailed, run_directory
from deploy.stack import Stack
from shared import topics

_EXAMPLES: Final = REPOSITORY / "examples" / "messages.jsonl"
_PER_SECOND: Final = 150
_WIDTH_IN_A_FILE: Final = 110
_SETTLE_SECONDS: Final = 90.0
_WATCH_SECONDS: Final = 30.0
"""How long the demo watches promises after the last message: the shortest ones have come due by then."""


def main() -> int:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_IN_A_FILE)
    try:
        path = Path(os.environ.get("MESSAGES") or _EXAMPLES)
        lines = load(path, datetime.now(UTC))
    except (OSError, ValueError) as error:
        print(f"MESSAGES: {error}", file=sys.stderr)
        return 2
    once = os.environ.get("ONCE", "") not in ("", "0")
    wanted = os.environ.get("BROKER") or "embedded"
    if wanted not in ("embedded", "kafka"):
        print(f"BROKER must be `embedded` or `kafka`, not {wanted!r}", file=sys.stderr)
        return 2
    with run_directory("demo") as directory:
        try:
            broker = real_kafka(directory / "kafka") if wanted == "kafka" else EmbeddedBroker(directory / "broker")
            return asyncio.run(_until_interrupted(_demo(console, directory, broker, path, lines, once=once)))
        except (NoRealKafka, ProgramFailed) as error:
            print(f"the demo cannot run: {error}", file=sys.stderr)
            return 1


async def _until_interrupted(work: Any) -> int:
    """Ctrl-C and SIGTERM end the demo in order: services drain, then broker and database stop."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for wanted in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(wanted, task.cancel)
    try:
        return int(await task)
    except asyncio.CancelledError:
        print("stopped", file=sys.stderr)
        return 130


async def _demo(console: Console, directory: Path, broker: Broker, path: Path, lines: list[Line], *, once: bool) -> int:
    begun = time.monotonic()
    credentials = Credentials()
    receivers = Receivers(credentials)
    settings = environment(credentials, receiver_url=receivers.url, mail_port=receivers.mail_port)
    stack = Stack(directory, broker, environment=settings)
    receivers.intake_url = stack.url("intake")
    if os.environ.get("DESK_PORT"):
        stack.ports["desk"] = int(os.environ["DESK_PORT"])
    console.print(
        "Switchyard: customers' messages in, prioritised tickets in the right queue, every promise watched.\n"
    )
    try:
        async with receivers.listening():
            with console.status("") as status:
                await stack.start(lambda step: status.update(f"starting {step} ..."))
            console.print(f"Running: PostgreSQL 18, {broker.description}, five services. Logs: {directory}")
            with _progress(console) as progress:
                agents = await _work(stack, credentials, lines, progress)
            found = await audit_when_settled(stack.settings, _SETTLE_SECONDS)
            found.doubled += receivers.doubled
            if receivers.bad_signatures:
                console.print(f"[red]{receivers.bad_signatures} webhooks had a bad signature[/red]")
            queues, answering = await _ask_the_desk(stack, credentials)
            arrivals = [event.opened_at for event in found.latest.values()]
            report.show(console, found, queues, answering, agents.done, arrivals)
            _say_where(console, stack, credentials, path)
            if once:
                stack.stop()
            print(report.summary(found, time.monotonic() - begun), flush=True)
            if not once:
                print("Ctrl-C ends it all.", file=sys.stderr)
                with contextlib.suppress(asyncio.CancelledError):  # the work is done: this is how a person ends it
                    await asyncio.Event().wait()
    finally:
        stack.stop()
    return 0 if found.lost == found.doubled == 0 else 1


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


async def _work(stack: Stack, credentials: Credentials, lines: list[Line], progress: Progress) -> Agents:
    """Replay all lines while agents work, and go on until the shortest promises have come due."""
    sent = progress.add_task("messages sent", total=len(lines))
    routed = progress.add_task("routed to a queue", total=None)
    watching = progress.add_task("watching promises come due", total=int(_WATCH_SECONDS))
    agents, closing_time = Agents(stack.url("desk"), credentials.agent), asyncio.Event()
    measuring = asyncio.create_task(
        _measure(stack, lambda done, total: progress.update(routed, completed=done, total=total))
    )
    working = asyncio.create_task(agents.work(closing_time))
    try:
        await _publish(stack, lines, lambda: progress.advance(sent))
        for _ in range(int(_WATCH_SECONDS)):
            await asyncio.sleep(1)
            progress.advance(watching)
        closing_time.set()
        await working
    finally:
        measuring.cancel()
        working.cancel()
        await asyncio.gather(measuring, working, return_exceptions=True)
    return agents


async def _measure(stack: Stack, measured: Callable[[int, int], None]) -> None:
    connection = await asyncpg.connect(stack.database_url)
    try:
        while True:
            accepted = await connection.fetchval("SELECT count(*) FROM intake.messages")
            measured(await connection.fetchval("SELECT count(*) FROM classifier.decisions"), accepted)
            await asyncio.sleep(0.2)
    finally:
        await connection.close()


async def _publish(stack: Stack, lines: list[Line], published: Callable[[], None]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=stack.broker.bootstrap_servers, acks="all")
    await producer.start()
    try:
        for line in lines:
            await producer.send_and_wait(topics.CHANNEL_MESSAGES.name, line.value, key=line.key)
            published()
            await asyncio.sleep(1 / _PER_SECOND)
    finally:
        await producer.stop()


async def _ask_the_desk(stack: Stack, credentials: Credentials) -> tuple[dict[str, Any], dict[str, Any]]:
    """The queues as they are, and how answering held up."""
    today = datetime.now(UTC)
    period = {
        "from": f"{today - timedelta(days=1):%Y-%m-%dT%H:%M}Z",
        "to": f"{today + timedelta(days=1):%Y-%m-%dT%H:%M}Z",
    }
    async with httpx.AsyncClient(
        base_url=stack.url("desk"), headers={"Authorization": f"Bearer {credentials.lead}"}, trust_env=False
    ) as client:
        queues = await client.get("/v1/queues")
        answering = await client.get("/v1/report", params={**period, "by": "queue", "target": "first_response"})
        return queues.raise_for_status().json(), answering.raise_for_status().json()


def _say_where(console: Console, stack: Stack, credentials: Credentials, path: Path) -> None:
    yesterday, tomorrow = (datetime.now(UTC) + timedelta(days=days) for days in (-1, 2))
    console.print(
        f"\nThe desk: [bold]{stack.url('desk')}/[/bold]  token: [bold]{credentials.lead}[/bold]\n"
        f"Chat as a customer (uPay钱包): [bold]{stack.url('intake')}/v1/channels/app_chat/upay_wallet/widget[/bold]\n"
        f"Or write to it by its API (uPay钱包, app chat):\n"
        f"  INTAKE_URL={stack.url('intake')} INTAKE_KEY={credentials.channel}\n"
        f"  then `curl` as in README, or: .venv/bin/python examples/send_kafka.py --bootstrap-servers "
        f'{stack.broker.bootstrap_servers} --text "充值没到账"\n'
        f"Ask the sla_timer: DATABASE_URL={stack.database_url}\n"
        f"  then .venv/bin/python -m services.sla_timer report --from {yesterday:%Y-%m-%d} --to {tomorrow:%Y-%m-%d} "
        f"--by queue (or: explain TICKET, rules)\n"
        f"Messages from {path}. Nothing of this run outlives it: the next one begins anew.",
        soft_wrap=True,
    )


if __name__ == "__main__":
    raise SystemExit(main())
