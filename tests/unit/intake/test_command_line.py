from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from services.intake.__main__ import main
from tests.support.brands import write_brand

LINES = "密码是abc123\n没有秘密\n\ncard 4111 1111 1111 1111"
CUT = "密码是[password]\n没有秘密\n\ncard [card]\n"


def test_redact_prints_the_lines_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "lines.txt"
    file.write_bytes(LINES.encode())
    assert main(["redact", str(file)]) == 0
    assert capsys.readouterr().out == CUT


def test_redact_reads_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(LINES.encode() + b"\n\xff is not UTF-8\n")))
    assert main(["redact"]) == 0
    assert capsys.readouterr().out == CUT + "\N{REPLACEMENT CHARACTER} is not UTF-8\n"


def test_redact_of_a_missing_file_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["redact", str(tmp_path / "missing.txt")]) == 2
    assert "missing.txt: No such file" in capsys.readouterr().err


def test_redact_of_a_directory_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["redact", str(tmp_path)]) == 2
    assert f"cannot read {tmp_path}: Is a directory" in capsys.readouterr().err


def test_redact_says_how_much_it_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "lines.txt"
    file.write_text(f"{LINES}\n{LINES}", encoding="utf-8")
    assert main(["redact", "--counts", str(file)]) == 0
    captured = capsys.readouterr()
    assert captured.out == CUT * 2
    assert captured.err == "card 2\npassword 2\n"


def _start_redacting(**streams: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "services.intake", "redact"],
        stdin=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONUNBUFFERED": ""},  # else Python flushes by itself
        **streams,
    )


def test_in_a_pipe_each_line_is_answered_before_the_next_is_written() -> None:
    with _start_redacting(stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        for secret in (b"abc123", b"def456"):
            process.stdin.write("密码是".encode() + secret + b"\n")
            process.stdin.flush()
            assert process.stdout.readline().decode() == "密码是[password]\n"
        process.stdin.close()
        assert process.wait() == 0


def test_a_reader_who_has_enough_is_no_error() -> None:
    with _start_redacting(stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        process.stdin.write(b"one\ntwo\n")
        process.stdin.close()
        assert (process.wait(), process.stderr.read()) == (0, b"")


def test_help_names_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "redact" in capsys.readouterr().out


def test_the_service_says_what_is_wrong_with_a_brands_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BRANDS_DIRECTORY", str(write_brand(tmp_path, channels={"pigeon": {"hours": "always"}})))
    assert main([]) == 2
    assert "some_brand.yaml:6: channels.pigeon" in capsys.readouterr().err
