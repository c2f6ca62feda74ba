"""Fetching against a small IMAP server: nothing is marked read that is not stored, nothing is fetched for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from services.intake.imap import ImapFetcher
from shared.http import Problem, too_many, unavailable
from tests.support.mailing import Accepting, email_adapter, mail
from tests.support.providers.imap import HOST, ImapServer
from tests.support.waiting import eventually

DEEP = b"From: li@mail.example\n" + b"".join(
    b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(25)
)


@asynccontextmanager
async def fetching(
    server: ImapServer, accept: Accepting, *, move_to: str | None = None, **options: Any
) -> AsyncIterator[ImapFetcher]:
    section = {
        "host": HOST,
        "port": server.port,
        "username": server.username,
        "password": "made-up",
        "security": "none",
        "move_to": move_to,
    }
    fetcher = ImapFetcher(
        email_adapter(imap=section), accept, **({"poll_seconds": 0.05, "timeout_seconds": 5.0} | options)
    )
    task = asyncio.create_task(fetcher.run())
    try:
        yield fetcher
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()


async def polls(server: ImapServer, more: int = 2) -> None:
    """Until the mailbox has been looked at so many times more."""
    before = server.asked.count("LOGOUT")

    async def done() -> bool:
        return server.asked.count("LOGOUT") >= before + more

    await eventually(done, 10)


async def test_unread_mails_are_handed_on_and_marked_read() -> None:
    accept = Accepting()
    async with ImapServer().serving() as server:
        first = server.add(mail(1))
        second = server.add(mail(2))
        read_before = server.add(mail(3))
        read_before.flags.add(r"\Seen")
        async with fetching(server, accept):
            await polls(server)
    assert accept.ids == ["1@mail.example", "2@mail.example"]
    assert first.flags == second.flags == {r"\Seen"}
    # Without a Date header: when the server got it, not when it was fetched.
    assert {message.sent_at for message in accept.messages} == {datetime(2026, 11, 20, 4, 0, tzinfo=UTC)}


async def test_accepted_mails_are_moved_where_a_folder_is_named() -> None:
    accept = Accepting()
    async with ImapServer().serving() as server:
        moved = server.add(mail(1))
        async with fetching(server, accept, move_to="Done"):
            await polls(server)
    assert (server.folders["INBOX"], server.folders["Done"]) == ([], [moved])
    assert accept.ids == ["1@mail.example"]


@pytest.mark.parametrize(
    "error", [unavailable("away"), too_many(5), TimeoutError()], ids=lambda error: type(error).__name__
)
async def test_what_is_not_stored_stays_unread_and_is_fetched_again(error: Exception) -> None:
    accept = Accepting()
    accept.error = error
    async with ImapServer().serving() as server:
        kept = [server.add(mail(1)), server.add(mail(2))]
        async with fetching(server, accept):
            await polls(server)
            assert [item.flags for item in kept] == [set(), set()]
            assert not any("STORE" in command for command in server.asked)
            accept.error = None
            await polls(server)
    assert accept.ids == ["1@mail.example", "2@mail.example"]
    assert [item.flags for item in kept] == [{r"\Seen"}, {r"\Seen"}]


@pytest.mark.parametrize("raw", [DEEP, mail(9, text="x" * 20_000)], ids=["too deep", "too large"])
async def test_what_can_never_be_read_is_flagged_once(raw: bytes) -> None:
    accept = Accepting()
    async with ImapServer().serving() as server:
        unreadable = server.add(raw)
        server.add(mail(2))
        async with fetching(server, accept, most_bytes=10_000):
            await polls(server, 3)
    assert unreadable.flags == {r"\Seen", r"\Flagged"}
    assert accept.ids == ["2@mail.example"]  # it holds up no other
    assert sum(f"FETCH {unreadable.uid} (RFC822" in command for command in server.asked) == 1


async def test_what_is_never_accepted_is_flagged() -> None:
    accept = Accepting()
    accept.error = Problem(422, "Invalid request", "no")
    async with ImapServer().serving() as server:
        refused = server.add(mail(1))
        async with fetching(server, accept):
            await polls(server)
    assert refused.flags == {r"\Seen", r"\Flagged"}


async def test_a_server_that_was_away_is_asked_again() -> None:
    accept = Accepting()
    server = ImapServer()
    async with AsyncExitStack() as stack:
        async with server.serving():
            await stack.enter_async_context(fetching(server, accept))
            await polls(server, 1)
        server.add(mail(1))
        async with server.serving(server.port):

            async def is_fetched() -> bool:
                return accept.ids == ["1@mail.example"]

            await eventually(is_fetched, 10)


async def test_a_wrong_login_is_tried_again() -> None:
    accept = Accepting()
    async with ImapServer(password="another").serving() as server:
        server.add(mail(1))
        async with fetching(server, accept):
            await polls(server, 2)
            assert "SELECT" not in " ".join(server.asked)
            server.password = "made-up"
            await polls(server, 2)
    assert accept.ids == ["1@mail.example"]


async def test_says_who_it_is_to_servers_that_ask() -> None:
    accept = Accepting()
    async with ImapServer(needs_id=True).serving() as server:
        server.add(mail(1))
        async with fetching(server, accept):
            await polls(server)
    assert accept.ids == ["1@mail.example"]


async def test_mails_that_are_no_message_are_marked_read_and_counted() -> None:
    accept = Accepting()
    async with ImapServer().serving() as server:
        bounced = server.add(mail(1, headers="Auto-Submitted: auto-replied\r\n"))
        async with fetching(server, accept):
            await polls(server)
    assert accept.ignored == ["auto_reply"]
    assert bounced.flags == {r"\Seen"}


def test_needs_a_mailbox() -> None:
    with pytest.raises(ValueError, match="no `imap` section"):
        ImapFetcher(email_adapter(), Accepting())
