"""`python -m services.sla_timer deadline`, `elapsed` and `open`."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from services.sla_timer.__main__ import main

CALENDARS = """\
calendars:
  hotline:
    zone: Asia/Shanghai
    holidays: [CN]
    extra_working_days: [2026-09-20]
    week:
      mon-fri: [09:00-12:00, 13:00-18:00]
  berlin:
    zone: Europe/Berlin
    week: 24/7
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "calendars.yaml"
    path.write_text(CALENDARS, encoding="utf-8")
    return path


def ask(file: Path, command: str, *arguments: str, calendar: str = "hotline") -> int:
    return main([command, "--calendars", str(file), "--calendar", calendar, *arguments])


def test_when_a_target_is_due(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Friday 17:00, an hour left; three before lunch on Monday, half an hour after it.
    assert ask(file, "deadline", "--start", "2026-06-05T17:00:00+08:00", "--target", "4h30m") == 0
    assert capsys.readouterr() == ("2026-06-08T13:30:00+08:00\n", "")
    # A day is the calendar's eight hours, and 20 September a Sunday that is worked.
    assert ask(file, "deadline", "--start", "2026-09-18T17:00", "--target", "1d") == 0
    assert capsys.readouterr().out == "2026-09-20T17:00:00+08:00\n"


def test_another_offset_and_fractions_of_the_start_are_understood(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(file, "deadline", "--start", "2026-06-05T09:00:00.25Z", "--target", "15m") == 0
    assert capsys.readouterr().out == "2026-06-05T17:15:00.250000+08:00\n"


def test_a_due_time_within_a_repeated_hour_says_which(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for target, due in (("1h", "2026-10-25T02:30:00+02:00\n"), ("2h", "2026-10-25T02:30:00+01:00\n")):
        assert ask(file, "deadline", "--start", "2026-10-25T01:30", "--target", target, calendar="berlin") == 0
        assert capsys.readouterr().out == due


def test_how_long_it_was(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(file, "elapsed", "--start", "2026-06-05T17:00", "--end", "2026-06-08T13:30") == 0
    assert capsys.readouterr() == ("16200\n", "")


def test_open_or_closed(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(file, "open", "--at", "2026-09-30T17:59:59") == 0
    assert ask(file, "open", "--at", "2026-09-30T18:00:00") == 0
    assert capsys.readouterr().out == "open\nclosed until 2026-10-08T09:00:00+08:00\n"
    assert ask(file, "open", calendar="berlin") == 0
    assert capsys.readouterr().out == "open\n"


def test_the_only_calendar_of_a_file_need_not_be_named(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    question = ["elapsed", "--calendars", str(file), "--start", "2026-06-05T10:00", "--end", "2026-06-05T11:00"]
    assert main(question) == 2
    assert capsys.readouterr().err == f"elapsed: say which --calendar of {file}: berlin, hotline\n"
    file.write_text(CALENDARS[: CALENDARS.index("  berlin")], encoding="utf-8")
    assert main(question) == 0
    assert capsys.readouterr().out == "3600\n"


def test_the_calendars_of_the_service_are_the_default(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLA_TIMER_CALENDARS_FILE", str(file))
    assert main(["open", "--calendar", "hotline", "--at", "2026-06-05T10:00"]) == 0
    assert capsys.readouterr().out == "open\n"


def test_years_without_known_holidays_are_answered_with_a_note(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(file, "elapsed", "--start", "2101-10-04T09:00", "--end", "2101-10-04T12:00") == 0
    answer, told = capsys.readouterr()
    assert answer == "10800\n"
    assert told.startswith("note: the holidays library does not know all public holidays of CN in these years")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("deadline", "--start", "tomorrow", "--target", "1h"), "--start: 'tomorrow' is not a time like"),
        (("deadline", "--start", "2026-06-31T10:00", "--target", "1h"), "--start: '2026-06-31T10:00' is not a time"),
        (("deadline", "--start", "2026-06-05T10:00", "--target", "0m"), "--target: '0m' is not between"),
        (("deadline", "--start", "2026-06-05T10:00", "--target=-1h"), "--target: '-1h' is not a length of time"),
        (("deadline", "--start", "2026-06-05T10:00", "--target", "soon"), "--target: 'soon' is not a length of time"),
        (("deadline", "--start", "1950-06-05T10:00", "--target", "1h"), "only for the years 1970 to 2199"),
        (("deadline", "--start", "9999-12-31T23:59-12:00", "--target", "1h"), "only for the years 1970 to 2199"),
        (("deadline", "--start", "2199-12-30T10:00", "--target", "300d"), "hotline: the target is not reached before"),
        (("elapsed", "--start", "2026-06-05T10:00", "--end", "2026-06-05T09:59"), "is before the start"),
        (("elapsed", "--start", "2026-06-05T10:00", "--end", "later"), "--end: 'later' is not a time like"),
        (("open", "--at", "noon"), "--at: 'noon' is not a time like"),
    ],
)
def test_a_question_that_cannot_be_answered(
    file: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
) -> None:
    assert ask(file, *arguments) == 2
    answer, told = capsys.readouterr()
    assert answer == ""
    assert says in told
    assert told.startswith(f"{arguments[0]}: ")
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("start", "says"),
    [
        (
            "2026-03-29T02:30",
            "does not exist in Europe/Berlin: the clock skips it; give it an offset, +01:00 or +02:00",
        ),
        (
            "2026-10-25T02:30",
            "exists twice in Europe/Berlin: the clock repeats it; give it an offset, +02:00 or +01:00",
        ),
    ],
)
def test_a_wall_time_that_is_no_instant_or_two(
    file: Path, capsys: pytest.CaptureFixture[str], start: str, says: str
) -> None:
    assert ask(file, "deadline", "--start", start, "--target", "1h", calendar="berlin") == 2
    assert capsys.readouterr().err == f"deadline: --start: {start}:00 {says}\n"
    for offset in says.split()[-3::2]:
        assert ask(file, "deadline", "--start", start + offset, "--target", "1h", calendar="berlin") == 0


def test_a_calendar_that_is_not_there(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(file, "open", calendar="office") == 2
    assert capsys.readouterr().err == f"open: {file} has no calendar 'office', only berlin, hotline\n"


def test_a_file_that_cannot_be_used(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(CALENDARS.replace("13:00-18:00", "13:00-25:00"), encoding="utf-8")
    assert ask(file, "open") == 1
    assert capsys.readouterr().err.startswith(f"{file}:7: calendars.hotline.week.mon-fri.1: '13:00-25:00'")
    file.write_text(CALENDARS.replace("week:\n      mon-fri: [09:00-12:00, 13:00-18:00]", "week: {}"), encoding="utf-8")
    assert ask(file, "open") == 1
    assert "has no working time" in capsys.readouterr().err
    assert ask(tmp_path / "none.yaml", "open") == 1
    assert capsys.readouterr().err == f"{tmp_path / 'none.yaml'}: cannot be read: No such file or directory\n"


def test_what_is_left_out_is_asked_for(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        ask(file, "deadline", "--start", "2026-06-05T10:00")
    assert left.value.code == 2
    assert "--target" in capsys.readouterr().err


def test_the_examples_of_the_documentation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[3] / "docs" / "sla.md").read_text(encoding="utf-8")
    section = page[page.index("## calendars.yaml") : page.index("## sla.yaml")]
    file = tmp_path / "calendars.yaml"
    (example,) = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    file.write_text(example, encoding="utf-8")
    (shown,) = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
    asked = re.findall(r"^\$ python -m services.sla_timer (.*)\n(.*)\n", shown, re.MULTILINE)
    assert len(asked) == 5
    for question, answer in asked:
        main(shlex.split(question.replace("calendars.yaml", str(file))))
        assert "".join(capsys.readouterr()) == f"{answer}\n"
