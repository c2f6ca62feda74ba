"""Alertmanager: who is told of which alert, and which are held back by others."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

import pytest
import yaml

from deploy.processes import REPOSITORY
from tests.support.alertmanager import BINARY, Alertmanager, need_programs, receivers, with_addresses
from tests.support.waiting import eventually

CONFIGURATION: Final = REPOSITORY / "deploy" / "alertmanager" / "alertmanager.yml"
RECEIVERS: Final = ("pager", "tickets", "watchdog")

_DOWN: Final = {"alertname": "ServiceDown", "severity": "page", "service": "classifier"}
_NOT_READY: Final = {"alertname": "ServiceNotReady", "severity": "page", "service": "desk"}
_PAUSED: Final = {"alertname": "ConsumerPaused", "severity": "page", "service": "intake", "group": "intake.one"}
_SLOW: Final = {"alertname": "RoutedTooLate", "severity": "page", "service": "other"}
_TELEGRAM: Final = {"severity": "page", "service": "intake", "alertname": "RepliesFailing", "channel": "telegram"}


@pytest.fixture(scope="module")
def configuration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed one, with addresses: Debian's amtool knows no `url_file`."""
    need_programs("amtool")
    file = tmp_path_factory.mktemp("alertmanager") / "alertmanager.yml"
    addresses = {name: f"http://127.0.0.1:9/{name}" for name in RECEIVERS}
    file.write_text(with_addresses(CONFIGURATION.read_text(), addresses))
    return file


def _amtool(*arguments: str | Path) -> str:
    done = subprocess.run(["amtool", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_amtool_takes_it(configuration: Path) -> None:
    assert "SUCCESS" in _amtool("check-config", configuration)


def test_no_address_stands_in_it() -> None:
    """It may hold a secret."""
    assert "://" not in CONFIGURATION.read_text()
    files = [
        webhook["url_file"]
        for receiver in yaml.safe_load(CONFIGURATION.read_text())["receivers"]
        for webhook in receiver["webhook_configs"]
    ]
    assert files == [f"/run/secrets/alertmanager_{name}_url" for name in RECEIVERS]


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (("alertname=ServiceDown", "severity=page", "service=intake"), "pager"),
        (("alertname=RoutedTooLate", "severity=page", "service=classifier"), "pager"),
        (("alertname=RoutedTooLate", "severity=ticket", "service=classifier"), "tickets"),
        (("alertname=DeadLetters", "severity=ticket", "service=intake", "group=intake.channel.messages"), "tickets"),
        (("alertname=Watchdog", "severity=none", "service=monitoring"), "watchdog"),
        (("alertname=OfSomebodyElse",), "tickets"),
    ],
)
def test_who_is_told(configuration: Path, labels: tuple[str, ...], receiver: str) -> None:
    _amtool("config", "routes", "test", f"--config.file={configuration}", f"--verify.receivers={receiver}", *labels)


async def test_what_follows_from_something_worse_is_held_back(run_directory: Path) -> None:
    need_programs(BINARY)
    with (
        receivers() as told,
        Alertmanager(
            run_directory / "alertmanager-inhibition",
            with_addresses(CONFIGURATION.read_text(), told.addresses(*RECEIVERS)),
        ) as manager,
    ):
        held = [
            {"alertname": "RoutedTooLate", "severity": "page", "service": "classifier"},
            {"alertname": "ConsumerLagGrowing", "severity": "page", "service": "classifier", "group": "classifier.a"},
            {"alertname": "OutboxGrowing", "severity": "page", "service": "desk"},
            {"alertname": "ConsumerStuck", "severity": "page", "service": "intake", "group": "intake.one"},
            {**_SLOW, "severity": "ticket"},
            {**_TELEGRAM, "severity": "ticket"},
        ]
        told_all_the_same = [
            _DOWN,
            _NOT_READY,
            _PAUSED,
            _SLOW,
            _TELEGRAM,
            {"alertname": "RoutedTooLate", "severity": "page", "service": "notifier"},
            {"alertname": "ConsumerStuck", "severity": "page", "service": "intake", "group": "intake.another"},
            {"alertname": "PromisesBroken", "severity": "page", "service": "desk"},
            {"alertname": "DeadLetters", "severity": "ticket", "service": "intake", "group": "intake.one"},
            {**_TELEGRAM, "severity": "ticket", "channel": "weibo"},
            # One replica of several: it does not hold back what is said of the others.
            {"alertname": "ServiceDown", "severity": "ticket", "service": "sla_timer", "instance": "two"},
            {"alertname": "DeadlinesLate", "severity": "page", "service": "sla_timer"},
        ]
        await manager.post([*held, *told_all_the_same])

        async def states() -> dict[str, list[dict[str, str]]]:
            found: dict[str, list[dict[str, str]]] = {"suppressed": [], "active": []}
            for alert in await manager.alerts():
                found.setdefault(alert["status"]["state"], []).append(alert["labels"])
            # `unprocessed` until it has been looked at.
            assert len(found["suppressed"]) + len(found["active"]) == len(held) + len(told_all_the_same), found
            assert found["suppressed"], found
            return found

        found = await eventually(states, 60)
        for labels in held:
            assert labels in found["suppressed"], labels
        for labels in told_all_the_same:
            assert labels in found["active"], labels
