"""Brands' files: what is read, and how what is wrong is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.intake.brands import load_adapters
from services.notifier.config import load_outputs
from services.sla_timer.config import PolicyFiles, load_policies
from shared.brands import BRANDS_DIRECTORY, load_brands
from shared.events import Target
from shared.taxonomy import Channel, Priority, Queue
from shared.yaml_files import ConfigError, filled
from tests.support.brands import write_brand
from tests.unit.notifier.examples import CONFIG_FILE, ENVIRONMENT


def test_the_six_brands_can_be_read() -> None:
    brands = load_brands(BRANDS_DIRECTORY)
    assert set(brands) == {"upay_wallet", "u_wallet", "upay", "u_wallet_app", "topay", "tp_wallet"}
    assert all({Channel.EMAIL, Channel.PHONE} <= set(brand.channels) for brand in brands.values())


def test_a_file_is_read_by_section(tmp_path: Path) -> None:
    adapter = {"provider": "telegram", "bot_token": "${SOME_TOKEN}"}
    channels = {"telegram": {"hours": "always", "adapter": adapter}, "x": {"hours": "office"}}
    brand = load_brands(write_brand(tmp_path, channels=channels, leads={"default": ["a"], "security": ["b"]}))[
        "some_brand"
    ]
    assert brand.channels[Channel.TELEGRAM].adapter == adapter
    assert (brand.channels[Channel.X].hours, brand.channels[Channel.X].adapter) == ("office", None)
    assert brand.leads[Queue.SECURITY] == ("b",)
    assert (dict(brand.promises), dict(brand.heads), dict(brand.texts)) == ({}, {}, {})


@pytest.mark.parametrize(
    ("changes", "field", "what"),
    [
        ({"brand": "other"}, "brand", "must be some_brand"),
        ({"brand": "Some"}, "brand", "should match"),
        ({"colour": "red"}, "colour", "Extra inputs"),
        ({"channels": {}}, "channels", "at least 1"),
        ({"channels": {"pigeon": {"hours": "always"}}}, "channels.pigeon", "Input should be"),
        ({"channels": {"x": {}}}, "channels.x.hours", "required"),
        ({"channels": {"x": {"hours": "always", "adapter": {"token": "t0p"}}}}, "channels.x.adapter", "`provider`"),
        ({"channels": {"x": {"hours": "always", "keys": [{}]}}}, "channels.x.keys.0", "give either"),
        ({"channels": {"x": {"hours": "always", "keys": [{"key_env": "a-b"}]}}}, "channels.x.keys.0.key_env", "match"),
        ({"channels": {"x": {"hours": "always", "keys": [{"key_sha256": "t0p"}]}}}, "keys.0.key_sha256", "match"),
        ({"gateways": {"x": "other_brands"}}, "gateways", "needs a `default`"),
        ({"leads": {"default": ["a"], "lost": ["b"]}}, "leads.lost", "Input should be"),
    ],
)
def test_what_is_wrong_is_told_with_file_line_and_field(
    tmp_path: Path, changes: dict[str, Any], field: str, what: str
) -> None:
    path = write_brand(tmp_path, **changes) / "some_brand.yaml"
    with pytest.raises(ConfigError) as raised:
        load_brands(tmp_path)
    told = str(raised.value)
    assert told.startswith(f"{path}:")
    assert f"{field}" in told
    assert what in told
    assert "t0p" not in told  # it may be a secret


def test_the_faults_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    write_brand(tmp_path, "one", colour="red")
    write_brand(tmp_path, "two")
    write_brand(tmp_path, "three", channels={})
    with pytest.raises(ConfigError) as raised:
        load_brands(tmp_path)
    assert [line.partition(".yaml:")[0].rpartition("/")[2] for line in str(raised.value).splitlines()] == [
        "one",
        "three",
    ]


@pytest.mark.parametrize("directory", [".", "nowhere"])
def test_no_brand_at_all_is_an_error(tmp_path: Path, directory: str) -> None:
    """A configuration that was mounted at the wrong place, most likely."""
    with pytest.raises(ConfigError, match="there is no brand's file"):
        load_brands(tmp_path / directory)


def test_the_documented_example_can_be_used(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "brands.md").read_text(encoding="utf-8")
    example = page.split("```yaml\n", 1)[1].split("```", 1)[0]
    (tmp_path / "my_brand.yaml").write_text(example, encoding="utf-8")
    calendars = tmp_path / "calendars.yml"
    calendars.write_text(
        "calendars:\n"
        + "".join(f"  {name}: {{zone: UTC, week: 24/7}}\n" for name in ("always", "my_brand_hotline", "china_office")),
        encoding="utf-8",
    )
    sla = tmp_path / "sla.yml"
    sla.write_text(
        'rules: {default: {calendar: always, targets: {"*": {first_response: 1h, next_response: 1h, resolution: 1d}}}}',
        encoding="utf-8",
    )
    policies = load_policies(PolicyFiles(sla, calendars, tmp_path))
    terms = policies.terms("my_brand", Channel.PHONE, None, Priority.P1, Target.FIRST_RESPONSE)
    assert terms is not None
    assert (terms.policy, terms.calendar, terms.target_seconds) == ("my_brand_hotline/*", "my_brand_hotline", 600)
    adapters = load_adapters(tmp_path, {"MY_BRAND_APP_CHAT_TOKEN_SECRET": "s" * 32})
    assert set(adapters.by_channel) == {("my_brand", Channel.APP_CHAT), ("my_brand", Channel.EMAIL)}
    outputs = load_outputs(CONFIG_FILE, tmp_path, ENVIRONMENT)
    assert outputs.brand("my_brand").name.en == "My Wallet"


# --- references to the environment -----------------------------------------------------------------------------------


def test_references_are_filled_and_those_that_must_be_set_are_told() -> None:
    section = {
        "token": "${TOKEN}",
        "url": "https://${HOST:-host.example}/${PATH_PART}",
        "old": "${OLD:-}",
        "more": ["${OLD:-}", "${TOKEN}"],
        "port": 25,
        "empty": "",
    }
    assert filled(section, {"TOKEN": "t", "PATH_PART": "p", "OLD": ""}) == (
        {"token": "t", "url": "https://host.example/p", "more": ["t"], "port": 25, "empty": ""},
        (),
    )
    assert filled(section, {"TOKEN": ""})[1] == ("TOKEN", "PATH_PART")


def test_what_is_no_reference_stays() -> None:
    assert filled({"a": "$HOME {b} ${lower}"}, {"HOME": "x"}) == ({"a": "$HOME {b} ${lower}"}, ())
