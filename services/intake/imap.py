"""E-mail fetched by IMAP: every unread mail of a folder is handed on, and marked read once its message is stored.

What cannot be stored now stays unread and is fetched again. What can never be read is marked read and flagged (or moved
and flagged), so that a person finds it and it is not fetched for ever.
"""

from __future__ import annotations

import asyncio
import functools
import imaplib
import logging
import re
import ssl
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from imap_tools import BaseMailBox, MailBox, MailBoxStartTls, MailBoxUnencrypted
from imap_tools.errors import ImapToolsError

from services.intake.channels.base import Answer, Refused
from services.intake.channels.email import EmailAdapter, ImapConfig
from services.intake.channels.mime import MOST_BYTES
from services.intake.gateway import Accept
from services.intake.smtp import PASSING
from shared import metrics
from shared.http import Problem

logger = logging.getLogger(__name__)

T = TypeVar("T")

_MAILS_PER_POLL: Final = 200
_RETRY_MOST_SECONDS: Final = 300.0
_AWAY: Final = (*PASSING, imaplib.IMAP4.error, ImapToolsError)
_SIZE: Final = re.compile(rb"RFC822\.SIZE (\d+)")
_INTERNAL_DATE: Final = re.compile(rb'INTERNALDATE "[^"]{0,40}"')
_HTTP_TOO_MANY: Final = 429
_HTTP_SERVER_ERROR: Final = 500


class _NotNow(Exception):
    """The mail stays where it is, and so do those after it, until the next poll."""


class ImapFetcher:
    """Fetches the mailbox of one brand. One connection per poll: there is none that could have gone stale."""

    def __init__(
        self,
        adapter: EmailAdapter,
        accept: Accept,
        *,
        poll_seconds: float = 30.0,
        timeout_seconds: float = 30.0,
        most_bytes: int = 25 * 1024 * 1024,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        if adapter.config.imap is None:
            raise ValueError(f"brand {adapter.brand} has no `imap` section")
        if most_bytes > MOST_BYTES:
            raise ValueError(f"most_bytes: at most {MOST_BYTES} are read of a mail")
        self._adapter = adapter
        self._config: ImapConfig = adapter.config.imap
        self._accept = accept
        self._poll_seconds = poll_seconds
        self._timeout_seconds = timeout_seconds
        self._most_bytes = most_bytes
        self._tls = tls or ssl.create_default_context()

    async def run(self) -> None:
        """Poll until cancelled. A server that is away is asked less and less often, every five minutes at last."""
        # imaplib blocks, and a connection is used by one thread at a time.
        thread = ThreadPoolExecutor(1, thread_name_prefix=f"imap-{self._adapter.brand}")
        failures = 0
        try:
            while True:
                try:
                    await self._poll(thread)
                    failures = 0
                except _NotNow:
                    failures += 1
                except _AWAY as error:  # its words may hold the login
                    failures += 1
                    logger.warning("mailbox of %s: %s; it is asked again", self._adapter.brand, type(error).__name__)
                await asyncio.sleep(min(self._poll_seconds * 2 ** min(failures, 10), self._longest_pause))
        finally:
            thread.shutdown(wait=False, cancel_futures=True)

    @property
    def _longest_pause(self) -> float:
        return max(self._poll_seconds, _RETRY_MOST_SECONDS)

    async def _poll(self, thread: ThreadPoolExecutor) -> None:
        async def call(work: Callable[..., T], *arguments: Any) -> T:
            return await asyncio.get_running_loop().run_in_executor(thread, functools.partial(work, *arguments))

        mailbox = await call(self._connect)
        try:
            uids: Sequence[str] = await call(mailbox.uids, "UNSEEN", None)
            for uid in uids[:_MAILS_PER_POLL]:
                fetched = await call(self._fetch, mailbox, uid)
                if fetched is None:
                    continue  # somebody has deleted it
                is_read = await self._hand_on(*fetched, call)
                await call(self._put_away, mailbox, uid, is_read)
        finally:
            await asyncio.shield(call(_log_out, mailbox))

    async def _hand_on(self, raw: bytes | None, received_at: datetime, call: Callable[..., Any]) -> bool:
        """Whether the mail could be read; if so, it is stored. Raises _NotNow."""
        try:
            if raw is None:
                raise Refused(413, "too_large", f"the mail has more than {self._most_bytes} bytes")
            begun = time.monotonic()
            answer: Answer = await call(self._adapter.read_mail, raw, received_at)
            metrics.CHANNEL_PARSE_SECONDS.labels("email").observe(time.monotonic() - begun)
            await self._accept(self._adapter.brand, self._adapter.channel, answer.messages, answer.ignored)
        except Refused as refused:
            logger.warning("a mail to %s is flagged, it cannot be read: %s", self._adapter.brand, refused.detail)
            metrics.MESSAGES_REJECTED.labels("email", refused.reason).inc()
            return False
        except Problem as problem:
            if problem.status == _HTTP_TOO_MANY or problem.status >= _HTTP_SERVER_ERROR:
                raise _NotNow from None
            metrics.MESSAGES_REJECTED.labels("email", "invalid").inc()
            return False
        except PASSING as error:
            logger.warning("a mail to %s stays unread: %s", self._adapter.brand, type(error).__name__)
            raise _NotNow from None
        return True

    # --- in the thread ----------------------------------------------------------------------------------------------

    def _connect(self) -> BaseMailBox:
        config, timeout = self._config, self._timeout_seconds
        mailbox: BaseMailBox
        if config.security == "tls":
            mailbox = MailBox(config.host, config.port, timeout=timeout, ssl_context=self._tls)
        elif config.security == "starttls":
            mailbox = MailBoxStartTls(config.host, config.port, timeout=timeout, ssl_context=self._tls)
        else:
            mailbox = MailBoxUnencrypted(config.host, config.port, timeout=timeout)
        try:
            mailbox.login(config.username, config.password.get_secret_value(), initial_folder=None)
            if "ID" in mailbox.client.capabilities:  # NetEase refuses SELECT to whom it does not know (RFC 2971)
                mailbox.client.xatom("ID", '("name" "switchyard" "version" "1")')
            mailbox.folder.set(config.folder)
        except BaseException:
            _log_out(mailbox)
            raise
        return mailbox

    def _fetch(self, mailbox: BaseMailBox, uid: str) -> tuple[bytes | None, datetime] | None:
        """The mail (none when it is too large) and when the server got it; None when it is gone.

        Not by `mailbox.fetch`: that parses without bounds.
        """
        told = b" ".join(_lines(mailbox, uid, "(RFC822.SIZE INTERNALDATE)"))
        size = _SIZE.search(told)
        if size is None:
            return None
        date = _INTERNAL_DATE.search(told)
        local = imaplib.Internaldate2tuple(date[0]) if date else None
        received_at = datetime.fromtimestamp(time.mktime(local), UTC) if local else datetime.now(UTC)
        if int(size[1]) > self._most_bytes:
            return None, received_at
        typ, data = mailbox.client.uid("fetch", uid, "(BODY.PEEK[])")
        _need_ok(typ)
        literals = [item[1] for item in data if isinstance(item, tuple)]
        return (bytes(literals[0]), received_at) if literals else None

    def _put_away(self, mailbox: BaseMailBox, uid: str, is_read: bool) -> None:
        # Not by `mailbox.flag`: that also expunges what others have marked as deleted.
        flags = r"(\Seen)" if is_read else r"(\Seen \Flagged)"
        typ, _ = mailbox.client.uid("STORE", uid, "+FLAGS", flags)
        _need_ok(typ)
        if self._config.move_to is not None:
            mailbox.move(uid, self._config.move_to)


def _lines(mailbox: BaseMailBox, uid: str, what: str) -> list[bytes]:
    typ, data = mailbox.client.uid("fetch", uid, what)
    _need_ok(typ)
    return [part for item in data for part in (item if isinstance(item, tuple) else (item,)) if isinstance(part, bytes)]


def _need_ok(typ: str) -> None:
    if typ != "OK":
        raise imaplib.IMAP4.error("the server refuses a command")


def _log_out(mailbox: BaseMailBox) -> None:
    try:
        mailbox.logout()
    except _AWAY:
        mailbox.client.shutdown()
