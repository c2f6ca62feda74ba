"""E-mail by SMTP: takes mail to the brands' addresses, and no other, and says "250" once its message is stored.

A mail that cannot be stored now is answered 4xx: its sender keeps it and tries again, for days. One that never can be
is answered 5xx: its sender tells the customer.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import logging
import ssl
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Final

from aiosmtpd.smtp import SMTP
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from services.intake.channels.base import Answer, Refused
from services.intake.channels.email import EmailAdapter, Envelope
from services.intake.channels.mime import MOST_BYTES
from services.intake.gateway import Accept
from shared import metrics
from shared.http import Problem, RateLimiter

logger = logging.getLogger(__name__)
# aiosmtpd logs addresses, and at DEBUG every line of every mail.
logging.getLogger("mail.log").setLevel(logging.CRITICAL)

PASSING: Final = (OSError, TimeoutError, InterfaceError, DBAPIError, PoolTimeoutError)
"""What a database or a network that is away raises: the mail is to be brought again."""

_TRY_AGAIN: Final = "451 4.3.0 the mail cannot be stored now; try again later"
_UNKNOWN_ADDRESS: Final = "550 5.1.1 no such mailbox here"
_COMMANDS_MOST: Final = {"*": 100, "RCPT": 500}
"""Of each kind in one connection."""
_UNKNOWN_ADDRESSES_MOST: Final = 10
_STOP_SECONDS: Final = 5.0
_HTTP_TOO_MANY: Final = 429
_HTTP_SERVER_ERROR: Final = 500


class _Protocol(SMTP):
    """aiosmtpd's, with lines as long as careless senders write them, and no more bytes than it was told."""

    line_length_limit = 64 * 1024

    def __init__(self, gateway: SmtpGateway, most_bytes: int, **options: Any) -> None:
        super().__init__(gateway, data_size_limit=most_bytes, **options)
        self._gateway = gateway
        # aiosmtpd keeps what comes without an end of line, however much that is.
        self._most_bytes_of_a_mail = 2 * most_bytes + 1024 * 1024
        self._bytes = 0
        self.unknown_addresses = 0

    def begin_mail(self) -> None:
        self._bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._gateway.open.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._gateway.open.discard(self)
        super().connection_lost(error)

    def data_received(self, data: bytes) -> None:
        self._bytes += len(data)
        if self._bytes > self._most_bytes_of_a_mail and isinstance(self.transport, asyncio.Transport):
            self.transport.abort()
            return
        super().data_received(data)

    def hang_up(self) -> asyncio.Task[None] | None:
        """Close the connection; what runs in it is cancelled: then it was not answered, and comes again."""
        if self.transport is not None:
            self.transport.close()
        task: asyncio.Task[None] | None = self._handler_coroutine
        return task


class _Busy(asyncio.Protocol):
    """Says that there is no room, and hangs up."""

    def __init__(self, answer: str) -> None:
        self._answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(f"{self._answer}\r\n".encode())
        transport.close()


class SmtpGateway:
    """An SMTP server for all brands that have an e-mail adapter.

    `timeout_seconds`: of one command, its data included. `most_connections` at a time; `most_recipients` of a mail.
    `limiter` counts the mails of each client's address (of IPv6 its /64). `parse_seconds`: for reading one mail.
    """

    def __init__(
        self,
        adapters: Sequence[EmailAdapter],
        accept: Accept,
        *,
        host: str,
        port: int,
        limiter: RateLimiter,
        tls: ssl.SSLContext | None = None,
        hostname: str = "switchyard",
        most_bytes: int = 25 * 1024 * 1024,
        most_recipients: int = 100,
        most_connections: int = 100,
        timeout_seconds: float = 120.0,
        parse_seconds: float = 30.0,
        parsers: int = 2,
    ) -> None:
        if most_bytes > MOST_BYTES:
            raise ValueError(f"most_bytes: at most {MOST_BYTES} are read of a mail")
        self.open: set[_Protocol] = set()
        self.started = asyncio.Event()
        self.port = port
        """With 0: the port that was given, once `started`."""
        self._adapters = tuple(adapters)
        self._accept = accept
        self._host = host
        self._limiter = limiter
        self._most_recipients = most_recipients
        self._most_connections = most_connections
        self._parse_seconds = parse_seconds
        self._parsers = ThreadPoolExecutor(parsers, thread_name_prefix="mail")
        self._options: dict[str, Any] = {
            "most_bytes": most_bytes,
            "hostname": hostname,
            "ident": "ESMTP",
            "tls_context": tls,
            "timeout": timeout_seconds,
            "enable_SMTPUTF8": True,
            "command_call_limit": _COMMANDS_MOST,
        }

    async def run(self) -> None:
        """Serve until cancelled."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(functools.partial(self._protocol, loop), self._host, self.port)
        self.port = server.sockets[0].getsockname()[1]
        logger.info("SMTP at %s:%d for %d brands", self._host, self.port, len(self._adapters))
        self.started.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.started.clear()
            server.close()
            if tasks := [task for protocol in tuple(self.open) if (task := protocol.hang_up())]:
                await asyncio.wait(tasks, timeout=_STOP_SECONDS)
            self._parsers.shutdown(wait=False, cancel_futures=True)

    def _protocol(self, loop: asyncio.AbstractEventLoop) -> asyncio.BaseProtocol:
        if len(self.open) >= self._most_connections:
            return _Busy("421 4.3.2 too many connections; try again later")
        return _Protocol(self, loop=loop, **self._options)

    # --- what aiosmtpd calls: its names, its arguments ------------------------------------------------------------

    async def handle_EHLO(  # noqa: N802
        self, server: SMTP, session: Any, envelope: Any, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        return [line for line in responses if not line.startswith("250-AUTH")]  # nobody logs in here

    async def handle_MAIL(  # noqa: N802
        self, server: _Protocol, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        server.begin_mail()
        try:
            self._limiter.check(_client(session))
        except Problem:
            metrics.MESSAGES_REJECTED.labels("email", "rate").inc()
            return "450 4.7.1 too many mails from your address; try again later"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 OK"

    async def handle_RCPT(  # noqa: N802
        self, server: _Protocol, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        if not any(adapter.owns(address) for adapter in self._adapters):
            metrics.MESSAGES_REJECTED.labels("email", "unknown_address").inc()
            server.unknown_addresses += 1
            if server.unknown_addresses > _UNKNOWN_ADDRESSES_MOST:
                asyncio.get_running_loop().call_soon(server.hang_up)  # somebody tries names
                return "421 4.7.0 too many unknown addresses"
            return _UNKNOWN_ADDRESS
        if len(envelope.rcpt_tos) >= self._most_recipients:
            return "452 4.5.3 too many recipients"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Any) -> str:  # noqa: N802
        recipients = tuple(envelope.rcpt_tos)
        sender = "" if envelope.mail_from in (None, "<>") else envelope.mail_from
        for adapter in self._adapters:
            if any(map(adapter.owns, recipients)):
                refusal = await self._take(adapter, envelope.original_content, Envelope(sender, recipients))
                if refusal is not None:
                    return refusal
        return "250 2.0.0 OK"

    async def handle_exception(self, error: Exception) -> str:
        logger.error("SMTP session failed", exc_info=error)
        return _TRY_AGAIN

    # ----------------------------------------------------------------------------------------------------------------

    async def _take(self, adapter: EmailAdapter, raw: bytes, envelope: Envelope) -> str | None:
        """Have the mail stored for one brand; None, or the answer that says why it is not.

        Of a mail to two brands the first may have it already: brought again, it is known by its id.
        """
        try:
            answer = await self._read(adapter, raw, envelope)
            await self._accept(adapter.brand, adapter.channel, answer.messages, answer.ignored)
        except Refused as refused:
            metrics.MESSAGES_REJECTED.labels("email", refused.reason).inc()
            return f"554 5.6.0 {refused.detail}".encode("ascii", "replace").decode()
        except Problem as problem:
            return _answer_to(problem)
        except PASSING as error:
            logger.warning("a mail to %s is not stored, its sender keeps it: %s", adapter.brand, type(error).__name__)
            return _TRY_AGAIN
        return None

    async def _read(self, adapter: EmailAdapter, raw: bytes, envelope: Envelope) -> Answer:
        """Raises Refused; TimeoutError when the machine, or the mail, is too slow."""
        begun = time.monotonic()
        try:
            async with asyncio.timeout(self._parse_seconds):
                return await asyncio.get_running_loop().run_in_executor(
                    self._parsers, adapter.read_mail, raw, datetime.now(UTC), envelope
                )
        finally:
            metrics.CHANNEL_PARSE_SECONDS.labels("email").observe(time.monotonic() - begun)


def _answer_to(problem: Problem) -> str:
    if problem.status == _HTTP_TOO_MANY:
        return "450 4.7.0 too many mails; try again later"
    return _TRY_AGAIN if problem.status >= _HTTP_SERVER_ERROR else f"554 5.6.0 {problem.title}"


def _client(session: Any) -> str:
    """Whom the rate limit counts: a machine has a whole /64 of IPv6."""
    host = str(session.peer[0]) if session.peer else ""
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(found, ipaddress.IPv6Address):
        mapped = found.ipv4_mapped
        return str(mapped) if mapped else str(ipaddress.ip_network((found, 64), strict=False))
    return host
