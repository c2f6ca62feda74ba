"""What Switchyard itself says, per language: acknowledgements, subjects, reminders to leads, calls to heads."""

from __future__ import annotations

import string
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from shared.events import EscalationLevel, Target
from shared.taxonomy import CATEGORIES, Category, Fact, Language

STEPS_PER_POINT: Final = 2
"""Self-help steps under each point when a customer raised several: the answer to each stays readable on a phone."""

_ACKNOWLEDGEMENT_FIELDS: Final = frozenset({"brand", "reference"})
_FIELDS: Final = frozenset(
    {"brand", "reference", "queue", "priority", "target", "due", "left", "late", "level", "count"}
)
_HOUR_SECONDS: Final = 3600
_MINUTE_SECONDS: Final = 60


def _known_fields(template: str, known: frozenset[str] = _FIELDS) -> str:
    for _, name, _, _ in string.Formatter().parse(template):
        if name is not None and name not in known:
            raise ValueError(f"unknown placeholder {{{name}}}; known are {', '.join(sorted(known))}")
    return template


Template = Annotated[str, Field(min_length=1), AfterValidator(_known_fields)]
Opening = Annotated[
    str,
    Field(min_length=1),
    AfterValidator(lambda template: _known_fields(template, _ACKNOWLEDGEMENT_FIELDS)),
]
Line = Annotated[str, Field(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CategoryText(_Part):
    """`next`: who takes it and what he does. `steps`: what the customer can try himself, most useful first."""

    next: Line
    steps: Annotated[tuple[Line, ...], Field(min_length=2, max_length=5)]


class UnitText(_Part):
    """`one`: how a single one is written, its number included; `many`: any other {count}."""

    one: Line
    many: Template


class UnitTexts(_Part):
    """Units of business time. No days: a working day has as many hours as its calendar says."""

    hour: UnitText
    minute: UnitText
    second: UnitText


class ReminderText(_Part):
    """Warnings by time left say how much is {left}. `late` and `stand_in` are sentences that follow an escalation."""

    no_queue: Line
    warning_subject: Template
    warning: Template
    warning_left_subject: Template
    warning_left: Template
    breach_subject: Template
    breach: Template
    late: Template
    stand_in: Template
    digest_subject: Template
    digest: Template


class EscalationText(_Part):
    """`name`: what somebody on this level is called."""

    name: Line
    subject: Template
    text: Template


class TextBook(_Part):
    """All texts of one language; every category, fact, target and level of escalation must be there."""

    acknowledgement_subject: Template
    reply_subject: Template
    received: Opening
    points: Line
    steps: Line
    questions: Line
    safety: Line
    freeze: Line
    closing: Line
    signature: Line | None = None
    categories: Mapping[Category, CategoryText]
    facts: Mapping[Fact, Line]
    targets: Mapping[Target, Line]
    units: UnitTexts
    reminders: ReminderText
    escalations: Mapping[EscalationLevel, EscalationText]

    @field_validator("categories", "facts", "targets", "escalations")
    @classmethod
    def _complete(cls, entries: Mapping[Any, Any], info: Any) -> Mapping[Any, Any]:
        members = {"categories": Category, "facts": Fact, "targets": Target, "escalations": EscalationLevel}
        wanted: Iterable[Any] = members[info.field_name]
        if absent := [member.value for member in wanted if member not in entries]:
            raise ValueError(f"no text for {', '.join(absent)}")
        return entries


class OwnCategoryText(_Part):
    next: Line | None = None
    steps: Annotated[tuple[Line, ...], Field(min_length=2, max_length=5)] | None = None


class OwnTexts(_Part):
    """What a brand says in its own words in its acknowledgements, in one language; the rest is as at every brand.

    The questions for missing facts and the warnings about secrets are everybody's: no brand can leave them out.
    """

    received: Opening | None = None
    closing: Line | None = None
    signature: Line | None = None
    categories: Mapping[Category, OwnCategoryText] = Field(default_factory=dict)


class Texts(_Part):
    zh: TextBook
    en: TextBook

    def in_words_of(self, own: Mapping[Any, OwnTexts]) -> Texts:
        """With a brand's own words, by language, in the place of everybody's."""
        return Texts(zh=_reworded(self.zh, own.get(Language.ZH)), en=_reworded(self.en, own.get(Language.EN)))

    def of(self, language: Language) -> tuple[TextBook, ...]:
        """The book of `language`; both for a language that Switchyard does not write: one of them may be understood."""
        if language is Language.OTHER:
            return (self.zh, self.en)
        return (self.zh if language is Language.ZH else self.en,)

    def name_of(self, category: Category, book: TextBook) -> str:
        return CATEGORIES[category].zh if book is self.zh else CATEGORIES[category].en


def reference_of(ticket_id: uuid.UUID) -> str:
    """What people call the ticket by: the first eight digits of its id, so that an agent can look it up by them."""
    return ticket_id.hex[:8].upper()


def duration_text(units: UnitTexts, seconds: int) -> str:
    """A length of business time as people say it, in its largest unit and the next: `1 hour 5 minutes`. What is left
    over is cut.
    """
    parts = [
        (units.hour, seconds // _HOUR_SECONDS),
        (units.minute, seconds % _HOUR_SECONDS // _MINUTE_SECONDS),
        (units.second, seconds % _MINUTE_SECONDS),
    ]
    largest = next((place for place, (_, count) in enumerate(parts) if count), len(parts) - 1)
    said = parts[largest : largest + 2] if largest + 1 < len(parts) and parts[largest + 1][1] else [parts[largest]]
    return " ".join(unit.one if count == 1 else unit.many.format(count=count) for unit, count in said)


def acknowledgement_text(
    texts: Texts,
    *,
    ticket_id: uuid.UUID,
    brand_names: Mapping[Language, str],
    language: Language,
    category: Category,
    points: Sequence[Category],
    missing: Sequence[Fact],
) -> tuple[str, str]:
    """Subject and text of an acknowledgement.

    `category` decides what happens next; `points` (primary included, distinct, in the customer's order) are listed when
    there are several, so that he sees that all were heard; `missing` are the facts to ask for.
    """
    books = texts.of(language)
    reference = reference_of(ticket_id)
    subject = " / ".join(book.acknowledgement_subject.format(reference=reference) for book in books)
    parts = []
    for book in books:
        names = Language.ZH if book is texts.zh else Language.EN
        paragraphs = [
            book.received.format(brand=brand_names[names], reference=reference)
            + (" " if names is Language.EN else "")
            + book.categories[category].next
        ]
        safety_first = Category.ACCOUNT_SECURITY in (category, *points)
        if safety_first:
            paragraphs.append(book.freeze)
        if len(points) > 1:
            paragraphs.append(_numbered_points(texts, book, points))
        else:
            paragraphs.append(_list(book.steps, book.categories[category].steps))
        if missing:
            paragraphs.append(_list(book.questions, [book.facts[fact] for fact in missing]))
        if safety_first:
            paragraphs.append(book.safety)
        paragraphs.append(book.closing)
        if book.signature:
            paragraphs.append(book.signature)
        parts.append("\n\n".join(paragraphs))
    return subject, "\n\n———\n\n".join(parts)


def _reworded(book: TextBook, own: OwnTexts | None) -> TextBook:
    if own is None:
        return book
    categories = {
        **book.categories,
        **{each: book.categories[each].model_copy(update=_said(words)) for each, words in own.categories.items()},
    }
    return book.model_copy(update=_said(own) | {"categories": categories})


def _said(part: _Part) -> dict[str, Any]:
    return {name: value for name in part.model_fields_set if (value := getattr(part, name)) is not None}


def _list(heading: str, lines: Iterable[str]) -> str:
    return "\n".join((heading, *(f"- {line}" for line in lines)))


def _numbered_points(texts: Texts, book: TextBook, points: Sequence[Category]) -> str:
    lines = [book.points]
    for number, category in enumerate(points, start=1):
        lines.append(f"{number}. {texts.name_of(category, book)}")
        lines.extend(f"   - {step}" for step in book.categories[category].steps[:STEPS_PER_POINT])
    return "\n".join(lines)
