"""Which event does what to which clock: the table that a lead can read.

Claimed, released and rated do nothing to a clock and are not kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from shared.events import ActivityKind, Target, TicketActivity

AUTOMATIC: Final = "switchyard"
"""The agent of what no person did: the desk by itself, an automatic answer."""


class What(StrEnum):
    """What happened to a ticket, as far as its clocks care. In this order where several happened at one instant."""

    ROUTED = "routed"
    OPENED = "opened"
    CORRECTED = "corrected"
    REOPENED = "reopened"
    TOOK_OVER = "took_over"  # another ticket was merged into this one
    CUSTOMER_WROTE = "customer_wrote"
    CUSTOMER_THANKED = "customer_thanked"  # a message that only thanks or confirms
    ACKNOWLEDGED = "acknowledged"  # answered automatically
    REPLIED = "replied"
    WAITING = "waiting_on_customer"
    RESOLVED = "resolved"
    MERGED = "merged"  # into another ticket


class Effect(StrEnum):
    """What an event does to a clock; `MEANINGS` says it in words."""

    START = "start"
    OWE = "owe"
    CONTINUE = "continue"
    RESUME = "resume"
    RENEW = "renew"
    MEET = "meet"
    PAUSE = "pause"
    CANCEL = "cancel"
    REPLAN = "replan"
    NOTHING = "-"


MEANINGS: Final[Mapping[Effect, str]] = MappingProxyType(
    {
        Effect.START: "a promise begins",
        Effect.OWE: "a promise begins, once the first answer has been given and none is owed yet; or it resumes",
        Effect.CONTINUE: "resumes when paused; begins anew when it had ended",
        Effect.RESUME: "resumes when paused",
        Effect.RENEW: "met, and begins anew, while the resolution runs",
        Effect.MEET: "the promise is kept",
        Effect.PAUSE: "time does not count until it resumes",
        Effect.CANCEL: "the promise falls away",
        Effect.REPLAN: "new targets for what is open and not breached",
    }
)


def _row(
    first_response: Effect, next_response: Effect, periodic_update: Effect, resolution: Effect
) -> Mapping[Target, Effect]:
    return MappingProxyType(
        {
            Target.FIRST_RESPONSE: first_response,
            Target.NEXT_RESPONSE: next_response,
            Target.PERIODIC_UPDATE: periodic_update,
            Target.RESOLUTION: resolution,
        }
    )


_ = Effect.NOTHING

TABLE: Final[Mapping[What, Mapping[Target, Effect]]] = MappingProxyType(
    {
        #                           first response  next response    periodic update  resolution
        What.OPENED: _row(Effect.START, _, _, Effect.START),
        What.ROUTED: _row(Effect.REPLAN, Effect.REPLAN, Effect.REPLAN, Effect.REPLAN),
        What.CORRECTED: _row(Effect.REPLAN, Effect.REPLAN, Effect.REPLAN, Effect.REPLAN),
        What.CUSTOMER_WROTE: _row(_, Effect.OWE, Effect.RESUME, Effect.CONTINUE),
        # Nothing is owed for a thank you, and it takes up no ticket again; but it is the answer that was waited for.
        What.CUSTOMER_THANKED: _row(_, Effect.RESUME, Effect.RESUME, Effect.RESUME),
        # No person has answered.
        What.ACKNOWLEDGED: _row(_, _, _, _),
        What.REPLIED: _row(Effect.MEET, Effect.MEET, Effect.RENEW, _),
        # Waiting without a reply is no answer: the first response stays owed. A next response is paused, not dropped.
        What.WAITING: _row(_, Effect.PAUSE, Effect.PAUSE, Effect.PAUSE),
        # Resolving answers a ticket that no one had answered; a reply still owed on an answered one falls away.
        What.RESOLVED: _row(Effect.MEET, Effect.CANCEL, Effect.CANCEL, Effect.MEET),
        What.REOPENED: _row(_, _, Effect.CONTINUE, Effect.CONTINUE),
        # The other ticket goes on for both: what was owed here is owed there, as if the customer had written there.
        What.MERGED: _row(Effect.CANCEL, Effect.CANCEL, Effect.CANCEL, Effect.CANCEL),
        What.TOOK_OVER: _row(_, Effect.OWE, Effect.RESUME, Effect.CONTINUE),
    }
)

ORDER: Final = {what: position for position, what in enumerate(What)}

_OF_ACTIVITY: Final[Mapping[ActivityKind, What]] = MappingProxyType(
    {
        ActivityKind.REPLIED: What.REPLIED,
        ActivityKind.WAITING_ON_CUSTOMER: What.WAITING,
        ActivityKind.RESOLVED: What.RESOLVED,
        ActivityKind.REOPENED: What.REOPENED,
        ActivityKind.CORRECTED: What.CORRECTED,
        ActivityKind.MERGED: What.MERGED,
    }
)


def what_of(activity: TicketActivity) -> What | None:
    """None for an activity that clocks do not care about."""
    if activity.kind is ActivityKind.REPLIED and activity.agent == AUTOMATIC:
        return What.ACKNOWLEDGED
    return _OF_ACTIVITY.get(activity.kind)


def table_text() -> str:
    """The table as a person reads it, for the documentation and the command line."""
    rows = [("event", *Target), *((what, *effects.values()) for what, effects in TABLE.items())]
    table = ["".join(f"{cell!s:<20}" for cell in row).rstrip() for row in rows]
    return "\n".join((*table, "", *(f"{effect:<10}{meaning}" for effect, meaning in MEANINGS.items())))
