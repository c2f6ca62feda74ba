from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from services.intake.__main__ import main

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


def test_help_names_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "redact" in capsys.readouterr().out


def test_the_service_says_what_is_wrong_with_its_channels_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INTAKE_CHANNELS_FILE", str(tmp_path / "missing.yaml"))
    assert main([]) == 2
    assert "missing.yaml" in capsys.readouterr().err
