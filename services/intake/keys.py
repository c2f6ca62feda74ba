"""Who may send messages over HTTP: API keys per brand and channel, from a YAML file without secrets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from shared.events.base import BrandCode
from shared.http import same_secret, token_hash
from shared.taxonomy import Channel
from shared.yaml_files import ConfigError, load_yaml

MIN_KEY_CHARACTERS: Final = 20
"""Keys are hashed without salt or stretching, which is sound only for random ones that nobody can guess through."""


class KeyReference(BaseModel):
    """Where a key is: its SHA-256, or the environment variable that holds it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    key_env: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]*$")] | None = None

    @model_validator(mode="after")
    def _is_one_of_the_two(self) -> Self:
        if (self.key_sha256 is None) == (self.key_env is None):
            raise ValueError("give either `key_sha256` or `key_env`")
        return self


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    # Several keys for one channel: the old and the new one while a key is changed.
    brands: Annotated[dict[BrandCode, dict[Channel, tuple[KeyReference, ...]]], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Sender:
    """The holder of a key: a name for limits and logs that tells nothing of the key, and what he may send."""

    name: str
    allowed: frozenset[tuple[str, Channel]]

    def may_send(self, brand: str, channel: Channel) -> bool:
        return (brand, channel) in self.allowed


class KeyRing:
    """All keys. One key may stand at several channels: then it allows all of them."""

    def __init__(self, allowed_by_hash: Mapping[str, frozenset[tuple[str, Channel]]]) -> None:
        self._senders = {
            key_hash: Sender(f"key {key_hash[:8]}", allowed) for key_hash, allowed in allowed_by_hash.items()
        }

    def __len__(self) -> int:
        return len(self._senders)

    def sender_of(self, key: str) -> Sender | None:
        """Who holds `key`. Compares with every hash in constant time, so that the answer's delay tells nothing."""
        presented = token_hash(key)
        found = None
        for key_hash, sender in self._senders.items():
            if same_secret(presented, key_hash):
                found = sender
        return found


def load_keys(path: Path, environment: Mapping[str, str]) -> KeyRing:
    """The keys of a channels file. A channel whose variable is not set has no key. Raises ConfigError."""
    content = load_yaml(path, _File)
    allowed: defaultdict[str, set[tuple[str, Channel]]] = defaultdict(set)
    for brand, channels in content.brands.items():
        for channel, references in channels.items():
            for reference in references:
                key_hash = reference.key_sha256 or _hash_in(environment, reference.key_env, path)
                if key_hash:
                    allowed[key_hash].add((brand, channel))
    return KeyRing({key_hash: frozenset(pairs) for key_hash, pairs in allowed.items()})


def _hash_in(environment: Mapping[str, str], name: str | None, path: Path) -> str | None:
    key = environment.get(name or "", "").strip()
    if not key:
        return None
    if len(key) < MIN_KEY_CHARACTERS:
        raise ConfigError(
            f"{path}: the key in {name} is too short; use a random one of {MIN_KEY_CHARACTERS} characters or more, "
            "e.g. from `openssl rand -hex 24`"
        )
    return token_hash(key)
