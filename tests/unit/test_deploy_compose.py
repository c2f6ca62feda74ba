"""docker-compose.yml and what it mounts: the specification's own schema, and what an operator relies on."""

from __future__ import annotations

import importlib
import itertools
import json
import re
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
import yaml

from deploy.containers import POSTGRES_IMAGE
from deploy.demo.settings import Credentials, environment
from deploy.kafka.native import kafka_version
from deploy.postgres.roles import OWNER, Roles
from deploy.processes import REPOSITORY
from shared.database import SERVICES
from shared.settings import CommonSettings

COMPOSE_TEXT: Final = (REPOSITORY / "docker-compose.yml").read_text()
COMPOSE: Final[dict[str, Any]] = yaml.safe_load(COMPOSE_TEXT)
SCHEMA: Final = json.loads((REPOSITORY / "tests/support/compose_specification/compose-spec.json").read_text())
EXAMPLE: Final = (REPOSITORY / ".env.example").read_text()

_UVICORN_GRACE_SECONDS: Final = 5
_JOBS: Final = ("roles", "migrate")
_LONG_RUNNING: Final = sorted(set(COMPOSE["services"]) - {*_JOBS})
_PASSWORDS: Final = {who: f"POSTGRES_PASSWORD_{who.upper()}" for who in Roles().all}
_PROFILES: Final = {
    "observability": {"prometheus", "alertmanager", "node-exporter", "grafana"},
    "tracing": {"jaeger"},
}
_WITHOUT_A_DEFAULT: Final = {
    name for name, value in COMPOSE["x-surroundings"].items() if value is None
}  # handed on from .env where it has them


def test_it_is_a_compose_file() -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(COMPOSE)


def test_the_schema_rejects_what_is_no_compose_file() -> None:
    wrong = {**COMPOSE, "services": {**COMPOSE["services"], "intake": {"stop_grace_periode": "45s"}}}
    with pytest.raises(jsonschema.ValidationError, match="stop_grace_periode"):
        jsonschema.Draft202012Validator(SCHEMA).validate(wrong)


def test_all_services_run_from_one_image_and_are_named_as_in_the_code() -> None:
    images = {name: service for name, service in COMPOSE["services"].items() if service["image"] == "switchyard:local"}
    assert set(images) == {*SERVICES, *_JOBS}
    for name in SERVICES:
        assert images[name]["command"] == [f"services.{name}"]
        assert images[name]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}


@pytest.mark.parametrize("name", [*SERVICES, *_JOBS])
def test_our_containers_can_do_no_more_than_they_must(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not {"privileged", "user", "cap_add", "network_mode"} & set(service)
    assert all(mount["read_only"] for mount in service.get("volumes", []))


def test_the_image_does_not_run_as_root() -> None:
    stages = _instructions()
    last_stage = stages[max(number for number, (word, _) in enumerate(stages) if word == "FROM") :]
    users = [argument for word, argument in last_stage if word == "USER"]
    assert users, "the last stage names no USER"
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1]), "a cluster can only check a number"


def test_the_image_holds_the_lock_that_the_tests_run_with() -> None:
    (install,) = [argument for word, argument in _instructions() if word == "RUN" and " install " in argument]
    assert "--require-hashes -r /requirements.lock" in " ".join(install.split())
    assert "--only-binary :all:" in install, "what is built here runs a stranger's code"


def test_the_build_sees_what_the_image_copies_and_no_more() -> None:
    """.dockerignore lets in by name, so a secret or a local run can never slip into a layer."""
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    copied = {
        source
        for word, argument in _instructions()
        if word == "COPY" and not argument.startswith("--")
        for source in argument.split()[:-1]
    }
    assert let_in == copied
    assert all((REPOSITORY / path).exists() for path in copied)


@pytest.mark.parametrize("name", _LONG_RUNNING)
def test_each_says_whether_it_is_well_and_comes_back(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["restart"] == "unless-stopped"
    if name in SERVICES:
        assert "http://127.0.0.1:8000/readyz" in service["healthcheck"]["test"][-1]
        assert service["environment"]["HTTP_PORT"] == "8000"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_may_drain_before_it_is_killed(name: str) -> None:
    service = COMPOSE["services"][name]
    drain_seconds = float(service["environment"]["DRAIN_TIMEOUT_SECONDS"])
    assert drain_seconds == CommonSettings().drain_timeout_seconds
    # Subscribers drain, open requests end, tasks and connections close.
    assert _seconds(service["stop_grace_period"]) > drain_seconds + _UVICORN_GRACE_SECONDS


def test_what_people_use_is_reachable_and_only_from_this_machine() -> None:
    published = {name: service["ports"] for name, service in COMPOSE["services"].items() if "ports" in service}
    assert set(published) == {"intake", "desk", "grafana", "jaeger"}
    for ports in published.values():
        assert all(str(port).startswith("127.0.0.1:") for port in ports)


def test_no_secret_has_a_default() -> None:
    for name, after in re.findall(r"\$\{(\w+)([^}]*)\}", COMPOSE_TEXT):
        if re.search("PASSWORD|SECRET|TOKEN", name):
            assert after in (":-", ":?see .env.example"), f"${{{name}{after}}} must be given, or be empty"
    for name in (*_PASSWORDS.values(), "POSTGRES_PASSWORD", "METRICS_TOKEN", "GRAFANA_ADMIN_PASSWORD"):
        assert f"${{{name}:?" in COMPOSE_TEXT


def test_the_example_environment_names_what_compose_asks_for_and_gives_no_secret_away() -> None:
    asked = dict(re.findall(r"\$\{(\w+):([?-])", COMPOSE_TEXT))
    asked |= dict.fromkeys(_WITHOUT_A_DEFAULT, "-")
    # Of secrets that only a profile needs: Compose asks for them when it is used.
    asked |= {
        secret["environment"]: "-" for secret in COMPOSE["secrets"].values() if secret["environment"] not in asked
    }
    named = set(re.findall(r"^(?:# )?([A-Z][A-Z0-9_]+)=", EXAMPLE, re.M))
    required = set(re.findall(r"^([A-Z][A-Z0-9_]+)=", EXAMPLE, re.M))
    assert named == set(asked)
    assert required == {name for name, sign in asked.items() if sign == "?"}
    assert not re.findall(r"^[A-Z0-9_]+=.+", EXAMPLE, re.M)
    assert re.search(r"^\.env$", (REPOSITORY / ".gitignore").read_text(), re.M)


@pytest.mark.parametrize("name", [*SERVICES, "migrate"])
def test_an_environment_name_is_a_setting_or_stands_in_a_configuration_file(name: str) -> None:
    """A misspelt name would be ignored in silence, and the default taken."""
    settings = {field.upper() for field in _settings_of(name).model_fields}
    configuration = "".join(path.read_text() for path in (REPOSITORY / "deploy" / "config").rglob("*.yaml"))
    for variable in COMPOSE["services"][name]["environment"]:
        known = variable in settings or re.search(rf"\b{variable}\b", configuration)
        assert known or variable == "FORWARDED_ALLOW_IPS", variable  # uvicorn reads that one


def test_each_has_a_role_of_its_own_in_the_database_and_nobody_elses_password() -> None:
    def url(role: str, password: str) -> str:
        return f"postgresql://{role}:${{{password}:?see .env.example}}@postgres:5432/switchyard"

    def passwords(name: str) -> set[str]:
        return set(re.findall(r"POSTGRES_PASSWORD\w*", json.dumps(COMPOSE["services"][name].get("environment", {}))))

    for who, role in Roles().all.items():
        name = "migrate" if who == OWNER else who
        assert COMPOSE["services"][name]["environment"]["DATABASE_URL"] == url(role, _PASSWORDS[who])
        assert passwords(name) == {_PASSWORDS[who]}
    roles = COMPOSE["services"]["roles"]
    assert roles["command"] == ["deploy.ops", "roles", "apply", "--yes"]
    assert roles["environment"] == {
        "DATABASE_URL": url(COMPOSE["services"]["postgres"]["environment"]["POSTGRES_USER"], "POSTGRES_PASSWORD"),
        **{password: f"${{{password}:?see .env.example}}" for password in _PASSWORDS.values()},
    }
    assert COMPOSE["services"]["migrate"]["depends_on"]["roles"] == {"condition": "service_completed_successfully"}
    others = set(COMPOSE["services"]) - {*SERVICES, *_JOBS, "postgres"}
    assert not any(passwords(name) for name in others)


def test_configuration_files_get_the_variables_they_ask_for() -> None:
    given = {name for service in SERVICES for name in COMPOSE["services"][service]["environment"]}
    (file,) = COMPOSE["services"]["intake"]["env_file"]  # holds the keys of all channels
    assert file["path"] in (REPOSITORY / ".gitignore").read_text().split()
    for path in (REPOSITORY / "deploy" / "config").rglob("*.yaml"):
        lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
        asked = set(re.findall(r"\$\{([A-Z0-9_]+)|_env:\s*([A-Z0-9_]+)", "\n".join(lines)))
        missing = {reference or variable for reference, variable in asked} - given
        if path.parent.name == "brands":
            missing = set()  # keys and secrets of channels, all in that file; an installation sets those that it has
        assert not missing, f"{path.name} asks for {sorted(missing)}, which docker-compose.yml does not hand on"


def test_versions_agree_with_what_the_tests_run_on() -> None:
    assert COMPOSE["services"]["kafka"]["image"] == f"apache/kafka:{kafka_version()}"
    assert COMPOSE["services"]["postgres"]["image"] == POSTGRES_IMAGE


def test_everything_mounted_exists() -> None:
    for name, service in COMPOSE["services"].items():
        for volume in service.get("volumes", []):
            if isinstance(volume, dict):
                assert (REPOSITORY / volume["source"]).exists(), f"{name} mounts {volume['source']}"
                assert volume["read_only"] is True
            else:
                assert volume.split(":")[0] in COMPOSE["volumes"]


def test_the_desk_can_ask_the_sla_timer_for_reports() -> None:
    sla_timer, desk = (COMPOSE["services"][name]["environment"] for name in ("sla_timer", "desk"))
    assert (
        desk["DESK_SLA_TIMER_TOKEN"] == sla_timer["SLA_TIMER_API_TOKEN"] == "${SLA_TIMER_API_TOKEN:?see .env.example}"
    )
    assert desk["DESK_SLA_TIMER_URL"] == f"http://sla_timer:{sla_timer['HTTP_PORT']}"
    demo = environment(Credentials(), receiver_url="http://127.0.0.1:1", mail_port=1)
    assert demo["DESK_SLA_TIMER_TOKEN"] == demo["SLA_TIMER_API_TOKEN"]


def test_prometheus_asks_every_service_with_the_token() -> None:
    jobs = {job["job_name"]: job for job in _yaml("deploy/prometheus/prometheus.yml")["scrape_configs"]}
    for job in (jobs[name] for name in SERVICES):
        (names,) = job["dns_sd_configs"]
        assert (names["names"], names["port"]) == ([job["job_name"]], 8000)
        assert job["authorization"]["credentials_file"] == "/run/secrets/metrics_token"
    assert COMPOSE["services"]["prometheus"]["secrets"] == ["metrics_token"]
    assert COMPOSE["secrets"]["metrics_token"] == {"environment": "METRICS_TOKEN"}


def test_prometheus_watches_the_machine_and_itself_and_tells_alertmanager() -> None:
    prometheus = _yaml("deploy/prometheus/prometheus.yml")
    targets = [
        target
        for job in (*prometheus["scrape_configs"], *prometheus["alerting"]["alertmanagers"])
        for static in job.get("static_configs", ())
        for target in static["targets"]
    ]
    for host in {target.rsplit(":", 1)[0] for target in targets} - {"127.0.0.1"}:
        assert _share_a_network("prometheus", host), f"prometheus asks {host}"
    mount = COMPOSE["services"]["prometheus"]["volumes"][0]
    assert mount["target"] == "/etc/prometheus"
    assert all(list((REPOSITORY / mount["source"]).glob(pattern)) for pattern in prometheus["rule_files"])


def test_alertmanager_finds_where_alerts_go_in_files_that_hold_secrets() -> None:
    text = (REPOSITORY / "deploy/alertmanager/alertmanager.yml").read_text()
    read = set(re.findall(r"/run/secrets/(\w+)", text))
    assert set(COMPOSE["services"]["alertmanager"]["secrets"]) == read
    assert all(COMPOSE["secrets"][name] == {"environment": name.upper()} for name in read)
    assert "http" not in text.replace("webhook", "")


def test_who_watches_runs_only_when_a_profile_asks_for_it() -> None:
    profiles: dict[str, set[str]] = {}
    for name, service in COMPOSE["services"].items():
        for profile in service.get("profiles", ()):
            profiles.setdefault(profile, set()).add(name)
    assert profiles == _PROFILES
    optional = set().union(*_PROFILES.values())
    for name in set(COMPOSE["services"]) - optional:
        assert not optional & set(COMPOSE["services"][name].get("depends_on", ()))


@pytest.mark.parametrize("name", sorted(set().union(*_PROFILES.values())))
def test_who_watches_can_do_no_more_than_it_must(name: str) -> None:
    service = COMPOSE["services"][name]
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", service["image"]), "an image is pinned"
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not {"privileged", "cap_add", "network_mode"} & set(service)
    # Compose refuses to write a secret from the environment into a read-only container, and so to start it.
    of_the_environment = any("environment" in COMPOSE["secrets"][secret] for secret in service.get("secrets", ()))
    assert service.get("read_only", False) is not of_the_environment


_TALK: Final = {
    frozenset(pair)
    for pair in (
        *((name, backend) for name in (*SERVICES, "migrate") for backend in ("kafka", "postgres")),
        ("roles", "postgres"),
        *(("prometheus", name) for name in SERVICES),
        *(("jaeger", name) for name in SERVICES),
        ("notifier", "intake"),
        ("desk", "sla_timer"),
        *itertools.combinations(("prometheus", "alertmanager", "grafana", "node-exporter"), 2),
    )
}
_OUT: Final = {"intake", "notifier", "desk", "alertmanager", "grafana", "jaeger"}


def test_who_has_nothing_to_say_to_one_another_shares_no_network() -> None:
    """Services meet on the networks of what they use together: Kafka, PostgreSQL, Prometheus and the collector."""
    together = {frozenset(pair) for pair in itertools.combinations((*SERVICES, *_JOBS), 2)}
    for pair in itertools.combinations(COMPOSE["services"], 2):
        if frozenset(pair) not in together:
            assert _share_a_network(*pair) == (frozenset(pair) in _TALK), pair
    assert _share_a_network("notifier", "intake", by="replies")
    assert _share_a_network("desk", "sla_timer", by="reports")


def test_only_who_must_has_a_way_out_and_shares_it_with_nobody() -> None:
    for name, service in COMPOSE["services"].items():
        outside = [
            network for network in service["networks"] if not (COMPOSE["networks"][network] or {}).get("internal")
        ]
        assert outside == ([f"{name}-outside"] if name in _OUT else []), name
    used = {network for service in COMPOSE["services"].values() for network in service["networks"]}
    assert used == set(COMPOSE["networks"])


def test_grafana_finds_prometheus_and_the_dashboards() -> None:
    (source,) = _yaml("deploy/grafana/provisioning/datasources/prometheus.yml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    providers = _yaml("deploy/grafana/provisioning/dashboards/switchyard.yml")["providers"]
    mounted = {volume["target"] for volume in COMPOSE["services"]["grafana"]["volumes"] if isinstance(volume, dict)}
    assert mounted == {provider["options"]["path"] for provider in providers} | {"/etc/grafana/provisioning"}


def _share_a_network(one: str, other: str, *, by: str | None = None) -> bool:
    shared = set(COMPOSE["services"][one]["networks"]) & set(COMPOSE["services"][other]["networks"])
    return by in shared if by else bool(shared)


def _settings_of(name: str) -> type[CommonSettings]:
    if name == "migrate":
        return CommonSettings
    settings: type[CommonSettings] = importlib.import_module(f"services.{name}.settings").Settings
    return settings


def _instructions() -> list[tuple[str, str]]:
    text = (REPOSITORY / "deploy" / "docker" / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, argument) for word, _, argument in (line.partition(" ") for line in lines)]


def _yaml(path: str) -> dict[str, Any]:
    loaded = yaml.safe_load(Path(REPOSITORY, path).read_text())
    assert isinstance(loaded, dict)
    return loaded


def _seconds(duration: str) -> float:
    number, unit = duration[:-1], duration[-1]
    return float(number) * {"s": 1, "m": 60}[unit]
