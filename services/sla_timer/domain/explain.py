"""The arithmetic of a ticket's promises, written out as a person would do it on paper."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from services.sla_timer.domain.clocks import Clock, Spans, State, Step, Ticket
from services.sla_timer.domain.policies import Terms
from shared.calendars import Calendar
from shared.events import SlaKind

_LINES_MOST: Final = 12
"""Working periods spelled out for one clock; of more, those in the middle are added up."""
_LABEL: Final = 12
_NAMES: Final = {
    SlaKind.STARTED: "started",
    SlaKind.REPLANNED: "re-planned",
    SlaKind.WARNING: "warned",
    SlaKind.BREACHED: "breached",
    SlaKind.ESCALATED: "escalated",
    SlaKind.MET: "met",
    SlaKind.PAUSED: "paused",
    SlaKind.RESUMED: "resumed",
    SlaKind.CANCELLED: "cancelled",
}

CalendarOf = Callable[[Terms], Calendar]


def explained(ticket: Ticket, clocks: Sequence[Clock], calendar_of: CalendarOf, now: datetime) -> str:
    """The ticket and each of its clocks; times on the wall of each promise's calendar."""
    ordered = sorted(clocks, key=lambda clock: (clock.started_at, clock.target, clock.generation))
    head = f"Ticket {ticket.id}: {ticket.brand}, {ticket.channel}, opened {ticket.opened_at.isoformat()}"
    return "\n\n".join((head, *("\n".join(_clock(clock, calendar_of(clock.terms), now)) for clock in ordered)))


def length(seconds: float) -> str:
    """`2h 05m 09s`, `12m 40s`, `8s`."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours}h {minutes:02}m {rest:02}s"
    return f"{minutes}m {rest:02}s" if minutes else f"{rest}s"


def _clock(clock: Clock, calendar: Calendar, now: datetime) -> Iterator[str]:
    terms = clock.terms
    name = str(clock.target).replace("_", " ").capitalize()
    yield f"{name} {clock.generation}: {_outcome(clock)}"
    yield _line(
        "promised",
        f"{length(terms.target_seconds)} of working time, by rule {terms.policy} for {clock.priority}"
        + (f", {clock.category}" if clock.category else ""),
    )
    yield _line(
        "computed of",
        f"policies {terms.policy_version}, calendar {terms.calendar} {terms.calendar_version} ({calendar.zone})",
    )
    spans = _spans(clock)
    yield from _counted(spans, calendar, clock.ended_at or now)
    if clock.due_at is not None:
        yield _line("due", f"{_at(calendar, clock.due_at)}, with {length(terms.target_seconds)} used")
    for step in clock.course:
        if step.kind is not SlaKind.STARTED:
            yield _line(_NAMES[step.kind], _step(step, calendar))
    yield _line("so", _sum(clock, calendar, spans, now))


def _outcome(clock: Clock) -> str:
    late = clock.breached_at is not None
    match clock.state:
        case State.MET:
            return "met, too late" if late else "met in time"
        case State.CANCELLED:
            return "fell away after its breach" if late else "fell away"
        case State.PAUSED:
            return "paused, breached" if late else "paused"
        case State.RUNNING:
            return "breached, still owed" if late else "running"


def _spans(clock: Clock) -> Spans:
    """When it ran: from the start, without the pauses."""
    spans: list[tuple[datetime, datetime | None]] = [(clock.started_at, None)]
    for step in clock.course:
        begun, ended = spans[-1]
        if step.kind is SlaKind.PAUSED and ended is None:
            spans[-1] = (begun, step.at)
        elif step.kind is SlaKind.RESUMED and ended is not None:
            spans.append((step.at, None))
    begun, ended = spans[-1]
    if ended is None and clock.ended_at is not None:
        spans[-1] = (begun, clock.ended_at)
    return tuple(spans)


def _counted(spans: Spans, calendar: Calendar, until: datetime) -> Iterator[str]:
    """One line per working period in which it ran, the pauses between them, and the sum."""
    lines: list[tuple[str, timedelta | None]] = []
    total = timedelta(0)
    for index, (begun, ended) in enumerate(spans):
        if index:
            paused_at = spans[index - 1][1]
            assert paused_at is not None, "only the last span is open"
            lines.append(
                (f"{_at(calendar, paused_at)} to {_until(calendar, paused_at, begun)}, waiting: not counted", None)
            )
        for start, end in calendar.working_periods(begun, ended or until):
            lines.append((f"{_at(calendar, start)} to {_until(calendar, start, end)}", end - start))
            total += end - start
    left_out = lines[_LINES_MOST // 2 : -_LINES_MOST // 2] if len(lines) > _LINES_MOST else []
    if left_out:
        middle = sum((worked for _, worked in left_out if worked is not None), timedelta(0))
        lines[_LINES_MOST // 2 : -_LINES_MOST // 2] = [(f"{len(left_out)} further lines like these", middle)]
    for number, (text, worked) in enumerate(lines):
        amount = "" if worked is None else length(worked.total_seconds())
        yield _line("counted" if number == 0 else "", f"{text:<70}{amount:>12}")
    if len(lines) > 1:
        yield _line("", f"{'together':<70}{length(total.total_seconds()):>12}")
    if not lines:
        yield _line("counted", "nothing: no working time has gone by")


def _step(step: Step, calendar: Calendar) -> str:
    said = _at(calendar, step.at)
    if step.mark is not None and step.mark.share is not None:
        said += f", at {step.mark.share:.0%} of the target"
    elif step.mark is not None and step.mark.before_seconds is not None:
        said += f", with {length(step.mark.before_seconds)} left"
    elif step.mark is not None and step.mark.level is not None:
        said += f", called {step.mark.level.replace('_', ' ')}"
    if step.kind in (SlaKind.REPLANNED, SlaKind.RESUMED) and step.due_at is not None:
        said += f": due {_at(calendar, step.due_at)}"
    if step.kind is SlaKind.MET and step.used_seconds is not None:
        said += f", with {length(step.used_seconds)} used"
    return said


def _sum(clock: Clock, calendar: Calendar, spans: Spans, now: datetime) -> str:
    target = clock.terms.target_seconds
    used = sum(
        (calendar.business_time(begun, max(begun, ended or now)) for begun, ended in spans), timedelta(0)
    ).total_seconds()
    if clock.state is State.CANCELLED:
        return f"{length(used)} were used when it fell away; nothing is owed"
    so_far = "used" if clock.state is State.MET else "used so far"
    if used <= target:
        by = f", by {clock.agent_group}" if clock.agent_group else ""
        rest = f"{length(target - used)} to spare{by}" if clock.state is State.MET else f"{length(target - used)} left"
        return f"{length(target)} - {length(used)} {so_far} = {rest}"
    return f"{length(used)} {so_far} - {length(target)} = {length(used - target)} too late"


def _line(label: str, text: str) -> str:
    return f"  {label:<{_LABEL}}{text}".rstrip()


def _at(calendar: Calendar, at: datetime) -> str:
    return calendar.local(at).strftime("%a %Y-%m-%d %H:%M:%S")


def _until(calendar: Calendar, start: datetime, end: datetime) -> str:
    """The end, with its day only where that is another."""
    first, last = calendar.local(start), calendar.local(end)
    if first.date() == last.date():
        return last.strftime("%H:%M:%S")
    if last == last.replace(hour=0, minute=0, second=0, microsecond=0) and last.date() - first.date() == timedelta(1):
        return "24:00:00"
    return _at(calendar, end)
