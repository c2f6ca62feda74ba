from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.intake.keys import load_keys
from shared.brands import BRANDS_DIRECTORY
from shared.http import token_hash
from shared.taxonomy import Channel
from shared.yaml_files import ConfigError
from tests.support.brands import write_brand

KEY, OTHER = "k" * 24, "o" * 24


def channels(**keys: list[dict[str, str]]) -> dict[str, Any]:
    return {name: {"hours": "always", "keys": found} for name, found in keys.items()}


def test_a_key_allows_the_channels_it_stands_at_and_no_other(tmp_path: Path) -> None:
    by_hash = {"key_sha256": token_hash(KEY)}
    write_brand(tmp_path, "upay", channels=channels(app_chat=[by_hash, {"key_env": "OTHER"}], email=[by_hash]))
    write_brand(tmp_path, "topay", channels=channels(email=[{"key_env": "OTHER"}], x=[{"key_env": "UNSET"}], phone=[]))
    keys = load_keys(tmp_path, {"OTHER": OTHER})
    sender, other = keys.sender_of(KEY), keys.sender_of(OTHER)
    assert sender is not None
    assert other is not None
    assert sender.allowed == {("upay", Channel.APP_CHAT), ("upay", Channel.EMAIL)}
    assert other.allowed == {("upay", Channel.APP_CHAT), ("topay", Channel.EMAIL)}
    assert not sender.may_send("topay", Channel.EMAIL)
    assert sender.name != other.name
    assert KEY not in repr(sender)
    assert keys.sender_of("x" * 24) is None
    assert keys.sender_of("") is None
    assert len(keys) == 2


def test_a_short_key_is_refused_and_its_place_named(tmp_path: Path) -> None:
    write_brand(tmp_path, channels=channels(x=[{"key_env": "SHORT"}]))
    with pytest.raises(
        ConfigError, match=r"some_brand\.yaml:\d+: channels\.x\.keys: the key in SHORT is too short"
    ) as raised:
        load_keys(tmp_path, {"SHORT": "s3cret"})
    assert "s3cret" not in str(raised.value)


def test_the_files_of_the_repository_can_be_read_and_hold_no_key() -> None:
    assert len(load_keys(BRANDS_DIRECTORY, {})) == 0
