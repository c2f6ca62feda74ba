"""Each service's AsyncAPI document, generated from its wiring and committed under docs/asyncapi/."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import yaml
from faststream.specification import AsyncAPI

from shared.database import SERVICES

DIRECTORY = Path(__file__).parents[2] / "docs" / "asyncapi"
VERSION = "1"

# The notifier does not start without receivers, and the desk warns of agents without tokens; a document needs neither.
PLACEHOLDERS = {
    "NOTIFIER_GATEWAY_URL": "https://gateway.example",
    "NOTIFIER_GATEWAY_SECRET": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "NOTIFIER_LEADS_URL": "https://leads.example",
    "NOTIFIER_LEADS_SECRET": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    **{f"DESK_TOKEN_{name}": name.ljust(32, "_") for name in ("AGENT", "PAYMENTS_AGENT", "LEAD", "WALL")},
}


def document_of(service: str) -> str:
    """The document as YAML. The broker's address is that of an installation, not part of the contract."""
    for name, value in PLACEHOLDERS.items():
        os.environ.setdefault(name, value)
    wired = importlib.import_module(f"services.{service}.app").build()
    generated: dict[str, Any] = (
        AsyncAPI(
            wired.broker,
            title=f"Switchyard {service}",
            version=VERSION,
            description=f"What {service} consumes and publishes: CloudEvents 1.0 in Kafka's binary mode.",
        )
        .to_specification()
        .to_jsonable()
    )
    for server in generated["servers"].values():
        server["host"] = "kafka:9092"
    document: str = yaml.safe_dump(generated, sort_keys=True, allow_unicode=True, width=120)
    return document


def check() -> list[str]:
    problems = []
    for service in SERVICES:
        path = DIRECTORY / f"{service}.yaml"
        if not path.exists() or path.read_text("utf-8") != document_of(service):
            problems.append(f"docs/asyncapi/{service}.yaml does not say what the service does: run `make contracts`")
    return problems


def write() -> list[str]:
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for service in SERVICES:
        (DIRECTORY / f"{service}.yaml").write_text(document_of(service), "utf-8")
    return [f"docs/asyncapi/{service}.yaml" for service in SERVICES]
