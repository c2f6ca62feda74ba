"""`python -m services.intake parse`: what a support engineer sees of a provider's request."""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.intake.__main__ import main

APP_SECRET = "made-up-app-secret"
CONFIG = {
    "app_secret": APP_SECRET,
    "verify_token": "made-up-verify-token",
    "access_token": "made-up-access-token",
    "phone_number_id": "106540352242922",
}
WEBHOOK = {
    "object": "whatsapp_business_account",
    "entry": [
        {
            "id": "1",
            "changes": [
                {
                    "field": "messages",
                    "value": {
                        "messaging_product": "whatsapp",
                        "metadata": {"display_phone_number": "15550783881", "phone_number_id": "106540352242922"},
                        "contacts": [{"profile": {"name": "Lin"}, "wa_id": "8613800138000"}],
                        "messages": [
                            {
                                "from": "8613800138000",
                                "id": "wamid.1",
                                "timestamp": "1764129600",
                                "type": "text",
                                "text": {"body": "充值没到账，卡号 4111 1111 1111 1111"},
                            }
                        ],
                    },
                }
            ],
        }
    ],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    body = json.dumps(WEBHOOK).encode()
    (tmp_path / "B").write_bytes(body)
    signature = hmac.new(APP_SECRET.encode(), body, hashlib.sha256).hexdigest()
    (tmp_path / "H.json").write_text(json.dumps({"X-Hub-Signature-256": f"sha256={signature}"}))
    (tmp_path / "C.yaml").write_text(yaml.safe_dump(CONFIG))
    return tmp_path


def parsed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["parse", *arguments]) == 0
    told = json.loads(capsys.readouterr().out)
    assert isinstance(told, dict)
    return told


def test_it_prints_the_answer_and_the_messages_with_secrets_cut(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = parsed(
        capsys,
        "whatsapp",
        *("--method", "POST"),
        *("--headers", str(folder / "H.json")),
        *("--body", str(folder / "B")),
        *("--config", str(folder / "C.yaml")),
        *("--brand", "upay"),
    )
    assert (told["status"], told["ignored"]) == (200, [])
    (message,) = told["messages"]
    assert (message["brand"], message["channel"], message["message_id"]) == ("upay", "whatsapp", "wamid.1")
    assert message["text"] == "充值没到账，卡号 [card]"
    assert message["customer"]["phone"] == "+8613800138000"


def test_it_says_what_is_refused_and_why(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = parsed(capsys, "whatsapp", str(folder / "B"), "--config", str(folder / "C.yaml"))
    assert told["status"] == 401
    assert told["refused"]["reason"] == "signature"
    assert json.loads(told["body"])["status"] == 401
    assert told["messages"] == []


def test_it_answers_a_handshake(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    query = "hub.mode=subscribe&hub.verify_token=made-up-verify-token&hub.challenge=42"
    told = parsed(capsys, "whatsapp", "--method", "GET", "--query", query, "--config", str(folder / "C.yaml"))
    assert (told["status"], told["body"]) == (200, "42")


def test_a_brands_file_names_the_brand_and_the_environment_fills_its_references(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARSE_TEST_SECRET", APP_SECRET)
    adapter = {**CONFIG, "provider": "whatsapp", "app_secret": "${PARSE_TEST_SECRET}"}
    brand = {"brand": "topay", "channels": {"whatsapp": {"hours": "always", "adapter": adapter}}}
    (folder / "C.yaml").write_text(yaml.safe_dump(brand))
    headers, config = str(folder / "H.json"), str(folder / "C.yaml")
    told = parsed(capsys, "whatsapp", str(folder / "B"), "--headers", headers, "--config", config)
    assert [message["brand"] for message in told["messages"]] == ["topay"]


def test_a_body_comes_from_a_pipe_too(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((folder / "B").read_bytes())))
    headers, config = str(folder / "H.json"), str(folder / "C.yaml")
    told = parsed(capsys, "whatsapp", "-", "--headers", headers, "--config", config)
    assert len(told["messages"]) == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["pigeon"], "no provider pigeon; there are"),
        (["whatsapp", "--config", "{folder}/missing.yaml"], "missing.yaml: No such file"),
        (["whatsapp", "--config", "{folder}/list.yaml"], "must hold a mapping"),
        (["whatsapp", "--config", "{folder}/torn.yaml"], "is not YAML"),
        (["whatsapp", "--config", "{folder}/short.yaml"], "channels.whatsapp.adapter.app_secret: Field required"),
        (["whatsapp", "--config", "{folder}/other.yaml"], "there is no adapter of whatsapp"),
        (["whatsapp", "--config", "{folder}/C.yaml", "--body", "{folder}/missing"], "missing: No such file"),
        (["whatsapp", "--config", "{folder}/C.yaml", "--headers", "{folder}/B"], "object of names and values"),
        (["whatsapp", "--config", "{folder}/C.yaml", "--headers", "{folder}/C.yaml"], "C.yaml is not JSON"),
        (["whatsapp", "--config", "{folder}/empty.yaml"], "set the environment variable PARSE_TEST_NOT_SET"),
        (["whatsapp", "x", "--body", "y", "--config", "{folder}/C.yaml"], "give the body once"),
        (["whatsapp", "--config", "{folder}/C.yaml", "--received-at", "noon"], "a time with an offset"),
        (["whatsapp", "--config", "{folder}/C.yaml", "--received-at", "2026-11-26T12:00:00"], "a time with an offset"),
    ],
)
def test_what_cannot_be_used_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    (folder / "empty.yaml").write_text(yaml.safe_dump({**CONFIG, "app_secret": "${PARSE_TEST_NOT_SET}"}))
    (folder / "list.yaml").write_text("- 1")
    (folder / "torn.yaml").write_text("{")
    (folder / "short.yaml").write_text("verify_token: x")
    (folder / "other.yaml").write_text("brand: topay\nchannels: {x: {hours: always}}")
    assert main(["parse", *(argument.format(folder=folder) for argument in arguments)]) == 2
    told = capsys.readouterr()
    assert named in told.err
    assert told.out == ""


def test_no_secret_is_told_by_a_complaint(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "C.yaml").write_text(yaml.safe_dump({**CONFIG, "phone_number_id": ["made-up-access-token"]}))
    assert main(["parse", "whatsapp", "--config", str(folder / "C.yaml")]) == 2
    complaint = capsys.readouterr().err
    assert "phone_number_id" in complaint
    assert "made-up" not in complaint
