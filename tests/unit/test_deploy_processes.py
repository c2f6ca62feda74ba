"""Child programs: started, stopped, killed, and never left behind to block the next run."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from deploy.processes import (
    HOST,
    REPOSITORY,
    DirectoryInUse,
    Program,
    ProgramFailed,
    claimed,
    end_leftover,
    end_leftovers,
    free_port,
    port_is_free,
)

_SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
_STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
]


@contextmanager
def running(program: Program, command: list[str]) -> Iterator[Program]:
    program.start(command)
    try:
        program.wait_until(lambda: "up" in program.log.read_text(), timeout_seconds=10)
        yield program
    finally:
        program.kill()


def lives(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_free_ports_differ_and_lie_below_the_ports_that_outgoing_connections_take() -> None:
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50
    assert max(ports) < 32_768


def test_a_port_somebody_listens_on_is_not_free() -> None:
    port = free_port()
    assert port_is_free(port)
    with socket.create_server((HOST, port)):
        assert not port_is_free(port)


def test_ctrl_c_in_the_terminal_reaches_only_the_parent(tmp_path: Path) -> None:
    """The terminal signals its whole process group; a database must outlive the services that drain into it."""
    with running(Program("apart", tmp_path), _SLEEPER) as program:
        assert program.pid is not None
        assert os.getpgid(program.pid) != os.getpgid(0)


def test_stop_asks_first(tmp_path: Path) -> None:
    polite = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('bye', flush=True)));"
    program = Program("polite", tmp_path)
    with running(program, [sys.executable, "-c", polite + "print('up', flush=True); signal.pause()"]):
        program.stop()
        assert program.log.read_text() == "up\nbye\n"
        assert program.pid is None
        program.stop()


def test_stop_kills_what_does_not_listen(tmp_path: Path) -> None:
    with running(Program("stubborn", tmp_path, stop_timeout_seconds=0.2), _STUBBORN) as program:
        pid = program.pid
        assert pid is not None
        program.stop()
        assert not lives(pid)


def test_kill_takes_children_in_sessions_of_their_own_along(tmp_path: Path) -> None:
    parent = (
        "import subprocess, sys, time;"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True);"
        "print('up', child.pid, flush=True); time.sleep(600)"
    )
    with running(Program("parent", tmp_path), [sys.executable, "-c", parent]) as program:
        child = int(program.log.read_text().split()[1])
        assert lives(child)
        program.kill()
        assert not lives(child)


def test_a_program_that_ends_by_itself_is_told_with_its_status_and_its_last_words(tmp_path: Path) -> None:
    program = Program("short", tmp_path)
    program.start([sys.executable, "-c", "import sys; print('the disk is full'); sys.exit(3)"])
    with pytest.raises(ProgramFailed, match=r"short ended by itself \(exit status 3\)[^$]*the disk is full"):
        program.wait_until(lambda: False, timeout_seconds=10)
    with claimed(tmp_path / "short.lock"):
        pass  # nothing is held any more


def test_a_program_that_is_not_ready_in_time_is_ended(tmp_path: Path) -> None:
    program = Program("slow", tmp_path)
    program.start(_SLEEPER)
    pid = program.pid
    assert pid is not None
    with pytest.raises(ProgramFailed, match=r"slow was not ready within 0\.1 s"):
        program.wait_until(lambda: False, timeout_seconds=0.1)
    assert not lives(pid)


def test_a_command_that_is_not_there_says_so_and_holds_nothing(tmp_path: Path) -> None:
    with pytest.raises(ProgramFailed, match="nowhere cannot be run"):
        Program("nowhere", tmp_path).start([tmp_path / "nowhere"])
    with claimed(tmp_path / "nowhere.lock"):
        pass


def test_a_directory_has_one_owner(tmp_path: Path) -> None:
    with running(Program("one", tmp_path), _SLEEPER) as first:
        with pytest.raises(DirectoryInUse, match=f"running process {os.getpid()}"):
            Program("one", tmp_path).start(_SLEEPER)
        assert end_leftovers(tmp_path) == []
        assert first.pid is not None


def test_what_a_killed_run_left_behind_ends_before_the_next_starts(tmp_path: Path) -> None:
    leftover = _run_and_die(tmp_path)
    assert lives(leftover)
    with running(Program("left", tmp_path), _SLEEPER) as program:
        assert not lives(leftover)
        assert program.pid not in (None, leftover)


def test_leftovers_anywhere_below_a_directory_are_found(tmp_path: Path) -> None:
    leftover = _run_and_die(tmp_path / "some" / "run")
    assert end_leftovers(tmp_path) == [tmp_path / "some" / "run" / "left.pid"]
    assert not lives(leftover)
    assert end_leftovers(tmp_path) == []


def test_a_pid_that_is_somebody_elses_by_now_is_left_alone(tmp_path: Path) -> None:
    with running(Program("other", tmp_path / "other"), _SLEEPER) as other:
        assert other.pid is not None
        pid_file = tmp_path / "ours.pid"
        created = psutil.Process(other.pid).create_time()
        pid_file.write_text(json.dumps({"pid": other.pid, "created": created - 60}))
        assert end_leftover(pid_file, signal.SIGKILL) is False
        assert other.pid is not None
        assert not pid_file.exists()


@pytest.mark.parametrize("content", ["", "12", "{}", '{"pid": 999999999, "created": 1}'])
def test_a_broken_pid_file_blocks_nothing(tmp_path: Path, content: str) -> None:
    pid_file = tmp_path / "left.pid"
    pid_file.write_text(content)
    assert end_leftover(pid_file) is False
    assert not pid_file.exists()


def _run_and_die(directory: Path) -> int:
    """Start a program from another process that is then killed; return the program's pid."""
    code = (
        "import os, pathlib, sys; from deploy.processes import Program;"
        f"p = Program('left', pathlib.Path({str(directory)!r}));"
        "p.start([sys.executable, '-c', 'import time; time.sleep(600)']);"
        "print(p.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    return int(killed.stdout)
