"""Who may send messages over HTTP: API keys per brand and channel, from the brands' files, which hold no secret."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared.brands import load_brands
from shared.http import same_secret, token_hash
from shared.taxonomy import Channel
from shared.yaml_files import ConfigError, line_in

MIN_KEY_CHARACTERS: Final = 20
"""Keys are hashed without salt or stretching, which is sound only for random ones that nobody can guess through."""


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


def load_keys(directory: Path, environment: Mapping[str, str]) -> KeyRing:
    """The keys in the brands' files. A channel whose variable is not set has no key. Raises ConfigError."""
    allowed: defaultdict[str, set[tuple[str, Channel]]] = defaultdict(set)
    for code, brand in load_brands(directory).items():
        for channel, section in brand.channels.items():
            for reference in section.keys:
                where = (directory / f"{code}.yaml", f"channels.{channel}.keys")
                key_hash = reference.key_sha256 or _hash_in(environment, reference.key_env, *where)
                if key_hash:
                    allowed[key_hash].add((code, channel))
    return KeyRing({key_hash: frozenset(pairs) for key_hash, pairs in allowed.items()})


def _hash_in(environment: Mapping[str, str], name: str | None, path: Path, field: str) -> str | None:
    key = environment.get(name or "", "").strip()
    if not key:
        return None
    if len(key) < MIN_KEY_CHARACTERS:
        raise ConfigError(
            f"{path}:{line_in(path, field)}: {field}: the key in {name} is too short; use a random one of "
            f"{MIN_KEY_CHARACTERS} characters or more, e.g. from `openssl rand -hex 24`"
        )
    return token_hash(key)
