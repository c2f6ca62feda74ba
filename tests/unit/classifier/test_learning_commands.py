"""`train` and `evaluate` as they are called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from services.classifier.commands import evaluate, train
from tests.unit.classifier.learnt import as_tsv

QUICK = ("--no-encoder", "--folds", "3")


def data(tmp_path: Path, content: str | None = None) -> str:
    path = tmp_path / "data.tsv"
    path.write_text(as_tsv() if content is None else content, encoding="utf-8")
    return str(path)


def test_train_then_evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model"
    assert train.main(["--data", data(tmp_path), "--out", str(out), *QUICK]) == 0
    printed = capsys.readouterr()
    assert "72 examples, 3 labels" in printed.out
    assert "fold 3 of 3" in printed.err
    assert sorted(file.name for file in out.iterdir()) == [
        "card.md", "model.json", "risk_coverage.svg", "weights.npz",
    ]  # fmt: skip
    assert evaluate.main(["--data", data(tmp_path), "--model", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"] == f"learned-{json.loads((out / 'model.json').read_text())['version']}"
    assert found["strict"]["examples"] == 72
    assert found["strict"]["accuracy"] == 1  # on what it was trained on
    assert found["confusion_matrix"] == {label: {label: 24} for label in ("address", "broken", "late")}
    assert found["with_alternatives"] is None


def test_without_out_the_directory_is_named_by_the_version(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train.main(["--data", data(tmp_path), *QUICK]) == 0
    (directory,) = (tmp_path / "models").iterdir()
    assert f"learned-{directory.name}:" in capsys.readouterr().out


def test_labels_with_too_few_examples_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rare = data(
        tmp_path, as_tsv() + "hello\tgreeting\ten\nhello\tgreeting\ten\nhow much\tprice\ten\nis it\tprice\ten\n"
    )
    assert train.main(["--data", rare, "--out", str(tmp_path / "model"), *QUICK]) == 2
    said = capsys.readouterr().err
    assert "1 repeated examples count once" in said
    assert "too few examples (each label needs 3, one for each fold): greeting (1), price (2); add examples" in said
    assert not (tmp_path / "model").exists()
    assert train.main(["--data", rare, "--out", str(tmp_path / "model"), "--skip-rare", *QUICK]) == 0
    printed = capsys.readouterr()
    assert "left out, too few examples: greeting, price" in printed.err
    assert "72 examples, 3 labels" in printed.out


@pytest.mark.parametrize("command", [train.main, evaluate.main])
def test_a_bad_line_is_named(command: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(command)
    assert command(["--data", data(tmp_path, "hi\tother\nno label\n")]) == 2
    assert "data.tsv:2: has 1 column" in capsys.readouterr().err


def test_the_shipped_classifier_is_measured_without_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Right; right by its alternative; wrong.
    content = "My card was stolen\taccount_security\t\n怎么提现\thow_to\twithdrawal,other\n你好\trefund\t\n"
    assert evaluate.main(["--data", data(tmp_path, content), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"].startswith("switchyard-")
    assert found["strict"]["accuracy"] == pytest.approx(1 / 3)
    assert found["with_alternatives"]["accuracy"] == pytest.approx(2 / 3)
    assert found["confusion_matrix"]["how_to"] == {"withdrawal": 1}
    assert evaluate.main(["--data", data(tmp_path, content)]) == 0
    table = capsys.readouterr().out
    assert "strict               0.3333" in table
    assert "with alternatives    0.6667" in table
    assert "refund  other           1" in table


def test_a_label_that_is_no_category(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main(["--data", data(tmp_path, "hi\tgreeting\n")]) == 2
    assert ":1: label 'greeting' is none of the 19 that the classifier knows" in capsys.readouterr().err


def test_a_model_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main(["--data", data(tmp_path), "--model", str(tmp_path)]) == 2
    assert "name the directory that `train` wrote" in capsys.readouterr().err
