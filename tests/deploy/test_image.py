"""The five services run from a read-only tree, by a user without rights, with the environment that compose gives."""

from __future__ import annotations

import base64
import functools
import re
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml

from deploy.brokers import Broker
from deploy.processes import HOST, REPOSITORY, Program, free_port
from shared.database import SERVICES
from tests.support.image import Image, why_not

_COMPOSE: Final[dict[str, Any]] = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]
_READY_SECONDS: Final = 120.0
_OTHERS: Final = {"NOTIFIER_LEADS_URL": "https://leads.example.com", "NOTIFIER_SMTP_HOST": "smtp.example.com"}


@pytest.fixture(scope="module")
def image(run_directory: Path) -> Image:
    if missing := why_not():
        pytest.skip(missing)
    return Image(run_directory / "image")


def _given(service: str, **others: str) -> dict[str, str]:
    """A container's environment: each ${NAME} that must be given is, what has a default takes it."""

    def value(match: re.Match[str]) -> str:
        name = match["name"]
        secret = base64.b64encode(name.ljust(32).encode()).decode()  # of its own, as agents' tokens must be
        return _OTHERS.get(name, secret) if match["sign"] == "?" else match["default"]

    variable = re.compile(r"\$\{(?P<name>\w+):(?P<sign>[?-])(?P<default>[^}]*)\}")
    environment = _COMPOSE[service]["environment"]
    given = {name: variable.sub(value, text) for name, text in environment.items() if text is not None}
    return {**given, "HTTP_HOST": HOST, "INTAKE_SMTP_HOST": HOST, **others}


def _run(image: Image, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        image.command(*arguments),
        env=image.environment | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


def test_it_is_as_confined_as_a_container(image: Image) -> None:
    script = (
        "import os, pathlib, sys\n"
        "failed = []\n"
        "for place in ('.', '/usr', '/var/tmp', '/dev/shm', sys.prefix):\n"
        "    try: pathlib.Path(place, 'x').write_text('x')\n"
        "    except OSError: failed.append(place)\n"
        "pathlib.Path('/tmp/x').write_text('x')\n"
        "try: import pytest\n"
        "except ModuleNotFoundError: failed.append('pytest')\n"
        "status = pathlib.Path('/proc/self/status').read_text()\n"
        "print(*failed, os.getuid(), os.environ.get('HOME'), status.split('CapEff:')[1].split()[0])\n"
    )
    done = _run(image, "python", "-c", script)
    assert done.stdout.split()[:-4] == [".", "/usr", "/var/tmp", "/dev/shm", "/mnt/venv"], done.stderr
    assert done.stdout.split()[-4:] == ["pytest", "10001", "None", "0000000000000000"]


def test_operators_find_their_commands_in_it(image: Image) -> None:
    done = _run(image, "python", "-m", "deploy.ops", "--help")
    assert done.returncode == 0, done.stderr
    assert "deploy.ops" in done.stdout


async def test_the_services_run_in_it(
    image: Image,
    own_broker: Callable[..., Broker],
    new_database: Callable[[], Awaitable[str]],
    run_directory: Path,
) -> None:
    surroundings = {
        "KAFKA_BOOTSTRAP_SERVERS": own_broker(embedded=True).bootstrap_servers,
        "DATABASE_URL": await new_database(),
        "KAFKA_FETCH_PAUSE_MS": "40",  # the embedded broker does not wait for records
    }
    migrate = _COMPOSE["migrate"]
    words = [*migrate["entrypoint"], *migrate["command"]]
    migrated = _run(image, *words, **_given("migrate", **surroundings))
    assert migrated.returncode == 0, migrated.stderr
    assert "heads" in migrated.stdout

    programs = {name: Program(name, run_directory / "image-services" / name) for name in SERVICES}
    ports = {name: free_port() for name in SERVICES}
    try:
        for name, program in programs.items():
            given = _given(name, **surroundings, HTTP_PORT=str(ports[name]), INTAKE_SMTP_PORT=str(free_port()))
            command = image.command("python", "-m", *_COMPOSE[name]["command"])
            program.start(command, environment=image.environment | given)
        for name, program in programs.items():
            program.wait_until(functools.partial(_is_ready, ports[name]), _READY_SECONDS)
    finally:
        for program in programs.values():
            program.stop()
    for name, program in programs.items():
        log = program.log.read_text()
        assert '"message": "stopped"' in log, f"{name}: {log[-2000:]}"
        assert not re.search("Read-only file system|Permission denied|requirements.lock|Traceback", log), (
            f"{name}: {log[-2000:]}"
        )


def _is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://{HOST}:{port}/readyz", timeout=5, trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
