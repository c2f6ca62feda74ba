"""Committed contracts: one JSON Schema and one golden record per event version.

A committed schema never changes: a changed event gets a new version (a new `TYPE` ending in the next number), and the
old one stays as long as anybody may still send it. `make check` calls `check`; `make contracts` calls `write`, which
only adds files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shared.events import REGISTRY, Event

DIRECTORY = Path(__file__).parent
SCHEMAS = DIRECTORY / "schemas"
GOLDEN = DIRECTORY / "golden"

WHAT_TO_DO = (
    "give the event a new version (a new class whose TYPE ends in the next number, carried beside the old one), "
    "add a golden record under tests/contract/golden/, and run `make contracts`; "
    "a committed schema is never edited: consumers that run today were built against it"
)


def schema_of(model: type[Event]) -> dict[str, Any]:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{model.TYPE}",
        **model.model_json_schema(mode="validation"),
    }


def essence(schema: Any) -> Any:
    """The schema without prose: a better description is not a new contract."""
    if isinstance(schema, dict):
        return {
            key: essence(value)
            for key, value in schema.items()
            if not (key in {"description", "title"} and isinstance(value, str))
        }
    if isinstance(schema, list):
        return [essence(item) for item in schema]
    return schema


def text_of(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def check(registry: dict[str, type[Event]] = REGISTRY, schemas: Path = SCHEMAS, golden: Path = GOLDEN) -> list[str]:
    """What is wrong, each with what to do; empty when the code and the committed contracts agree."""
    problems: list[str] = []
    for name, model in registry.items():
        path = schemas / f"{name}.schema.json"
        if not path.exists():
            problems.append(f"{name}: no committed schema {path.name}: run `make contracts`")
        elif essence(json.loads(path.read_text("utf-8"))) != essence(schema_of(model)):
            problems.append(f"{name}: the schema of {model.__name__} has changed under the same version: {WHAT_TO_DO}")
        if not (golden / f"{name}.json").exists():
            problems.append(f"{name}: no golden record {name}.json in tests/contract/golden/: write one by hand")
    problems += [
        f"{path.name}: no event of this type any more: producers of yesterday may still send it; keep the class, "
        "or delete its schema and golden record once the topic's retention has passed"
        for path in sorted(schemas.glob("*.schema.json"))
        if path.name.removesuffix(".schema.json") not in registry
    ]
    return problems


def write(registry: dict[str, type[Event]] = REGISTRY, schemas: Path = SCHEMAS) -> list[str]:
    """Add the schemas that are missing; returns their names. Existing ones are left as they are."""
    added = []
    for name, model in registry.items():
        path = schemas / f"{name}.schema.json"
        if not path.exists():
            path.write_text(text_of(schema_of(model)), "utf-8")
            added.append(path.name)
    return added
