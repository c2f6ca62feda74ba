"""Whether Kubernetes would take an object: its own schemas (from the package kubernetes-validate, which brings one per
version), and those of custom resources in tests/support/kubernetes_schemas. Strict: an unknown field is an error.
"""

from __future__ import annotations

import importlib.resources
import json
from functools import cache
from pathlib import Path
from typing import Any, Final

import jsonschema
from referencing import Registry, Resource

_CUSTOM: Final = Path(__file__).parent / "kubernetes_schemas"


def validate(resource: dict[str, Any], version: str) -> None:
    """version: of Kubernetes, e.g. `1.37`. Raises jsonschema.ValidationError; FileNotFoundError for a kind it lacks."""
    kind, api_version = resource["kind"].lower(), resource["apiVersion"]
    group, _, version_of_group = api_version.rpartition("/")
    custom = _CUSTOM / f"{kind}-{group}-{version_of_group}.json"
    if custom.exists():
        _custom_validator(custom).validate(resource)
    else:
        # Named by the first part of the group: `networkpolicy-networking-v1`, `pod-v1`.
        name = "-".join(filter(None, (kind, group.split(".")[0], version_of_group)))
        _validator(name, version).validate(resource)


@cache
def _validator(name: str, version: str) -> jsonschema.Draft202012Validator:
    schema = json.loads(_of_version(version, f"{name}.json"))
    return jsonschema.Draft202012Validator(schema, registry=_definitions(version))


@cache
def _definitions(version: str) -> Registry[Any]:
    contents = json.loads(_of_version(version, "_definitions.json"))
    return Resource.from_contents(contents) @ Registry()


def _of_version(version: str, file: str) -> str:
    # Loaded by its own validate() at every call, definitions of 2 MB included.
    package = importlib.resources.files("kubernetes_validate")
    return (package / "kubernetes-json-schema" / f"v{version}.0-local-strict" / file).read_text(encoding="utf-8")


@cache
def _custom_validator(path: Path) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(_strict(json.loads(path.read_text(encoding="utf-8"))))


def _strict(schema: Any) -> Any:
    """The schema of a custom resource as a server with strict validation reads it."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {
        key: {name: _strict(item) for name, item in value.items()} if key == "properties" else _strict(value)
        for key, value in schema.items()
    }
    if made.pop("x-kubernetes-int-or-string", False):
        made["type"] = ["integer", "string"]
    # `metadata` stands there without fields: those the server knows.
    if made.get("properties") and not made.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made
