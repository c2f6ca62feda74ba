"""`python -m services.sla_timer check-config` and `rules`."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.sla_timer.__main__ import main
from services.sla_timer.settings import Settings
from tests.support.brands import write_brand


def test_the_shipped_policies_can_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-config"]) == 0
    assert "can be used" in capsys.readouterr().out


def test_what_is_wrong_is_told_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "calendars.yaml"
    broken.write_text("calendars:\n  always:\n    zone: Mars/Phobos\n    week: 24/7\n", encoding="utf-8")
    assert main(["check-config", "--calendars", str(broken)]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"{broken}:3: calendars.always.zone: ")
    shipped = Settings().sla_timer_policies_file
    broken.write_text("calendars:\n  always:\n    zone: UTC\n    week: 24/7\n", encoding="utf-8")
    own = ["--brands", str(write_brand(tmp_path / "brands"))]
    assert main(["check-config", "--calendars", str(broken), *own]) == 1
    assert capsys.readouterr().err.startswith(f"{shipped}:18: rules.default.calendar: there is no calendar")


def test_the_rules_are_printed_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rules"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == [
        "event",
        "first_response",
        "next_response",
        "periodic_update",
        "resolution",
    ]
