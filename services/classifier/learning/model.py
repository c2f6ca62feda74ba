"""A learned model: a linear classifier over terms and, if wanted, the sentence encoder, with calibrated confidence.

In a directory it is `model.json` (settings, labels, thresholds) and `weights.npz` (plain arrays). Neither can hold
code, and loading runs none: arrays of objects, which numpy would unpickle, are refused.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.classifier.domain.text import Token, read
from services.classifier.learning.features import ENCODER_NUMBERS, Feature, Placed, Terms, encode, terms
from shared.yaml_files import ConfigError

FORMAT: Final = 2
MODEL_FILE: Final = "model.json"
WEIGHTS_FILE: Final = "weights.npz"
_AT_ONCE: Final = 256
Floats = npt.NDArray[np.float32]


class BadModel(ConfigError):
    """A model that cannot be loaded; the message names the file and what is wrong with it."""


class Settings(BaseModel):
    """What a model was made with. The same data and settings give the same model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    features: tuple[Feature, ...] = Field(default=(Feature.TOKENS, Feature.PIECES), min_length=1)
    encoder_weight: float = Field(
        default=1.5, gt=0, description="length of that part of a text's features; the others: 1"
    )
    fewest_texts: int = Field(default=2, ge=1, description="a term of fewer texts is passed over")
    regularisation: float = Field(default=0.5, gt=0, description="C of the support vector machine: higher fits closer")
    folds: int = Field(default=5, ge=2)
    seed: int = 20
    precision: float = Field(default=0.9, gt=0, lt=1, description="that the thresholds are chosen for")


class _ModelFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int
    version: str
    settings: Settings
    labels: tuple[str, ...] = Field(min_length=2)
    temperature: float = Field(gt=0)
    thresholds: dict[str, float | None]
    weights_sha256: str


@dataclass(frozen=True, slots=True)
class Parts:
    """What the classifier weighs: for each kind of term its terms and weights (terms, labels); the encoder's weights
    (512, labels) or None; and a constant for each label.
    """

    terms: Mapping[Feature, Terms]
    weights: Mapping[Feature, Floats]
    encoder_weights: Floats | None
    constants: Floats


@dataclass(frozen=True, slots=True)
class Guess:
    """`sure`: the confidence reaches the label's threshold; below it a person should decide."""

    label: str
    confidence: float
    sure: bool


@dataclass(frozen=True, slots=True)
class TextModel:
    """`labels` are in the order of the columns of scores. `thresholds`: for each label the confidence from which on it
    can be trusted as often as `settings.precision`, None where no confidence is enough.
    """

    version: str
    settings: Settings
    labels: tuple[str, ...]
    parts: Parts
    temperature: float
    thresholds: Mapping[str, float | None]

    @property
    def name(self) -> str:
        return f"learned-{self.version}"

    def scores(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """(texts, labels): how strongly each text speaks for each label; not yet probabilities."""
        scores = self.weigh(self.place([read(text).tokens for text in texts]), len(texts))
        if self.parts.encoder_weights is not None:
            for start in range(0, len(texts), _AT_ONCE):
                some = slice(start, start + _AT_ONCE)
                scores[some] += self.meaning(texts[some])
        return scores.astype(np.float64)

    def place(self, tokens: Sequence[Sequence[Token]]) -> dict[Feature, Placed]:
        """The terms of texts that this model knows, given the tokens of each."""
        return {
            feature: known.place([terms(each, feature) for each in tokens])
            for feature, known in self.parts.terms.items()
        }

    def weigh(self, placed: Mapping[Feature, Placed], texts: int) -> Floats:
        """(texts, labels): the constants and what the terms add to them."""
        scores: Floats = np.tile(self.parts.constants, (texts, 1))
        for feature, each in placed.items():
            scores += each.times(self.parts.weights[feature])
        return scores

    def meaning(self, texts: Sequence[str]) -> Floats:
        """(texts, labels): what the encoder adds. Only of a model that has it; raises NoEncoder."""
        assert self.parts.encoder_weights is not None
        return (np.float32(self.settings.encoder_weight) * encode(texts) @ self.parts.encoder_weights).astype(
            np.float32
        )

    def probabilities(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """(texts, labels), each row adding up to 1."""
        return probabilities(self.scores(texts), self.temperature)

    def guesses(self, texts: Sequence[str]) -> list[Guess]:
        return [self._guess(row) for row in self.probabilities(texts)]

    def _guess(self, row: npt.NDArray[np.float64]) -> Guess:
        best = int(row.argmax())
        label, confidence = self.labels[best], float(row[best])
        threshold = self.thresholds[label]
        return Guess(label, confidence, threshold is not None and confidence >= threshold)


def probabilities(scores: npt.NDArray[np.float64], temperature: float) -> npt.NDArray[np.float64]:
    """Softmax of the scores divided by the temperature."""
    scaled = scores / temperature
    exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    result: npt.NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return result


def save(model: TextModel, directory: Path) -> None:
    """Write the two files of a model, in the place of those of an earlier one. Raises OSError."""
    arrays: dict[str, npt.NDArray[np.generic]] = {"constants": model.parts.constants}
    for feature, known in model.parts.terms.items():
        # No term holds a line's end. As bytes: numpy would give every term the width of the longest.
        arrays[f"{feature}_terms"] = np.frombuffer("\n".join(known.places).encode(), np.uint8)
        arrays[f"{feature}_rarity"] = known.rarity
        arrays[f"{feature}_weights"] = model.parts.weights[feature].astype(np.float16)
    if model.parts.encoder_weights is not None:
        arrays["encoder_weights"] = model.parts.encoder_weights.astype(np.float16)
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)  # type: ignore[arg-type]
    content = packed.getvalue()
    described = _ModelFile(
        format=FORMAT,
        version=model.version,
        settings=model.settings,
        labels=model.labels,
        temperature=model.temperature,
        thresholds=dict(model.thresholds),
        weights_sha256=hashlib.sha256(content).hexdigest(),
    )
    directory.mkdir(parents=True, exist_ok=True)
    _replace(directory / WEIGHTS_FILE, content)
    text = json.dumps(described.model_dump(mode="json"), ensure_ascii=False, indent=2)
    _replace(directory / MODEL_FILE, f"{text}\n".encode())


def _replace(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.new")
    beside.write_bytes(content)
    beside.replace(path)


def load(directory: Path) -> TextModel:
    """The model of a directory. Raises BadModel."""
    described = _described(directory / MODEL_FILE)
    path = directory / WEIGHTS_FILE
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadModel(f"{path}: cannot be read: {error.strerror}; train the model again") from None
    if hashlib.sha256(content).hexdigest() != described.weights_sha256:
        raise BadModel(f"{path}: is not the file that {MODEL_FILE} was written with; train the model again")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            parts = _parts(arrays, described)
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise BadModel(f"{path}: {error}; train the model again") from None
    return TextModel(
        version=described.version,
        settings=described.settings,
        labels=described.labels,
        parts=parts,
        temperature=described.temperature,
        thresholds=described.thresholds,
    )


def _described(path: Path) -> _ModelFile:
    try:
        described = _ModelFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BadModel(f"{path}: cannot be read: {error.strerror}; name the directory that `train` wrote") from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise BadModel(f"{path}: {where}: {first['msg']}; train the model again") from None
    if described.format != FORMAT:
        raise BadModel(f"{path}: format {described.format}, this version reads {FORMAT}; train the model again")
    if set(described.thresholds) != set(described.labels):
        raise BadModel(f"{path}: thresholds: must name every label once; train the model again")
    return described


def _parts(arrays: Mapping[str, npt.NDArray[np.generic]], described: _ModelFile) -> Parts:
    """Raises ValueError and KeyError."""
    labels = len(described.labels)
    known: dict[Feature, Terms] = {}
    weights: dict[Feature, Floats] = {}
    encoder_weights: Floats | None = None
    for feature in described.settings.features:
        if feature is Feature.ENCODER:
            encoder_weights = _floats(arrays, "encoder_weights", (ENCODER_NUMBERS, labels))
            continue
        written = arrays[f"{feature}_terms"].astype(np.uint8).tobytes().decode()
        names = written.split("\n") if written else []
        known[feature] = Terms(
            {name: place for place, name in enumerate(names)}, _floats(arrays, f"{feature}_rarity", (len(names),))
        )
        weights[feature] = _floats(arrays, f"{feature}_weights", (len(names), labels))
    return Parts(known, weights, encoder_weights, _floats(arrays, "constants", (labels,)))


def _floats(arrays: Mapping[str, npt.NDArray[np.generic]], name: str, shape: tuple[int, ...]) -> Floats:
    array = arrays[name]
    if array.shape != shape or array.dtype.kind != "f":
        raise ValueError(f"{name} is {array.dtype} {array.shape}, should be numbers {shape}")
    return array.astype(np.float32)
