"""Long replies in pieces: none too long, nothing lost, parted where a reader would part them."""

from __future__ import annotations

import time
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.intake.channels.base import NotSent, Sent
from services.intake.channels.pieces import Length, Progress, split, utf16_units
from services.intake.channels.x import weight

TEXTS = st.text(st.sampled_from("ab好。！. \n,，😀é") | st.characters(exclude_categories=["Cs"]), max_size=300)
NOTIFICATION = UUID("0190b5a4-0000-7000-8000-000000000001")


@pytest.mark.parametrize("length", [len, utf16_units, weight])
@given(text=TEXTS, limit=st.integers(50, 120))
def test_pieces_fit_and_together_are_the_text(length: Length, text: str, limit: int) -> None:
    pieces = split(text, limit, length)
    assert all(0 < length(piece) <= limit for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("短", ["短"]),
        ("", []),
        ("第一行。\n第二行，很长", ["第一行。", "第二行，很长"]),
        ("您好。请重启应用，再试", ["您好。请重启应用，", "再试"]),
        ("请重启应用。再试，好吗？", ["请重启应用。", "再试，好吗？"]),
        ("一二三四五六七八九十。", ["一二三四五六七八九十", "。"]),
        ("one two three four", ["one two", "three four"]),
        ("12345 7890 more", ["12345 7890", "more"]),
        ("一二三四五。七八九十。", ["一二三四五。", "七八九十。"]),
        ("abcdefghijklmnop", ["abcdefghij", "klmnop"]),
    ],
)
def test_parted_where_a_reader_would(text: str, pieces: list[str]) -> None:
    assert split(text, 10) == pieces


def test_characters_beyond_the_basic_plane_are_two_units() -> None:
    assert utf16_units("a好😀") == 4
    assert split("😀" * 5, 4, utf16_units) == ["😀😀", "😀😀", "😀"]


@pytest.mark.parametrize(
    ("text", "weighs"),
    [
        ("abc", 3),
        ("你好", 4),
        ("😀", 2),
        ("https://a.io", 23),
        ("a.io", 23),
        ("https://a.io/" + "x" * 30, 43),
        ("“好”", 4),
    ],
)
def test_weight_of_a_post(text: str, weighs: int) -> None:
    assert weight(text) == weighs


def test_a_very_long_word_is_parted_in_no_time() -> None:
    begun = time.process_time()  # of this process: other work on the machine does not count
    assert len(split("好" * 100_000, 280, weight)) == 715
    assert time.process_time() - begun < 5


class Provider:
    """Takes pieces until it fails; its ids are the numbers of the pieces."""

    def __init__(self, fails_at: int) -> None:
        self.taken: list[tuple[str, str | None]] = []
        self.fails_at = fails_at

    async def send(self, piece: str, before: str | None) -> str:
        if len(self.taken) == self.fails_at:
            self.fails_at = -1
            raise NotSent("away")
        self.taken.append((piece, before))
        return str(len(self.taken))


async def test_a_try_after_a_failed_one_goes_on_where_that_ended() -> None:
    progress, provider = Progress(), Provider(fails_at=2)
    with pytest.raises(NotSent):
        await progress.send(NOTIFICATION, ["a", "b", "c"], provider.send)
    assert await progress.send(NOTIFICATION, ["a", "b", "c"], provider.send) == Sent(("1", "2", "3"))
    assert provider.taken == [("a", None), ("b", "1"), ("c", "2")]


async def test_what_is_done_is_forgotten() -> None:
    progress, provider = Progress(), Provider(fails_at=-1)
    for _ in range(2):
        await progress.send(NOTIFICATION, ["a"], provider.send)
    assert [piece for piece, _ in provider.taken] == ["a", "a"]
