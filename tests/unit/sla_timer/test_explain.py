"""The arithmetic of promises as a person reads it, against sums that were done by hand."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from services.sla_timer.domain.clocks import Happening, Ticket, fold, reconcile
from services.sla_timer.domain.explain import explained, length
from services.sla_timer.domain.policies import Policies, PolicyFile
from services.sla_timer.domain.rules import What
from shared.calendars import CalendarSpec
from shared.taxonomy import Category, Channel, Priority, Queue
from tests.unit.sla_timer.support import targets

SHANGHAI = ZoneInfo("Asia/Shanghai")
OFFICE = CalendarSpec.model_validate(
    {
        "zone": "Asia/Shanghai",
        "week": {"mon-fri": ["09:00-12:00", "13:00-18:00"]},
        "extra_working_days": ["2026-09-20"],
    }
).calendar("office")
POLICIES = Policies(
    PolicyFile.model_validate(
        {
            "rules": {
                "default": {
                    "calendar": "office",
                    "warnings": [0.8, "30m"],
                    "escalations": [{"to": "head", "after": "1h"}],
                    "targets": {"*": targets("4h", "2h", "2d")},
                }
            }
        }
    ),
    {"office": OFFICE},
)
TICKET = Ticket(
    uuid.UUID("4f0c2a1e-9c1b-5d5e-8a3f-3f5d1c2b7a90"),
    "upay",
    Channel.EMAIL,
    datetime(2026, 9, 18, 16, 40, tzinfo=SHANGHAI),
)


def happened(what: What, day: int, hour: int, minute: int = 0, **more: object) -> Happening:
    at = datetime(2026, 9, day, hour, minute, tzinfo=SHANGHAI)
    return Happening(uuid.uuid5(TICKET.id, f"{what}{at}"), what, at, **more)  # type: ignore[arg-type]


STORY = (
    happened(What.ROUTED, 18, 16, 40, queue=Queue.REFUNDS, priority=Priority.P3, revision=1, category=Category.REFUND),
    happened(What.REPLIED, 20, 11, 10, agent_group="refunds"),
    happened(What.WAITING, 20, 11, 10),
    happened(What.CUSTOMER_WROTE, 22, 9, 30),
    happened(What.RESOLVED, 23, 17),
)


def explanation(*story: Happening, now: datetime) -> str:
    folded = fold(TICKET, story, POLICIES, now)
    told = reconcile(TICKET, {}, folded, now)
    return explained(TICKET, told.changed, POLICIES.calendar, now)


def test_the_sum_of_a_first_response_over_a_weekend() -> None:
    """Friday 16:40 to 18:00 are 1h 20m; Sunday the 20th is a make-up day: 9:00 to 11:10 are 2h 10m. 30m are left."""
    text = explanation(*STORY, now=datetime(2026, 9, 24, tzinfo=SHANGHAI))
    first = text.split("\n\n")[1]
    assert first.splitlines()[0] == "First response 1: met in time"
    assert "promised    4h 00m 00s of working time, by rule default/* for P3, refund" in first
    assert f"policies {POLICIES.version}, calendar office {OFFICE.version} (Asia/Shanghai)" in first
    lines = [" ".join(line.split()) for line in first.splitlines()]
    assert "counted Fri 2026-09-18 16:40:00 to 18:00:00 1h 20m 00s" in lines
    assert "Sun 2026-09-20 09:00:00 to 11:10:00 2h 10m 00s" in lines
    assert "together 3h 30m 00s" in lines
    assert "due Sun 2026-09-20 11:40:00, with 4h 00m 00s used" in lines
    assert "so 4h 00m 00s - 3h 30m 00s used = 30m 00s to spare, by refunds" in lines


def test_a_pause_is_shown_and_not_counted() -> None:
    """3h 30m are used until the wait, from Tuesday 9:30 on 7h 30m, on Wednesday until 17:00 7h: 18 of 16 hours."""
    text = explanation(*STORY, now=datetime(2026, 9, 24, tzinfo=SHANGHAI))
    resolution = next(part for part in text.split("\n\n") if part.startswith("Resolution"))
    lines = [" ".join(line.split()) for line in resolution.splitlines()]
    assert lines[0] == "Resolution 1: met, too late"
    assert "Sun 2026-09-20 11:10:00 to Tue 2026-09-22 09:30:00, waiting: not counted" in lines
    assert "together 18h 00m 00s" in lines
    assert "breached Wed 2026-09-23 15:00:00" in lines
    assert "escalated Wed 2026-09-23 16:00:00, called head" not in lines  # had ended when it was looked at
    assert "so 18h 00m 00s used - 16h 00m 00s = 2h 00m 00s too late" in lines


def test_what_is_still_owed_says_what_is_left() -> None:
    now = datetime(2026, 9, 18, 17, 40, tzinfo=SHANGHAI)
    text = explanation(now=now)
    assert "First response 1: running" in text
    assert "4h 00m 00s - 1h 00m 00s used so far = 3h 00m 00s left" in text


def test_what_was_called_for_is_told() -> None:
    text = explanation(now=datetime(2026, 9, 20, 14, 0, tzinfo=SHANGHAI))
    lines = [" ".join(line.split()) for line in text.split("\n\n")[1].splitlines()]
    assert lines[0] == "First response 1: breached, still owed"
    assert "warned Sun 2026-09-20 10:52:00, at 80% of the target" in lines
    assert "warned Sun 2026-09-20 11:10:00, with 30m 00s left" in lines
    assert "breached Sun 2026-09-20 11:40:00" in lines
    assert "escalated Sun 2026-09-20 13:40:00, called head" in lines


def test_a_long_promise_is_added_up_in_the_middle() -> None:
    now = TICKET.opened_at + timedelta(days=60)
    lines = explanation(now=now).split("\n\n")[1].splitlines()
    counted = [line for line in lines if " to " in line or "further lines" in line or "together" in line]
    assert len(counted) == 12 + 2
    worked = OFFICE.business_elapsed(TICKET.opened_at, now)
    assert counted[-1].split("together")[1].strip() == length(worked)


def test_lengths_are_written_as_people_write_them() -> None:
    assert [length(seconds) for seconds in (0, 59, 60, 3599, 3600, 90_061)] == [
        "0s",
        "59s",
        "1m 00s",
        "59m 59s",
        "1h 00m 00s",
        "25h 01m 01s",
    ]
