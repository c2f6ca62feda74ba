"""A Kafka-protocol broker from the `noida-db` wheel, as a child program: to try out and to test, not for production.

It keeps its log in memory and writes it to the data directory now and then and when it is stopped in order: after
kill -9 or a power cut, acknowledged records are gone. How it was chosen: docs/adr/0002-embedded-default.md.
"""

from __future__ import annotations

import importlib.util
import os
import stat
import sys
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from deploy.kafka.probe import answers
from deploy.processes import HOST, Program, ProgramFailed, free_port

_START_TIMEOUT_SECONDS: Final = 30.0


class EmbeddedBroker:
    """One broker over `directory`, on `port` or on a free one, which it keeps over restarts.

    Raises DirectoryInUse when a living process runs on the directory, ProgramFailed when the broker does not start.
    """

    description = "embedded broker (noida-db; its log is in memory and lost by kill -9)"

    def __init__(self, directory: Path, port: int = 0) -> None:
        self.directory = directory.absolute()
        self._port = port
        self._program = Program("broker", self.directory)

    @property
    def bootstrap_servers(self) -> str:
        if not self._port:
            raise RuntimeError("the embedded broker has no address before its first start()")
        return f"{HOST}:{self._port}"

    @property
    def pid(self) -> int | None:
        return self._program.pid

    def start(self) -> None:
        """Start, with what the data directory holds, and return once an admin client is answered."""
        self._port = self._port or free_port()
        # The program itself, not the wheel's launcher, which would outlive or orphan it under kill -9.
        command: list[str | Path] = [
            *(_binary(), "start", "--only", "kafka", "--host", HOST, "--kafka-port", str(self._port)),
            *("--data-dir", self.directory / "data"),
        ]
        self._program.start(command)
        self._program.wait_until(lambda: answers(self.bootstrap_servers), _START_TIMEOUT_SECONDS)

    def stop(self) -> None:
        """Stop; the log is written to the data directory. Idempotent."""
        self._program.stop()

    def kill(self) -> None:
        """kill -9: what was not written to the data directory yet is gone."""
        self._program.kill()

    def restart(self) -> None:
        """Stop, if it runs, and start again on the same port."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _binary() -> Path:
    found = importlib.util.find_spec("noida_db")
    if found is None or not found.submodule_search_locations:
        raise ProgramFailed("the wheel noida-db is not installed: run `make setup`")
    binary = Path(found.submodule_search_locations[0]) / ("noida-db.exe" if sys.platform == "win32" else "noida-db")
    if not os.access(binary, os.X_OK):  # installers do not keep the mode of a data file
        binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
    return binary
