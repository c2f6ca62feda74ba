"""How urgent: the category's default, moved by rules that are data, each leaving its reason."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.classifier.domain.scoring import Condition, condition
from shared.brands import BrandFile
from shared.events import Reason
from shared.taxonomy import CATEGORIES, Category, Channel, Priority
from shared.yaml_files import Fault

_STEPS: Final = {"+1": 1, "-1": -1}

Amounts = Mapping[str, Annotated[Decimal, Field(ge=0)]]
"""Currency (ISO 4217) -> amount in its main unit."""


class _Policy(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class When(_Policy):
    """What must hold, all of it."""

    concepts: str | None = None
    categories: frozenset[Category] = frozenset()
    channels: frozenset[Channel] = frozenset()
    vip: bool | None = None
    question_only: bool | None = None
    default_at_least: Priority | None = None
    contacts_from: Annotated[int, Field(ge=1)] | None = None
    amount_from: str | None = None
    amount_below: str | None = None
    within_hours: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("names no condition: the rule would always apply")
        return self


class RulePolicy(_Policy):
    effect: Literal["+1", "-1", "=P1", "=P2", "=P3", "=P4"]
    when: When
    or_: tuple[When, ...] = Field(default=(), alias="or")
    alone: bool = True
    detail: Annotated[str, Field(max_length=200)] = ""

    @model_validator(mode="after")
    def _only_a_step_up_can_need_company(self) -> Self:
        if not self.alone and self.effect != "+1":
            raise ValueError("only a rule of effect +1 can be `alone: false`")
        return self


class BrandPolicy(_Policy):
    """Rules that are off at a brand, and amounts of its own."""

    off: frozenset[str] = frozenset()
    amounts: Mapping[str, Amounts] = Field(default_factory=dict)


class ClassifierBrand(BrandFile):
    """A brand's file as the classifier reads it."""

    priorities: BrandPolicy = BrandPolicy()


class PriorityPolicy(_Policy):
    """priorities.yaml."""

    amounts: Mapping[str, Amounts]
    cny_worth: Mapping[str, Annotated[Decimal, Field(gt=0)]]
    rules: Mapping[str, RulePolicy]
    contact_gap_minutes: Annotated[float, Field(ge=0)]

    @model_validator(mode="after")
    def _names_what_is_there(self) -> Self:
        for name, rule in self.rules.items():
            for when in (rule.when, *rule.or_):
                for amount in (when.amount_from, when.amount_below):
                    if amount is not None and "CNY" not in self.amounts.get(amount, {}):
                        raise ValueError(f"rule {name!r} names the amount {amount!r}: give it under `amounts`, in CNY")
        return self

    def faults_of(self, own: BrandPolicy) -> list[Fault]:
        """Where a brand's policy names a rule or an amount that is not there."""
        faults: list[Fault] = []
        if unknown := own.off - self.rules.keys():
            faults.append((("off",), f"no such rule: {', '.join(sorted(unknown))}"))
        faults += [(("amounts", name), "no such amount") for name in own.amounts if name not in self.amounts]
        return faults


@dataclass(frozen=True, slots=True)
class Situation:
    """What the rules look at. `happened_at`: when it happened, where the customer tells and it could be resolved."""

    category: Category
    concepts: frozenset[str]
    channel: Channel | None = None
    brand: str | None = None
    vip: bool = False
    question_only: bool = False
    contacts: int = 1
    amount: Decimal | None = None
    currency: str | None = None
    happened_at: datetime | None = None
    sent_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Rule:
    name: str
    policy: RulePolicy
    whens: tuple[tuple[When, Condition | None], ...]

    @property
    def effect(self) -> str:
        return self.policy.effect


_NO_BRAND: Final = BrandPolicy()


class PriorityRules:
    """The policy, ready to decide. `brands`: what each has of its own. Raises BadRule when a rule names a concept that
    is not among `known`.
    """

    def __init__(self, policy: PriorityPolicy, known: Collection[str], brands: Mapping[str, BrandPolicy]) -> None:
        self._policy = policy
        self._brands = brands
        self._rules = tuple(
            _Rule(
                name,
                rule,
                tuple(
                    (when, None if when.concepts is None else condition(when.concepts, known))
                    for when in (rule.when, *rule.or_)
                ),
            )
            for name, rule in policy.rules.items()
        )
        self.contact_gap = timedelta(minutes=policy.contact_gap_minutes)

    def decide(self, situation: Situation) -> tuple[Priority, tuple[Reason, ...]]:
        """The priority of a message by itself, and one reason for each rule that applied; the first is the category's
        default.
        """
        start = CATEGORIES[situation.category].priority
        return self._moved(start, self._applying(situation), situation)

    def raise_further(
        self,
        situation: Situation,
        *,
        same_matter: bool,
        before: Priority,
        base: Priority | None,
        applied: frozenset[str],
    ) -> tuple[Priority, tuple[Reason, ...]]:
        """The priority of a ticket after a further message: never lower than `before`.

        `situation` is that of the ticket with this message. A rule in `applied` has had its effect on this ticket and
        has none again. What lowered it stays, unless a message about the same matter no longer gives cause. `base` is
        what an agent set: from there only new rules raise.
        """
        now = [rule for rule in self._applying(situation) if same_matter or rule.effect != "-1"]
        new = [rule for rule in now if rule.name not in applied]
        if base is not None:
            priority, reasons = self._moved(before, [rule for rule in new if rule.effect != "-1"], situation)
            return priority.more_urgent(before), reasons
        still = [
            rule
            for rule in self._rules
            if rule.name in applied and (rule.effect != "-1" or not same_matter or rule in now)
        ]
        priority, reasons = self._moved(CATEGORIES[situation.category].priority, [*still, *new], situation)
        return priority.more_urgent(before), reasons

    def _applying(self, situation: Situation) -> list[_Rule]:
        own = self._brands.get(situation.brand or "", _NO_BRAND)
        applying = []
        for rule in self._rules:
            for when, found in rule.whens:
                # Concepts first: of most rules a message holds none.
                if (found is None or found.holds(situation.concepts)) and self._holds(when, situation, own):
                    if rule.name not in own.off:
                        applying.append(rule)
                    break
        return applying

    def _moved(
        self, start: Priority, applied: Sequence[_Rule], situation: Situation
    ) -> tuple[Priority, tuple[Reason, ...]]:
        reasons = [Reason(rule="start", effect=start.value, detail=situation.category.value)]
        steps = sum(_STEPS.get(rule.effect, 0) for rule in applied)
        raised_otherwise = any(rule.policy.alone and rule.effect != "-1" for rule in applied)
        for rule in applied:
            effect = rule.effect
            reaches_p1 = start is not Priority.P1 and start.raised(steps) is Priority.P1
            if not rule.policy.alone and not raised_otherwise and reaches_p1:
                effect, steps = "+0", steps - _STEPS[rule.effect]
            reasons.append(Reason(rule=rule.name, effect=effect, detail=_detail(rule, situation)))
        priority = start.raised(steps)
        for rule in applied:
            if rule.effect.startswith("="):
                priority = priority.more_urgent(Priority(rule.effect[1:]))
        return priority, tuple(reasons)

    def _holds(self, when: When, situation: Situation, own: BrandPolicy) -> bool:
        """What of `when` is not concepts."""
        default = CATEGORIES[situation.category].priority
        return (
            (not when.categories or situation.category in when.categories)
            and (not when.channels or situation.channel in when.channels)
            and when.vip in (None, situation.vip)
            and when.question_only in (None, situation.question_only)
            and (when.default_at_least is None or default <= when.default_at_least)
            and situation.contacts >= (when.contacts_from or 0)
            and (when.amount_from is None or self._reaches(when.amount_from, situation, own) is True)
            and (when.amount_below is None or self._reaches(when.amount_below, situation, own) is False)
            and (when.within_hours is None or _within(when.within_hours, situation))
        )

    def _reaches(self, name: str, situation: Situation, own: BrandPolicy) -> bool | None:
        """Whether the amount at stake reaches the named one; None when that cannot be told.

        Where no currency was told, "5k" is much if it is so in every currency that has an amount of its own, and
        nothing is called a trifle.
        """
        if situation.amount is None:
            return None
        amounts = {**self._policy.amounts[name], **own.amounts.get(name, {})}
        if situation.currency is None:
            return situation.amount >= max(amounts.values()) or None
        if situation.currency in amounts:
            return situation.amount >= amounts[situation.currency]
        worth = self._policy.cny_worth.get(situation.currency)
        return None if worth is None else situation.amount * worth >= amounts["CNY"]


def _within(hours: float, situation: Situation) -> bool:
    """Not known to be older: where nothing is said of the time, it counts as now."""
    if situation.happened_at is None or situation.sent_at is None:
        return True
    return situation.sent_at - situation.happened_at <= timedelta(hours=hours)


def _detail(rule: _Rule, situation: Situation) -> str:
    of_amount = any(when.amount_from or when.amount_below for when, _ in rule.whens)
    if of_amount and situation.amount is not None:
        return f"{rule.policy.detail}: {situation.amount} {situation.currency or ''}".rstrip()
    return rule.policy.detail
