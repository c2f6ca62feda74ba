"""What tracing costs a record of a batch, off and on, in the loop that every service has.

Off is compared with the same handler called directly: that is the whole of what a service without a collector pays. On
is compared with off; its spans go to a collector of this machine that throws them away, in a process of its own.
"""

from __future__ import annotations

import asyncio
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from benchmarks.figures import Figure, note, report
from deploy.processes import HOST, free_port
from shared import topics, tracing
from shared.broker import Publisher, build_broker
from shared.cloudevents import Origin, Received, trace_of
from shared.delivery import Subscription
from shared.events import ActivityKind, TicketActivity
from shared.settings import CommonSettings

BATCH: Final = 500
ROUNDS: Final = 60
_SINK: Final = """
import http.server, sys
class Sink(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Sink).serve_forever()
"""


def batch() -> list[Received[Any]]:
    events = [
        TicketActivity(
            ticket_id=uuid.uuid4(),
            activity_id=f"a-{number}",
            kind=ActivityKind.CLAIMED,
            agent="li.wei",
            at=datetime.now(UTC),
            brand="upay",
        )
        for number in range(BATCH)
    ]
    return [
        Received(event, Origin(topics.TICKETS_ACTIVITY.name, 0, offset), datetime.now(UTC), trace_of(event))
        for offset, event in enumerate(events)
    ]


async def nothing(records: Sequence[Received[Any]]) -> None:
    for received in records:
        received.event.event_id  # noqa: B018 - as much as any handler does


async def best_us(work: Any) -> float:
    """µs of the loop's own CPU time a record, of the quickest round: on a busy machine the clock tells of others."""
    records = batch()
    quickest = float("inf")
    for _ in range(ROUNDS):
        begun = time.thread_time()
        await work(records)
        quickest = min(quickest, time.thread_time() - begun)
    return quickest / BATCH * 1e6


async def measure() -> None:
    settings = CommonSettings()
    broker = build_broker(settings, service="bench")
    subscription = Subscription(
        service="bench",
        group="bench.tickets.activity",
        topics=[topics.TICKETS_ACTIVITY],
        handler=nothing,
        publisher=Publisher(broker, settings, service="bench"),
        settings=settings,
    )
    directly = await best_us(nothing)
    off = await best_us(subscription._handle_traced)
    report(Figure("tracing", "off, a record", off, "µs", directly))

    port = free_port()
    sink = await asyncio.create_subprocess_exec(sys.executable, "-c", _SINK, HOST, str(port))
    try:
        for ratio, name in ((0.0, "on, a record that is not sampled"), (1.0, "on, a record with its span")):
            url = f"http://{HOST}:{port}"
            await asyncio.to_thread(_wait_for, url)
            tracing.configure("bench", CommonSettings(tracing_otlp_endpoint=url, tracing_sample_ratio=ratio))
            report(Figure("tracing", name, await best_us(subscription._handle_traced), "µs", off))
            await tracing.close()
    finally:
        sink.terminate()
        await sink.wait()


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, data=b"", timeout=5).close()
        except urllib.error.URLError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"nothing answers at {url}")


def main() -> None:
    note(f"batches of {BATCH}, the quickest of {ROUNDS}")
    asyncio.run(measure())
