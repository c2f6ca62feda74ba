"""Agents' corrections as examples to learn from, out of a real database."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from services.classifier.commands import export_corrections
from services.classifier.domain.decide import Classifier
from services.classifier.handlers import Handlers
from services.classifier.learning.examples import Example, read_examples
from services.classifier.settings import Settings
from shared.taxonomy import Category, Priority, Queue
from tests.integration.test_classifier import Bench, Outbox, correction, message, opened


@pytest.fixture
async def database_url(new_database: Callable[[], Awaitable[str]]) -> str:
    return await new_database()


@asynccontextmanager
async def working(url: str) -> AsyncIterator[Bench]:
    async with opened(url) as connected:
        out = Outbox()
        handlers = Handlers(connected, out, Classifier(), timedelta(days=31))  # type: ignore[arg-type]
        yield Bench(handlers, out, connected)


async def exported(url: str, path: Path) -> tuple[list[tuple[str, str, str | None]], int]:
    """(text, label, language) of each line by text, and how many tickets were left out."""
    written, left_out = await export_corrections.export(Settings(database_url=SecretStr(url)), path)
    examples: list[Example] = read_examples(path) if written else []
    assert len(examples) == written
    return sorted((one.text, one.label, one.language) for one in examples), left_out


async def test_what_agents_corrected_becomes_a_file_of_examples(database_url: str, tmp_path: Path) -> None:
    async with working(database_url) as bench:
        plain, moved, twice, queue_only, untouched = (uuid.uuid4() for _ in range(5))
        await bench.messages(
            message("付款失败了", plain),
            message("还在吗", plain, 2, minutes=1),
            message("你好", moved),
            message("怎么提现\n\t急", moved, 2, minutes=1),
            message("Where is my coupon", twice),
            message("付款失败", queue_only),
            message("怎么充值", untouched),
        )
        await bench.correct(correction(plain, category=Category.MISSING_FUNDS))
        await bench.correct(correction(moved, category=Category.FEES_LIMITS))
        await bench.correct(correction(twice, category=Category.REFUND))
        await bench.messages(message("还有一件事，密码忘了", twice, 2, minutes=90))
        await bench.correct(correction(twice, category=Category.DISPUTE, priority=Priority.P1))
        await bench.correct(correction(queue_only, queue=Queue.TECHNICAL))
    # The message that brought a ticket to the wrong category, and the category that it has in the end.
    assert await exported(database_url, tmp_path / "corrections.tsv") == (
        [
            ("Where is my coupon", "dispute", "en"),
            ("付款失败了", "missing_funds", "zh"),
            ("怎么提现 急", "fees_limits", "zh"),
        ],
        0,
    )


async def test_of_what_was_not_understood_the_longest_message_says_most(database_url: str, tmp_path: Path) -> None:
    async with working(database_url) as bench:
        ticket = uuid.uuid4()
        routed = await bench.messages(
            message("你好", ticket), message("qqq zzz vvvv", ticket, 2), message("??", ticket, 3)
        )
        assert {event.category for event in routed} == {Category.OTHER}
        await bench.correct(correction(ticket, category=Category.HOW_TO))
    examples, _ = await exported(database_url, tmp_path / "corrections.tsv")
    assert [(text, label) for text, label, _ in examples] == [("qqq zzz vvvv", "how_to")]


async def test_secrets_are_cut_by_the_rules_of_today(database_url: str, tmp_path: Path) -> None:
    async with working(database_url) as bench:
        ticket = uuid.uuid4()
        # As if it had been accepted before the rule that finds it.
        await bench.messages(message("付款失败，卡号4111 1111 1111 1111", ticket))
        await bench.correct(correction(ticket, category=Category.TOP_UP))
    path = tmp_path / "corrections.tsv"
    await exported(database_url, path)
    assert path.read_text(encoding="utf-8") == "text\tlabel\tlanguage\n付款失败，卡号[card]\ttop_up\tzh\n"


async def test_what_is_not_kept_any_more_is_left_out_and_counted(database_url: str, tmp_path: Path) -> None:
    async with working(database_url) as bench:
        single, several, empty = (uuid.uuid4() for _ in range(3))
        await bench.messages(
            message("付款失败", single), message("付款失败了吗", several), message("在吗", several, 2, minutes=1),
            message("", empty),
        )  # fmt: skip
        for ticket in (single, several, empty):
            await bench.correct(correction(ticket, category=Category.TOP_UP))
        # Pruned but for the corrections themselves, then all of them.
        await bench.rows("DELETE FROM classifier.decisions WHERE (event::json ->> 'revision')::int = 1 RETURNING 1")
        some = await exported(database_url, tmp_path / "some.tsv")
        await bench.rows("DELETE FROM classifier.decisions RETURNING 1")
        assert await exported(database_url, tmp_path / "none.tsv") == some
    # Of a single message the ticket itself still tells the text; of several nobody knows which it was.
    assert some == ([("付款失败", "top_up", "zh")], 2)


async def test_the_command_says_what_it_did(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with working(database_url) as bench:
        for number in range(3):
            ticket = uuid.uuid4()
            await bench.messages(message(f"付款失败{number}", ticket))
            await bench.correct(correction(ticket, category=Category.TOP_UP))
    # More tickets than are read at once.
    monkeypatch.setattr("services.classifier.storage._CORRECTED_AT_ONCE", 2)
    monkeypatch.setenv("DATABASE_URL", database_url)
    path = tmp_path / "corrections.tsv"
    assert await asyncio.to_thread(export_corrections.main, ["--out", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: 3 corrected tickets\n"
    assert sorted(example.text for example in read_examples(path)) == ["付款失败0", "付款失败1", "付款失败2"]


def test_a_database_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    path = tmp_path / "corrections.tsv"
    assert export_corrections.main(["--out", str(path)]) == 1
    assert "the database of DATABASE_URL cannot be" in capsys.readouterr().err
    assert not path.exists()
