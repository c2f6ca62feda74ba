"""Who may do what, and which agents file is refused with which words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.desk.agents import Role, load_agents
from services.desk.settings import Settings
from shared.http import token_hash
from shared.taxonomy import Queue
from shared.yaml_files import ConfigError

TOKEN = "mei-token-that-is-long-and-random"
OTHER = "tom-token-that-is-long-and-random"


def written(directory: Path, text: str) -> Path:
    path = directory / "agents.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def entry(
    name: str, *, token: str, role: str = "agent", queues: str = "all", brands: str = "all", more: str = ""
) -> str:
    return f"  - {{id: {name}, role: {role}, {token}, queues: {queues}, brands: {brands}{more}}}\n"


def test_a_token_says_who_asks_and_what_they_may_see(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "agents:\n"
        + entry("mei", token=f"token_sha256: {token_hash(TOKEN)}", queues="[payments, refunds]", brands="[upay]")
        + entry("boss", token="token_env: BOSS", role="lead", more=", group: leads")
        + entry("wall", token="token_env: WALL", role="viewer"),
    )
    directory = load_agents(path, {"BOSS": OTHER})
    mei, boss = directory.authenticate(TOKEN), directory.authenticate(OTHER)
    assert mei is not None
    assert boss is not None
    assert (mei.id, boss.role, boss.is_lead, mei.is_lead) == ("mei", Role.LEAD, True, False)
    assert [mei.may_see_queue(queue) for queue in (Queue.PAYMENTS, Queue.SECURITY, None)] == [True, False, False]
    assert [mei.may_see_brand(brand) for brand in ("upay", "topay", None)] == [True, False, False]
    assert boss.may_see_queue(None)
    assert boss.may_see_brand(None)
    assert (boss.group, mei.group) == ("leads", None)
    assert directory.authenticate("") is None
    assert directory.authenticate(TOKEN[:-1]) is None
    assert directory.authenticate(token_hash(TOKEN)) is None  # the hash in the file opens nothing
    assert [agent.id for agent in directory.without_token] == ["wall"]
    assert not directory.without_token[0].may_act


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("agents: [", "not valid YAML"),
        ("people: []", "agents: Field required"),
        ("agents:\n" + entry("mei", token="role: lead"), "either `token_sha256` or `token_env`"),
        ("agents:\n" + entry("mei", token="token_sha256: abc"), "agents.0.token_sha256"),
        ("agents:\n" + entry("mei", token="token_env: T", queues="[nonsense]"), "agents.0.queues"),
        ("agents:\n" + entry("mei", token="token: secret, token_env: T"), "agents.0.token: Extra inputs"),
        ("agents:\n" + entry("mei", token="token_env: T", more=', group: ""'), "agents.0.group"),
        ("agents:\n" + 2 * entry("mei", token="token_env: U"), "two agents have id mei"),
        ("agents:\n" + entry("a", token="token_env: T") + entry("b", token="token_env: T"), "the same token"),
        ("agents:\n" + entry("mei", token="token_env: SHORT"), "agent mei: the token in SHORT has 5 characters"),
    ],
)
def test_a_wrong_file_is_refused_with_what_to_change(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_agents(written(tmp_path, text), {"T": TOKEN, "SHORT": "12345"})
    assert words in str(refused.value)
    assert "agents.yaml" in str(refused.value)
    assert TOKEN not in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such file"):
        load_agents(tmp_path / "nowhere.yaml", {})


def test_the_file_of_the_repository_is_valid_and_lets_nobody_in_by_itself() -> None:
    directory = load_agents(Settings().desk_agents_file, {})
    assert {agent.role for agent in directory.agents} == set(Role)
    assert directory.without_token == directory.agents


def test_the_service_says_what_is_wrong_with_the_file_and_no_more(tmp_path: Path) -> None:
    file = tmp_path / "agents.yaml"
    file.write_text("agents: [{id: li}]")
    started = subprocess.run(
        [sys.executable, "-m", "services.desk"],
        env={**os.environ, "DESK_AGENTS_FILE": str(file)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert started.returncode == 2
    assert started.stderr == f"desk cannot start:\n{file}: agents.0.role: Field required; see docs/agents.md\n"
