"""Who may do what: agents, leads and viewers with their tokens, queues and brands, from a YAML file without secrets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from shared.events.base import BrandCode, Identifier
from shared.http import same_secret, token_hash
from shared.taxonomy import Queue
from shared.yaml_files import ConfigError

MIN_TOKEN_CHARACTERS: Final = 20
"""Tokens are hashed without salt or stretching, which is sound only for random ones that nobody can guess through."""


class Role(StrEnum):
    AGENT = "agent"  # works on what he has claimed
    LEAD = "lead"  # may also act on what others hold, and move waiting tickets
    VIEWER = "viewer"  # looks, and changes nothing


class Agent(BaseModel):
    """One person (or tool) that may use the desk."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Identifier
    name: str = ""
    role: Role
    group: Identifier | None = Field(default=None, description="the team that reports count their work under")
    token_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    token_env: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]*$")] | None = Field(
        default=None, description="name of the environment variable that holds the token"
    )
    queues: Literal["all"] | frozenset[Queue]
    brands: Literal["all"] | frozenset[BrandCode]

    @model_validator(mode="after")
    def _has_one_token(self) -> Self:
        if (self.token_sha256 is None) == (self.token_env is None):
            raise ValueError("give either `token_sha256` or `token_env`")
        return self

    @property
    def is_lead(self) -> bool:
        return self.role is Role.LEAD

    @property
    def may_act(self) -> bool:
        return self.role is not Role.VIEWER

    def may_see_queue(self, queue: Queue | None) -> bool:
        """A ticket that has no queue yet is shown to those who see all."""
        return self.queues == "all" or queue in self.queues

    def may_see_brand(self, brand: str | None) -> bool:
        return self.brands == "all" or brand in self.brands


@dataclass(frozen=True, slots=True)
class Directory:
    """All who may use the desk."""

    agents: tuple[Agent, ...]
    _hashes: tuple[str, ...]
    """SHA-256 of each one's token, in the order of `agents`; empty for one whose environment variable is not set."""

    def authenticate(self, token: str) -> Agent | None:
        """Who holds `token`. Compares with every hash in constant time, so that the answer's delay tells nothing."""
        presented = token_hash(token)
        found: Agent | None = None
        for agent, known in zip(self.agents, self._hashes, strict=True):
            if same_secret(presented, known):
                found = agent
        return found

    @property
    def without_token(self) -> tuple[Agent, ...]:
        """Those who cannot sign in because their environment variable is not set."""
        return tuple(agent for agent, known in zip(self.agents, self._hashes, strict=True) if not known)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    agents: tuple[Agent, ...]


def load_agents(path: Path, environment: Mapping[str, str]) -> Directory:
    """The directory in the YAML file at `path`, with tokens out of `environment` where it refers to them.

    Raises ConfigError if the file is missing or wrong, two entries share an id or a token, or a token is too short.
    """
    try:
        file = _File.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; say where it is with DESK_AGENTS_FILE") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise ConfigError(f"{path}: {where}: {first['msg']}; see docs/agents.md") from error
    hashes = tuple(_hash(path, agent, environment) for agent in file.agents)
    _refuse_doubles(path, [agent.id for agent in file.agents], "id")
    _refuse_doubles(path, [known for known in hashes if known], "token")
    return Directory(file.agents, hashes)


def _hash(path: Path, agent: Agent, environment: Mapping[str, str]) -> str:
    if agent.token_sha256 is not None:
        return agent.token_sha256
    assert agent.token_env is not None
    token = environment.get(agent.token_env, "")
    if not token:
        return ""
    if len(token) < MIN_TOKEN_CHARACTERS:
        raise ConfigError(
            f"{path}: agent {agent.id}: the token in {agent.token_env} has {len(token)} characters; use a random one "
            f"of at least {MIN_TOKEN_CHARACTERS} (`python -m services.desk token` makes one)"
        )
    return token_hash(token)


def _refuse_doubles(path: Path, values: list[str], what: str) -> None:
    if len(set(values)) != len(values):
        double = next(value for value in values if values.count(value) > 1)
        named = f"{what} {double}" if what == "id" else f"the same {what}"
        raise ConfigError(f"{path}: two agents have {named}; every agent needs their own")
