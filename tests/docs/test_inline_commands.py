"""Commands within sentences and tables of the documents, the runbooks' above all: nobody may find out at three in the
morning that one is misspelt.

Statements for PostgreSQL are executed; what operators' commands are told is parsed; compose's services, profiles and
options are looked up; kubectl itself reads its command lines, up to where it would reach a cluster.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Final

import asyncpg
import pytest
import yaml

from deploy.ops.__main__ import build_parser
from deploy.processes import REPOSITORY
from shared.database import SERVICES
from tests.docs.snippets import Inline, inline, snippets
from tests.support.kustomize import build

_OPS: Final = re.compile(r"(?:^|\s)(?:python )?-m deploy\.ops(?P<told>[^|;&]*)")
_STANDS_FOR: Final = {"SERVICE": "notifier", "POD": "notifier-0", "PID": "0", "USER": "intake"}
_COMPOSE: Final = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text("utf-8"))
_SUBCOMMANDS: Final = frozenset({"down", "exec", "kill", "logs", "ps", "restart", "run", "stop", "up"})
_WITH_A_VALUE: Final = frozenset({"--entrypoint", "--scale", "--since", "--tail", "-s"})
_WITHOUT: Final = frozenset({"--build", "--no-deps", "--no-recreate", "--rm", "--volumes", "--wait", "-a", "-d"})
_STATEMENT: Final = re.compile(r'^docker compose exec postgres psql -U switchyard -c "(?P<sql>.+)"$')
_NAMES_A_DEPLOYMENT: Final = re.compile(r"\s(?:deploy|deployment)/([a-zA-Z-]+)(?=\s|$)")


def _filled(text: str) -> str:
    return re.sub(rf"\b(?:{'|'.join(_STANDS_FOR)})\b", lambda name: _STANDS_FOR[name[0]], text)


def _told() -> list[tuple[str, str]]:
    """Where it stands, and what `deploy.ops` is told there, in code spans and fenced commands alike."""
    fenced = [
        (f"{snippet.document}:{snippet.line + number}", line)
        for snippet in snippets()
        for number, line in enumerate(snippet.text.replace("\\\n", "  ").splitlines())
    ]
    spans = [(str(span), span.text) for span in inline("python -m deploy.ops", "docker compose", "kubectl")]
    found = [
        (where, match["told"].partition(" #")[0]) for where, text in fenced + spans for match in _OPS.finditer(text)
    ]
    return [(where, told.strip()) for where, told in found if told.strip() not in ("", "...")]


@pytest.mark.parametrize(("where", "told"), _told())
def test_operators_commands_are_understood(where: str, told: str) -> None:
    assert where
    words = shlex.split(_filled(told))
    status, said = 0, io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            build_parser().parse_args(words)
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 1
    stands_for_all_its_verbs = len(words) == 1 and "required: verb" in said.getvalue()
    assert status == 0 or stands_for_all_its_verbs, said.getvalue()


def compose_problems(command: str) -> list[str]:
    """What `docker compose` would not take."""
    words = shlex.split(_filled(command).partition(" | ")[0])[2:]
    problems, rest = [], iter(words)
    subcommand = None
    for word in rest:
        if subcommand is None and word == "--profile":
            profiles = {name for service in _COMPOSE["services"].values() for name in service.get("profiles", ())}
            if (profile := next(rest)) not in profiles:
                problems.append(f"no profile {profile}")
        elif subcommand is None:
            subcommand = word
            if word not in _SUBCOMMANDS:
                problems.append(f"no command {word}")
        elif word in _WITH_A_VALUE:
            name, has_number, _ = next(rest).partition("=")
            if word == "--scale" and not (has_number and name in _COMPOSE["services"]):
                problems.append(f"cannot scale {name}")
        elif word.startswith("-"):
            if word not in _WITHOUT:
                problems.append(f"no option {word}")
        else:
            if word not in _COMPOSE["services"]:
                problems.append(f"no service {word}")
            if subcommand in ("exec", "run"):
                break  # what follows is a command within
    return problems


@pytest.mark.parametrize("span", inline("docker compose "), ids=str)
def test_compose_has_what_it_is_asked_for(span: Inline) -> None:
    assert compose_problems(span.text) == []


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ("docker compose restart notifyer", "no service notifyer"),
        ("docker compose --profile observe up", "no profile observe"),
        ("docker compose stat", "no command stat"),
        ("docker compose logs --sinse 1h", "no option --sinse"),
        ("docker compose up --scale SERVIC=3", "cannot scale SERVIC"),
        ("docker compose exec prometeus ls --anything", "no service prometeus"),
    ],
)
def test_what_compose_would_not_take_is_found(wrong: str, problem: str) -> None:
    assert problem in compose_problems(wrong)


def _statements() -> list[tuple[str, str]]:
    spans = inline("docker compose exec postgres psql")
    found = [(str(span), match["sql"]) for span in spans if (match := _STATEMENT.match(span.text))]
    assert len(found) == len(spans), "a statement is written so that this test does not see it"
    return found


@pytest.mark.parametrize(("where", "sql"), _statements())
async def test_statements_for_postgresql_run(database: str, where: str, sql: str) -> None:
    assert where
    connection = await asyncpg.connect(database)
    try:
        await connection.execute(_filled(sql))
    finally:
        await connection.close()


# Every line that kubectl would send somewhere; what is only a word of prose (`kubectl describe pod`) has no namespace.
_KUBECTL: Final = [span for span in inline("kubectl -", "kubectl apply", "kubectl get") if "..." not in span.text]


@pytest.mark.parametrize("span", _KUBECTL, ids=str)
def test_kubectl_reads_its_command_lines(span: Inline) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl on the PATH: install it to have it read the documents' command lines")
    status, said = _kubectl(_filled(span.text))
    assert status != 0
    assert "connection refused" in said or "was refused" in said, said


@pytest.mark.parametrize("wrong", ["kubectl -n switchyard rolout restart deploy/x", "kubectl get pods --namspace x"])
def test_what_kubectl_does_not_read_is_found(wrong: str) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl on the PATH: install it to have it read the documents' command lines")
    status, said = _kubectl(wrong)
    assert status != 0
    assert "refused" not in said


def _kubectl(command: str) -> tuple[int, str]:
    """With a cluster that is not there, and no configuration that could name a real one."""
    words = shlex.split(command)
    nowhere = ["--server=http://127.0.0.1:9", "--kubeconfig=/dev/null", "--request-timeout=2s"]
    run = subprocess.run(
        [words[0], *nowhere, *words[1:]], capture_output=True, text=True, check=False, timeout=60, cwd=REPOSITORY
    )
    return run.returncode, run.stdout + run.stderr


def test_kubectl_is_asked_for_deployments_that_there_are() -> None:
    there = {
        resource["metadata"]["name"]
        for resource in build(Path(REPOSITORY, "deploy/k8s/overlays/production"))
        if resource["kind"] == "Deployment"
    }
    asked = {
        (str(span), name)
        for span in inline("kubectl ")
        for name in _NAMES_A_DEPLOYMENT.findall(span.text)
        if name != "SERVICE"
    }
    assert asked
    assert {item for item in asked if item[1] not in there} == set()
    assert {service.replace("_", "-") for service in SERVICES} <= there
