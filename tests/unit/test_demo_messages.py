"""Moving example messages to now: order and a customer's long pauses are kept, quiet times are cut."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deploy.demo.messages import KEPT_GAP, LONGEST_GAP, load, retime

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
MONDAY = datetime(2026, 11, 16, 9, 0, tzinfo=UTC)


def test_the_newest_is_now_and_quiet_times_are_cut() -> None:
    sent = [MONDAY, MONDAY + timedelta(milliseconds=15), MONDAY + timedelta(days=3)]
    first, second, third = retime(sent, ["a", "a", "b"], NOW)
    assert third == NOW
    assert second == NOW - LONGEST_GAP
    assert first == NOW - LONGEST_GAP - timedelta(milliseconds=15)


def test_a_customers_long_pause_is_kept() -> None:
    pause = timedelta(days=2)
    first, between, second = retime([MONDAY, MONDAY + timedelta(days=1), MONDAY + pause], ["a", "b", "a"], NOW)
    assert second == NOW
    assert first == NOW - pause
    assert between == NOW - LONGEST_GAP


def test_a_burst_before_a_long_pause_stays_together() -> None:
    burst = timedelta(milliseconds=15)
    first, second, third = retime([MONDAY, MONDAY + burst, MONDAY + timedelta(days=3)], ["a", "a", "a"], NOW)
    assert third == NOW
    assert second is not None
    assert first is not None
    assert second - first == burst
    assert NOW - second > KEPT_GAP


def test_lines_without_a_time_are_left_alone() -> None:
    assert retime([None, MONDAY], [None, "a"], NOW) == [None, NOW]


def test_bad_lines_are_sent_as_they_are(tmp_path: Path) -> None:
    good = {"brand": "upay", "channel": "wechat", "customer": {"id": "u1"}, "sent_at": "2026-11-16T09:00:00+08:00"}
    naive = {**good, "sent_at": "2026-11-16T09:00:00"}
    path = tmp_path / "messages.jsonl"
    path.write_text(f"{json.dumps(good)}\n{{not json\n\n[1]\n{json.dumps(naive)}\n", "utf-8")
    lines = load(path, NOW)
    assert [line.key for line in lines] == [b"upay/wechat/u1", None, None, b"upay/wechat/u1"]
    assert json.loads(lines[0].value)["sent_at"] == NOW.isoformat()
    assert [line.value for line in lines[1:]] == [b"{not json", b"[1]", json.dumps(naive).encode()]


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "messages.jsonl"
    path.write_text("\n", "utf-8")
    with pytest.raises(ValueError, match="has no lines"):
        load(path, NOW)
