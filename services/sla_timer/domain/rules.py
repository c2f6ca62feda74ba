"""Which event does what to which clock: the table that a lead can read.

An automatic acknowledgement is no row here: it is a notification, not an agent's activity, and never meets a target.
Claimed, released and rated do nothing to a clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from shared.events import ActivityKind, Target


class What(StrEnum):
    """What happened to a ticket, as far as its clocks care. In this order where several happened at one instant."""

    ROUTED = "routed"
    OPENED = "opened"
    CORRECTED = "corrected"
    REOPENED = "reopened"
    CUSTOMER_WROTE = "customer_wrote"
    REPLIED = "replied"
    WAITING = "waiting_on_customer"
    RESOLVED = "resolved"


class Effect(StrEnum):
    START = "start"
    OWE = "owe"  # start, once the first answer has been given and none is owed yet; resume when it was paused
    CONTINUE = "continue"  # resume when paused; start anew when it had ended
    MEET = "meet"
    PAUSE = "pause"
    CANCEL = "cancel"  # the promise falls away
    REPLAN = "replan"  # new targets for what is open and not breached
    NOTHING = "-"


def _row(first_response: Effect, next_response: Effect, resolution: Effect) -> Mapping[Target, Effect]:
    return MappingProxyType(
        {
            Target.FIRST_RESPONSE: first_response,
            Target.NEXT_RESPONSE: next_response,
            Target.RESOLUTION: resolution,
        }
    )


_ = Effect.NOTHING

TABLE: Final[Mapping[What, Mapping[Target, Effect]]] = MappingProxyType(
    {
        #                         first response  next response   resolution
        What.OPENED: _row(Effect.START, _, Effect.START),
        What.ROUTED: _row(Effect.REPLAN, Effect.REPLAN, Effect.REPLAN),
        What.CORRECTED: _row(Effect.REPLAN, Effect.REPLAN, Effect.REPLAN),
        What.REOPENED: _row(_, _, Effect.CONTINUE),
        What.CUSTOMER_WROTE: _row(_, Effect.OWE, Effect.CONTINUE),
        What.REPLIED: _row(Effect.MEET, Effect.MEET, _),
        # Waiting without a reply is no answer: the first response stays owed. A next response is paused, not dropped.
        What.WAITING: _row(_, Effect.PAUSE, Effect.PAUSE),
        # Resolving answers a ticket that no one had answered; a reply still owed on an answered one falls away.
        What.RESOLVED: _row(Effect.MEET, Effect.CANCEL, Effect.MEET),
    }
)

ORDER: Final = {what: position for position, what in enumerate(What)}

OF_ACTIVITY: Final[Mapping[ActivityKind, What]] = MappingProxyType(
    {
        ActivityKind.REPLIED: What.REPLIED,
        ActivityKind.WAITING_ON_CUSTOMER: What.WAITING,
        ActivityKind.RESOLVED: What.RESOLVED,
        ActivityKind.REOPENED: What.REOPENED,
        ActivityKind.CORRECTED: What.CORRECTED,
    }
)


def table_text() -> str:
    """The table as a person reads it, for the documentation and the command line."""
    rows = [("event", *Target), *((what, *effects.values()) for what, effects in TABLE.items())]
    return "\n".join("".join(f"{cell!s:<22}" for cell in row).rstrip() for row in rows)
