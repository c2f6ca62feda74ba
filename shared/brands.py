"""One file per brand: the whole truth about it, of which each service reads the part that it needs. docs/brands.md.

A service that knows more of its part than its shape (the sla_timer of promises, the notifier of texts, the classifier
of priorities) reads the files into a subclass of `BrandFile` that says so; what is wrong there stops this service only.
References to the environment (`${NAME}`) stand in `adapter` alone; see `shared.yaml_files.filled`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeVar, overload

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from shared.events.base import BrandCode
from shared.taxonomy import Channel, Language, Queue
from shared.yaml_files import ConfigError, line_in, load_yaml

BRANDS_DIRECTORY: Final = Path(__file__).parents[1] / "deploy" / "config" / "brands"

DEFAULT: Final = "default"

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,59}$")]


class BrandPart(BaseModel):
    """A part of a brand's file. Values are not told in errors: they may be secrets."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class BrandName(BrandPart):
    zh: Annotated[str, Field(min_length=1, max_length=80)]
    en: Annotated[str, Field(min_length=1, max_length=80)]

    @property
    def by_language(self) -> Mapping[Language, str]:
        return {Language.ZH: self.zh, Language.EN: self.en}


class KeyReference(BrandPart):
    """Where a key is: its SHA-256, or the environment variable that holds it."""

    key_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    key_env: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]*$")] | None = None

    @model_validator(mode="after")
    def _is_one_of_the_two(self) -> Self:
        if (self.key_sha256 is None) == (self.key_env is None):
            raise ValueError("give either `key_sha256` or `key_env`")
        return self


def _names_a_provider(adapter: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(adapter.get("provider"), str):
        raise ValueError("`provider` is missing: the name of an adapter")
    return adapter


class BrandChannel(BrandPart):
    """`hours`: the calendar by which the brand works on this channel. `keys`: who may send its messages over HTTP;
    several while a key is changed. `adapter`: the provider's name and the fields of its configuration.
    """

    hours: Name
    keys: tuple[KeyReference, ...] = ()
    adapter: Annotated[Mapping[str, Any], AfterValidator(_names_a_provider)] | None = None


PeopleByQueue = Mapping[Queue | Literal["default"], tuple[Name, ...]]


class BrandReach(BrandPart):
    """How a brand's customers are answered, and who is told when they are not.

    `gateways` are looked up by channel, people by queue; what they do not name goes to their `default`.
    """

    name: BrandName
    mail_from: str
    gateways: Mapping[Channel | Literal["default"], Name]
    leads: PeopleByQueue
    heads: PeopleByQueue = Field(default_factory=dict)
    on_call: PeopleByQueue = Field(default_factory=dict)
    texts: Mapping[Literal[Language.ZH, Language.EN], Any] = Field(default_factory=dict)

    @field_validator("gateways", "leads", "heads", "on_call")
    @classmethod
    def _has_a_default(cls, entries: Mapping[str, Any]) -> Mapping[str, Any]:
        if DEFAULT not in entries:
            raise ValueError("needs a `default`")
        return entries


class BrandFile(BrandReach):
    """`promises`, `peaks`, `priorities` and `texts` are what it has of its own; the rest is as for every brand."""

    brand: BrandCode
    channels: Annotated[Mapping[Channel, BrandChannel], Field(min_length=1)]
    promises: Mapping[Name, Any] = Field(default_factory=dict)
    peaks: Any = None
    priorities: Any = None


B = TypeVar("B", bound=BrandFile)


@overload
def load_brands(directory: Path) -> Mapping[str, BrandFile]: ...
@overload
def load_brands(directory: Path, model: type[B]) -> Mapping[str, B]: ...
def load_brands(directory: Path, model: type[BrandFile] = BrandFile) -> Mapping[str, BrandFile]:
    """The brands of the `.yaml` files in `directory`, by code, each named as its file.

    Raises ConfigError, with every fault of every file: file, line and field.
    """
    paths = brand_paths(directory)
    if not paths:
        raise ConfigError(f"{directory}: there is no brand's file, e.g. my_brand.yaml")
    brands, faults = {}, []
    for path in paths:
        try:
            brand = load_yaml(path, model)
        except ConfigError as error:
            faults.append(str(error))
            continue
        if brand.brand != path.stem:
            faults.append(f"{path}:{line_in(path, 'brand')}: brand: must be {path.stem}, as its file is named")
        brands[brand.brand] = brand
    if faults:
        raise ConfigError("\n".join(faults))
    return brands


def brand_paths(directory: Path) -> list[Path]:
    """The brands' files, sorted."""
    return sorted(directory.glob("*.yaml"))
