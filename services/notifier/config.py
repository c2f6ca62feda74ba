"""Reads the notifier's files: texts, brands, and `notifications.yaml`, whose references the environment fills."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

from pydantic import model_validator

from services.notifier.domain.outputs import NotifierBrand, Outputs
from services.notifier.domain.texts import TextBook, Texts
from shared.brands import load_brands
from shared.yaml_files import filled, load_yaml, missing_references, refused

TEXTS_DIRECTORY: Final = Path(__file__).parent / "texts"


def load_texts(directory: Path = TEXTS_DIRECTORY) -> Texts:
    """Raises shared.yaml_files.ConfigError with file, line and field."""
    return Texts(zh=load_yaml(directory / "zh.yaml", TextBook), en=load_yaml(directory / "en.yaml", TextBook))


def load_outputs(path: Path, brands_directory: Path, environment: Mapping[str, str]) -> Outputs:
    """`environment` fills the references of the file at `path`. An entry that an optional one leaves empty is dropped.

    Raises shared.yaml_files.ConfigError with file, line and field, never with a value: it may be a secret.
    """

    class Referring(Outputs):
        @model_validator(mode="before")
        @classmethod
        def _fill_references(cls, content: Any) -> Any:
            faults = [
                (field, f"set the environment variable {name}")
                for field, name in missing_references(content, environment)
            ]
            if isinstance(content, dict) and "brands" in content:
                faults.append((("brands",), "each brand has a file of its own, see docs/brands.md"))
            if faults:
                raise refused(faults)
            return filled(content, environment)[0]

    outputs = load_yaml(path, Referring)

    class ReferringBrand(NotifierBrand):
        @model_validator(mode="after")
        def _refers_to_what_is_there(self) -> Self:
            if faults := outputs.faults_of(self):
                raise refused(faults)
            return self

    brands = load_brands(brands_directory, ReferringBrand)
    return outputs.model_copy(update={"brands": {code: brand.as_brand() for code, brand in brands.items()}})
