"""Reads the cases of tests/channels; README.md beside this file documents their format."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import parse_qsl

import yaml
from pydantic import AwareDatetime, BaseModel, ConfigDict, model_validator

from services.intake.channels.base import ChannelRequest

DIRECTORY = Path(__file__).parent


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Request(_Strict):
    method: str = "POST"
    query: str = ""
    headers: dict[str, str] = {}
    body: str | None = None
    body_base64: str | None = None
    received_at: AwareDatetime
    url: str = ""
    client: str = ""

    def built(self) -> ChannelRequest:
        query: dict[str, str] = {}
        for name, value in parse_qsl(self.query, keep_blank_values=True):
            query.setdefault(name, value)
        raw = base64.b64decode(self.body_base64) if self.body_base64 is not None else (self.body or "").encode()
        return ChannelRequest(
            method=self.method,
            query=query,
            headers={name.lower(): value for name, value in self.headers.items()},
            body=raw,
            received_at=datetime.fromisoformat(self.received_at.isoformat()),
            url=self.url,
            client=self.client,
        )


class Refusal(_Strict):
    status: int
    reason: str


class Expected(_Strict):
    status: int = 200
    body: str | None = None
    messages: tuple[dict[str, Any], ...] = ()
    ignored: tuple[str, ...] = ()
    refused: Refusal | None = None

    @model_validator(mode="after")
    def _refuses_or_answers(self) -> Self:
        if self.refused and self.model_fields_set != {"refused"}:
            raise ValueError("what is refused has no messages and no other answer")
        return self


class Case(_Strict):
    about: str
    source: Literal["documented", "guess"]
    note: str | None = None
    request: Request
    expect: Expected

    @model_validator(mode="after")
    def _says_what_is_guessed(self) -> Self:
        if self.source == "guess" and not self.note:
            raise ValueError("a guess needs a `note` that says what is guessed")
        return self


@dataclass(frozen=True)
class Named:
    provider: str
    name: str
    case: Case


def load(provider: str) -> list[Named]:
    paths = sorted(path for path in (DIRECTORY / provider).glob("*.yaml") if path.name != "config.yaml")
    return [
        Named(provider, path.stem, Case.model_validate(yaml.safe_load(path.read_text(encoding="utf-8"))))
        for path in paths
    ]


def config(provider: str) -> dict[str, Any]:
    """What a brand's file would say, with the made-up secrets in place of references."""
    content = yaml.safe_load((DIRECTORY / provider / "config.yaml").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def contains(whole: Any, part: Any) -> bool:
    """Whether everything that `part` says stands in `whole`."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(name in whole and contains(whole[name], part[name]) for name in part)
    if isinstance(part, list):
        return (
            isinstance(whole, list)
            and len(whole) == len(part)
            and all(contains(one, other) for one, other in zip(whole, part, strict=True))
        )
    return bool(whole == part)
