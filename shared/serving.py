"""The HTTP server of a service: from its start to its last answer.

At SIGTERM it takes no new connection, answers the requests at hand and closes WebSockets with 1012 (restart: come
again). A stop that was asked for ends with status 0; one that does not end in time ends itself, and says where it hung.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import math
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import uvicorn
from fastapi import FastAPI

from shared.settings import CommonSettings
from shared.tls import HSTS, ServerCertificate

logger = logging.getLogger(__name__)

_FRAME_MOST_BYTES: Final = 64 * 1024  # of a WebSocket: what is longer is not even read
STOP_BEYOND_DRAIN_SECONDS: Final = 22.0
"""A stop takes DRAIN_TIMEOUT_SECONDS and so much at most; the platform's stop period must be longer."""


class Server(uvicorn.Server):
    """`on_stop` is called once, as soon as the signal comes: uvicorn tells the application after its last answer."""

    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None], stop_most_seconds: float) -> None:
        super().__init__(config)
        self._on_stop = on_stop
        self._stop_most_seconds = stop_most_seconds

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Instead of uvicorn's own, which raises the signal again at the end: a good stop would look like a crash.
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)  # it is ending already

    def _stop(self, number: signal.Signals) -> None:
        if self.should_exit:
            logger.info("%s again: stopping already", number.name)
            return
        logger.info("%s: stopping", number.name)
        self.should_exit = True
        # From a thread of its own: it also ends a process whose loop hangs.
        faulthandler.dump_traceback_later(self._stop_most_seconds, exit=True)
        self._on_stop()


def serve(
    app: FastAPI, settings: CommonSettings, certificate: ServerCertificate | None, on_stop: Callable[[], None]
) -> None:
    """Serve until SIGTERM or SIGINT. Raises SystemExit when the port cannot be had."""
    tls: dict[str, Any] = {}
    if certificate is not None:
        tls = {"ssl_context_factory": lambda *_: certificate.context, "headers": [HSTS]}
    config = uvicorn.Config(
        app,
        host=settings.http_host,
        port=settings.http_port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(settings.drain_timeout_seconds),
        timeout_keep_alive=30,
        h11_max_incomplete_event_size=16 * 1024,
        ws_max_size=_FRAME_MOST_BYTES,
        **tls,
    )
    server = Server(config, on_stop, settings.drain_timeout_seconds + STOP_BEYOND_DRAIN_SECONDS)
    server.run()
    faulthandler.cancel_dump_traceback_later()
