"""The format of a scenario file: what customers of one brand go through, and what must come of it.

`load(path)` reads and checks a file; README.md beside this file documents the format for those who write one. Nothing
here knows how a scenario is played: `play.py` asks `Story.timed` for the steps.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationError,
    model_validator,
)

from shared.events.base import BrandCode, Identifier
from shared.events.channel import Attachment, Customer, ShortText, Text
from shared.events.sla import Target
from shared.taxonomy import CATEGORIES, Category, Channel, Fact, Language, Priority, Queue

_UNITS: Final = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class ScenarioError(Exception):
    """A scenario file cannot be used: which file, where in it, what is wrong."""


class Outcome(StrEnum):
    """What intake makes of a message."""

    OPENED = "opened"
    FOLLOWED_UP = "followed_up"
    REOPENED = "reopened"
    DUPLICATE = "duplicate"  # nothing: no event, no ticket, no acknowledgement


class Via(StrEnum):
    """How a story's messages come in, and how its answers go back."""

    CHANNEL = "channel"  # as its provider sends them, to intake's gateway
    KAFKA = "kafka"  # published straight to `channel.messages`


_ANSWERED_WITHOUT_PROVIDER: Final = frozenset({Channel.APP_CHAT, Channel.EMAIL, Channel.WEB_FORM})


class Act(StrEnum):
    """What an agent does with the story's latest ticket."""

    CLAIM = "claim"
    RELEASE = "release"
    REPLY = "reply"
    WAIT_ON_CUSTOMER = "wait_on_customer"
    RESOLVE = "resolve"
    REOPEN = "reopen"
    CORRECT = "correct"


def _duration(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("must be a number with a unit, e.g. 250ms, 30s, 5m, 2h or 2d")
    match = re.fullmatch(r"([0-9]+)(ms|s|m|h|d)", value)
    if match is None:
        raise ValueError(f"{value!r} is no duration: write a number with a unit, e.g. 250ms, 30s, 5m, 2h or 2d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _one_or_more(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(_[a-z0-9]+)*$", max_length=80)]


class _Strict(BaseModel):
    """A misspelt expectation would be one that is never checked: unknown names are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class StoryCustomer(Customer):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StoryAttachment(Attachment):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SentMessage(_Strict):
    """What the customer sends. `id` names a message that a later step sends again."""

    text: Text = ""
    subject: ShortText | None = None
    attachments: tuple[StoryAttachment, ...] = ()
    id: Slug | None = None

    def holds(self, words: str) -> bool:
        return any(
            words in written
            for written in (self.text, self.subject or "", *(attachment.name for attachment in self.attachments))
        )


class RoutingExpectation(_Strict):
    """Of the ticket's latest `TicketRouted`. What is left out is not checked."""

    category: Annotated[tuple[Category, ...], BeforeValidator(_one_or_more)] = Field(
        default=(), description="one of these is the primary category"
    )
    queue: Queue | None = None
    priority: Priority | None = Field(default=None, description="exactly this")
    no_less_urgent_than: Priority | None = None
    no_more_urgent_than: Priority | None = None

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.queue and self.category and self.queue not in {CATEGORIES[each].queue for each in self.category}:
            expected = " or ".join(sorted({CATEGORIES[each].queue for each in self.category}))
            raise ValueError(f"queue {self.queue} cannot be: this category goes to {expected}")
        if self.priority and (self.no_less_urgent_than or self.no_more_urgent_than):
            raise ValueError("give `priority` or bounds, not both")
        least, most = self.no_less_urgent_than, self.no_more_urgent_than
        if least and most and least.level < most.level:
            raise ValueError(f"no priority is both no less urgent than {least} and no more urgent than {most}")
        return self


class Promise(_Strict):
    """What a clock was promised: business seconds on a calendar, by a rule (its name without the priority)."""

    calendar: str
    seconds: Annotated[int, Field(ge=1)]
    rule: str | None = None


class MessageExpectation(RoutingExpectation):
    """What must come of a message."""

    outcome: Outcome
    linked: bool | None = Field(default=None, description="opened: whether it names the conversation's earlier ticket")
    points: tuple[Category, ...] = Field(default=(), description="all of these are among its points")
    asked: tuple[Fact, ...] = Field(default=(), description="all of these are missing, hence asked")
    not_asked: tuple[Fact, ...] = Field(default=(), description="none of these is missing")
    language: Language | None = None
    acknowledged_in: Language | None = Field(default=None, description="opened: language of the acknowledgement")
    cut: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=(), description="secrets as they stand in the message: found nowhere afterwards"
    )
    resumed: tuple[Target, ...] = Field(default=(), description="clocks that run again because the customer wrote")
    promised: Mapping[Target, Promise] = Field(default_factory=dict, description="what these clocks were promised")

    @model_validator(mode="after")
    def _fits_its_outcome(self) -> Self:
        given = self.model_fields_set - {"outcome", "cut"}
        if self.outcome is Outcome.DUPLICATE and given:
            raise ValueError(f"a duplicate has no effect: leave out {', '.join(sorted(given))}")
        if self.outcome is not Outcome.OPENED and (self.acknowledged_in or self.linked is not None):
            raise ValueError("`acknowledged_in` and `linked` are of a message that opens a ticket")
        if both := set(self.asked) & set(self.not_asked):
            raise ValueError(f"{', '.join(sorted(both))} cannot be both asked and not asked")
        return self


class AgentExpectation(RoutingExpectation):
    """What must come of an agent's act."""

    met: tuple[Target, ...] = Field(default=(), description="clocks that this meets")
    paused: tuple[Target, ...] = ()
    resumed: tuple[Target, ...] = ()
    delivered: bool | None = Field(default=None, description="reply: whether its text reaches the customer")


class MessageStep(_Strict):
    """The customer sends a message, `after` the step before."""

    after: Duration = timedelta(0)
    message: SentMessage
    expect: MessageExpectation

    @model_validator(mode="after")
    def _cuts_what_it_holds(self) -> Self:
        for secret in self.expect.cut:
            if not self.message.holds(secret):
                raise ValueError(f"`cut` names {secret!r}, which does not stand in the message")
        return self


class AgentAct(_Strict):
    act: Act
    by: Identifier = "agent-1"
    text: Text | None = None
    queue: Queue | None = None
    category: Category | None = None
    priority: Priority | None = None

    @model_validator(mode="after")
    def _has_what_its_act_needs(self) -> Self:
        if self.act is Act.REPLY and not (self.text or "").strip():
            raise ValueError("a reply needs `text`")
        corrects = bool(self.queue or self.category or self.priority)
        if corrects is not (self.act is Act.CORRECT):
            raise ValueError(
                "`queue`, `category` and `priority` say what is corrected: give one or more with `correct` only"
            )
        return self


class AgentStep(_Strict):
    """An agent does something with the ticket, `after` the step before."""

    after: Duration = timedelta(0)
    agent: AgentAct
    expect: AgentExpectation = AgentExpectation()

    @model_validator(mode="after")
    def _only_replies_are_delivered(self) -> Self:
        if self.expect.delivered is not None and self.agent.act is not Act.REPLY:
            raise ValueError("`delivered` is of a reply")
        return self


def _kind_of_step(value: Any) -> str | None:
    if isinstance(value, MessageStep | AgentStep):
        return "message" if isinstance(value, MessageStep) else "agent"
    kinds = [kind for kind in ("message", "agent") if isinstance(value, dict) and kind in value]
    return kinds[0] if len(kinds) == 1 else None


Step = Annotated[
    Annotated[MessageStep, Tag("message")] | Annotated[AgentStep, Tag("agent")],
    Discriminator(
        _kind_of_step,
        custom_error_type="step_kind",
        custom_error_message="a step is either a `message` or an `agent` act: give exactly one of them",
    ),
]


class Story(_Strict):
    """One customer, one channel, one conversation."""

    name: Slug
    about: ShortText
    channel: Channel
    via: Via = Via.CHANNEL
    customer: StoryCustomer
    steps: Annotated[tuple[Step, ...], Field(min_length=1)]

    @property
    def tickets(self) -> int:
        """How many tickets there must be in the end: as many as were opened."""
        return sum(isinstance(step, MessageStep) and step.expect.outcome is Outcome.OPENED for step in self.steps)

    def timed(self, start: datetime) -> Iterator[tuple[datetime, MessageStep | AgentStep]]:
        """Every step with its time: `start` plus all of `after` up to it."""
        at = start
        for step in self.steps:
            at += step.after
            yield at, step

    def duration(self) -> timedelta:
        """From the start to the last step."""
        return sum((step.after for step in self.steps), timedelta(0))

    @model_validator(mode="after")
    def _can_be_reached(self) -> Self:
        if self.via is Via.KAFKA and self.channel not in _ANSWERED_WITHOUT_PROVIDER:
            raise ValueError(f"`via: kafka`: an answer on {self.channel} needs what only its provider's message tells")
        if self.channel in (Channel.EMAIL, Channel.WEB_FORM) and "@" not in self.customer.id:
            raise ValueError(f"customer.id: on {self.channel} it is his mail address")
        return self

    @model_validator(mode="after")
    def _can_happen(self) -> Self:
        ticket_is_open: bool | None = None  # none: there is no ticket yet
        seen: set[str] = set()
        for number, step in enumerate(self.steps, start=1):
            if isinstance(step, AgentStep):
                if ticket_is_open is None:
                    raise ValueError(f"step {number}: an agent acts before there is a ticket")
                if step.agent.act is Act.REOPEN and ticket_is_open:
                    raise ValueError(f"step {number}: the ticket is open, it cannot be reopened")
                ticket_is_open = _open_after(step.agent.act, was_open=ticket_is_open)
                continue
            repeats = step.message.id is not None and step.message.id in seen
            outcome = step.expect.outcome
            if repeats is not (outcome is Outcome.DUPLICATE):
                raise ValueError(
                    f"step {number}: a duplicate, and only a duplicate, has the `id` of an earlier message"
                )
            if step.message.id:
                seen.add(step.message.id)
            if outcome is Outcome.FOLLOWED_UP and not ticket_is_open:
                raise ValueError(f"step {number}: there is no open ticket to follow up")
            if outcome is Outcome.REOPENED and ticket_is_open is not False:
                raise ValueError(f"step {number}: there is no resolved ticket to reopen")
            if outcome is Outcome.OPENED and step.expect.linked and ticket_is_open is None:
                raise ValueError(f"step {number}: there is no earlier ticket to be linked with")
            if outcome is not Outcome.DUPLICATE:
                ticket_is_open = True
        return self


def _open_after(act: Act, *, was_open: bool) -> bool:
    return {Act.RESOLVE: False, Act.REOPEN: True}.get(act, was_open)


class Scenario(_Strict):
    """What customers of one brand go through."""

    brand: BrandCode
    about: ShortText
    stories: Annotated[tuple[Story, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _tells_stories_and_customers_apart(self) -> Self:
        names = [story.name for story in self.stories]
        # Two stories of one customer on one channel would be one conversation.
        people = [f"{story.channel} customer {story.customer.id}" for story in self.stories]
        for values in (names, people):
            if twice := {value for value in values if values.count(value) > 1}:
                raise ValueError(f"{', '.join(sorted(twice))}: more than one story has this; each needs its own")
        return self


def load(path: Path) -> Scenario:
    """The scenario in the YAML file `path`. Raises ScenarioError, which names every fault and its place."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ScenarioError(f"{path.name} is no YAML: {error}") from error
    try:
        scenario = Scenario.model_validate(document)
    except ValidationError as error:
        faults = "\n".join(f"  {_place(fault['loc'], document)}: {fault['msg']}" for fault in error.errors())
        raise ScenarioError(
            f"{path.name} is no scenario (the format is in {Path(__file__).parent.name}/README.md):\n{faults}"
        ) from error
    if scenario.brand != path.stem:
        raise ScenarioError(f"{path.name} tells of brand {scenario.brand}: name the file {scenario.brand}.yaml")
    return scenario


def _place(location: tuple[int | str, ...], document: Any) -> str:
    """E.g. `stories.wrong_amount.steps.2.expect.queue`: stories by name, the rest counted from 1, as readers count."""
    parts: list[str] = []
    here = document
    is_step = False
    for part in location:
        if is_step and part in ("message", "agent"):
            is_step = False  # the kind of the step, which pydantic names before it goes on inside the step
            continue
        here = _inside(here, part)
        is_step = isinstance(part, int) and parts[-1:] == ["steps"]
        if isinstance(part, int):
            part = here["name"] if isinstance(here, dict) and isinstance(here.get("name"), str) else str(part + 1)
        parts.append(part)
    return ".".join(parts) or "the file"


def _inside(value: Any, part: int | str) -> Any:
    try:
        return value[part]
    except (KeyError, IndexError, TypeError):
        return None
