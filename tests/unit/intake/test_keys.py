from __future__ import annotations

from pathlib import Path

import pytest

from services.intake.keys import load_keys
from services.intake.settings import Settings
from shared.http import token_hash
from shared.taxonomy import Channel
from shared.yaml_files import ConfigError

KEY, OTHER = "k" * 24, "o" * 24


def write(path: Path, content: str) -> Path:
    file = path / "channels.yaml"
    file.write_text(content, encoding="utf-8")
    return file


def test_a_key_allows_the_channels_it_stands_at_and_no_other(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        f"""
        brands:
          upay:
            app_chat: [{{key_sha256: {token_hash(KEY)}}}, {{key_env: OTHER}}]
            email: [{{key_sha256: {token_hash(KEY)}}}]
          topay:
            email: [{{key_env: OTHER}}]
            x: [{{key_env: UNSET}}]
        """,
    )
    keys = load_keys(file, {"OTHER": OTHER})
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


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("brands: {}", "brands"),
        ("brands: {UPay: {x: [{key_env: A}]}}", "UPay"),
        ("brands: {upay: {pigeon: [{key_env: A}]}}", "pigeon"),
        ("brands: {upay: {x: [{key_env: a-b}]}}", "key_env"),
        ("brands: {upay: {x: [{key_sha256: abc}]}}", "key_sha256"),
        ("brands: {upay: {x: [{}]}}", "give either"),
        ("brands: {upay: {x: [{key_env: SHORT}]}}", "SHORT is too short"),
        ("brands: [", "not valid YAML"),
    ],
)
def test_a_wrong_file_is_refused_and_the_entry_named(tmp_path: Path, content: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load_keys(write(tmp_path, content), {"SHORT": "s3cret"})


def test_the_file_of_the_repository_can_be_read_and_holds_no_key() -> None:
    assert len(load_keys(Settings().intake_channels_file, {})) == 0
