"""Child programs of the embedded and the native set-up: ports, one owner per directory, readiness, stopping, leftovers.

A program keeps its log and its pid file in a directory of its own. The pid file carries the creation time of the
process, so that a pid that was given to somebody else meanwhile is never signalled.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

import psutil

REPOSITORY: Final = Path(__file__).resolve().parent.parent
RUN_DIRECTORY: Final = REPOSITORY / ".run"
HOST: Final = "127.0.0.1"

# Below the range of source ports (Linux: from 32768, macOS: from 49152). Inside it, a client that retries a port
# nobody listens on can be connected to itself by the kernel, and then keeps the restarted server from its own port.
_PORTS: Final = range(18_000, 30_000)
_POLL_SECONDS: Final = 0.02
_LEFTOVER_SECONDS: Final = 1.0
_ports_given_out: set[int] = set()


class ProgramFailed(RuntimeError):
    """A program did not start, or ended by itself; the message ends with the last lines of its log."""


class DirectoryInUse(RuntimeError):
    """A living process holds this directory: stop it, or take another directory."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 nobody listens on, never the same twice in one process."""
    for port in random.sample(_PORTS, len(_PORTS)):
        if port not in _ports_given_out and port_is_free(port):
            _ports_given_out.add(port)
            return port
    raise RuntimeError(f"no free port between {_PORTS.start} and {_PORTS.stop}: stop what listens there")


def port_is_free(port: int) -> bool:
    """Whether nobody listens on this TCP port of 127.0.0.1; connections that are still closing do not count."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


@contextlib.contextmanager
def claimed(lock_file: Path) -> Iterator[None]:
    """Hold `lock_file` for this process; the kernel lets go of it however the process ends.

    Raises DirectoryInUse when another process, or another part of this one, holds it.
    """
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    with lock_file.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise DirectoryInUse(
                f"{lock_file.parent} is in use by the running process {holder}: stop it, or take another directory"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


class Program:
    """One child program: `<directory>/<name>.log`, `.pid` and `.lock` beside its data.

    It runs in a session of its own: Ctrl-C in the terminal reaches only the parent, which stops its programs in order.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        *,
        stop_signal: signal.Signals = signal.SIGTERM,
        stop_timeout_seconds: float = 30,
    ) -> None:
        self.name = name
        self.directory = directory
        self.log = directory / f"{name}.log"
        self._pid_file = directory / f"{name}.pid"
        self._lock_file = directory / f"{name}.lock"
        self._stop_signal = stop_signal
        self._stop_timeout_seconds = stop_timeout_seconds
        self._process: psutil.Popen | None = None
        self._claim: contextlib.ExitStack | None = None

    @property
    def pid(self) -> int | None:
        """The pid while the program runs, else None."""
        return self._process.pid if self._process is not None and _lives(self._process) else None

    def start(
        self,
        command: Sequence[str | Path],
        *,
        environment: Mapping[str, str] | None = None,
        working_directory: Path | None = None,
        user: str | None = None,
    ) -> None:
        """Start `command`, its output appended to the log, after ending what a killed run left behind here.

        environment: the whole environment of the child; None hands on ours. user: whom to run as (only root may).
        Raises DirectoryInUse, and ProgramFailed when the command cannot be run at all.
        """
        if self._process is not None:
            raise RuntimeError(f"{self.name} was started already: stop it first")
        self.claim()
        try:
            with self.log.open("ab") as log:
                self._process = _spawn(command, log, environment, working_directory, user)
        except OSError as error:
            self._release()
            raise ProgramFailed(f"{self.name} cannot be run: {error}") from error
        record = {"pid": self._process.pid, "created": self._process.create_time()}
        self._pid_file.write_text(json.dumps(record))

    def claim(self) -> None:
        """Take the directory for this process and end what a killed run left running in it. Idempotent."""
        if self._claim is not None:
            return
        claim = contextlib.ExitStack()
        claim.enter_context(claimed(self._lock_file))
        self._claim = claim
        end_leftover(self._pid_file, self._stop_signal, self._stop_timeout_seconds)

    def wait_until(self, ready: Callable[[], bool], timeout_seconds: float) -> None:
        """Return once `ready()` is true.

        Raises ProgramFailed, and leaves nothing running, when the program ends first or is not ready in time.
        """
        deadline = time.monotonic() + timeout_seconds
        while not ready():
            if self.pid is None:
                ended = f"ended by itself (exit status {self._exit_status()})"
            elif time.monotonic() > deadline:
                ended = f"was not ready within {timeout_seconds:g} s"
            else:
                time.sleep(_POLL_SECONDS)
                continue
            self.kill()
            raise ProgramFailed(f"{self.name} {ended}; the end of {self.log}:\n{self.log_tail()}")

    def stop(self) -> int | None:
        """Ask the program to end, wait, and kill it when it takes longer than its stop time. Idempotent.

        Returns its exit status (negative: the signal that ended it), None when it did not run.
        """
        status: int | None = None
        if self._process is not None:
            _end(self._process, self._stop_signal, self._stop_timeout_seconds)
            status = self._process.wait()
        self._forget()
        return status

    def kill(self) -> None:
        """kill -9 the program and its children: nothing is flushed. Idempotent."""
        if self._process is not None:
            _kill_tree(self._process)
        self._forget()

    def log_tail(self, lines: int = 25) -> str:
        """The last lines of the log, for error messages."""
        if not self.log.exists():
            return "(no log was written)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) or "(the log is empty)"

    def _exit_status(self) -> str:
        return "unknown" if self._process is None else str(self._process.poll())

    def _forget(self) -> None:
        self._process = None
        self._pid_file.unlink(missing_ok=True)
        self._release()

    def _release(self) -> None:
        if self._claim is not None:
            self._claim.close()
            self._claim = None


def end_leftover(pid_file: Path, stop_signal: signal.Signals = signal.SIGTERM, timeout_seconds: float = 30) -> bool:
    """End the program a killed run left behind, as its pid file says; the file goes too. Returns whether one ran.

    Only while holding the lock beside the pid file, else the program of a living run would be ended.
    """
    try:
        record = json.loads(pid_file.read_text())
        process = psutil.Process(record["pid"])
        running = _lives(process) and abs(process.create_time() - record["created"]) < 1
    except (FileNotFoundError, ValueError, KeyError, TypeError, psutil.NoSuchProcess):
        running = False
    if running:
        _end(process, stop_signal, timeout_seconds)
    pid_file.unlink(missing_ok=True)
    return running


def end_leftovers(root: Path) -> list[Path]:
    """End every program below `root` whose owner was killed; programs of living runs are left alone.

    They get a second, not time to drain: what they wait for was killed too, and their data is about to be removed.
    Returns the pid files of what was ended.
    """
    ended = []
    for pid_file in sorted(root.rglob("*.pid")):
        # Others keep pid files too (PostgreSQL's postmaster.pid): ours have a lock beside them.
        lock_file = pid_file.with_suffix(".lock")
        if not lock_file.exists():
            continue
        with contextlib.suppress(DirectoryInUse), claimed(lock_file):
            if end_leftover(pid_file, timeout_seconds=_LEFTOVER_SECONDS):
                ended.append(pid_file)
    return ended


@contextlib.contextmanager
def run_directory(purpose: str) -> Iterator[Path]:
    """An empty directory for one run, `.run/<purpose>/<n>`; several runs at once get different ones.

    What a killed run left running in it is ended first.
    """
    with contextlib.ExitStack() as held:
        for number in itertools.count():
            directory = RUN_DIRECTORY / purpose / str(number)
            with contextlib.suppress(DirectoryInUse):
                held.enter_context(claimed(directory.with_suffix(".lock")))
                break
        end_leftovers(directory)
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        yield directory


def _spawn(
    command: Sequence[str | Path],
    log: IO[bytes],
    environment: Mapping[str, str] | None,
    working_directory: Path | None,
    user: str | None,
) -> psutil.Popen:
    return psutil.Popen(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
        cwd=working_directory,
        start_new_session=True,
        **as_user(user),
    )


def as_user(user: str | None) -> dict[str, Any]:
    """Arguments of subprocess for running as `user`; none for None."""
    return {} if user is None else {"user": user, "group": group_of(user), "extra_groups": []}


def group_of(user: str) -> int:
    return pwd.getpwnam(user).pw_gid


def _lives(process: psutil.Process) -> bool:
    if isinstance(process, psutil.Popen):
        return process.poll() is None  # and collects the child's exit status
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _end(process: psutil.Process, stop_signal: signal.Signals, timeout_seconds: float) -> None:
    with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
        process.send_signal(stop_signal)
    deadline = time.monotonic() + timeout_seconds
    while _lives(process):
        if time.monotonic() > deadline:
            _kill_tree(process)
            return
        time.sleep(_POLL_SECONDS)


def _kill_tree(process: psutil.Process) -> None:
    """kill -9 a process and its children, until all are gone. Not by group: PostgreSQL's children leave theirs."""
    family = [process]
    with contextlib.suppress(psutil.NoSuchProcess):
        family += process.children(recursive=True)
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            member.kill()
    while any(_lives(member) for member in family):
        time.sleep(_POLL_SECONDS)
