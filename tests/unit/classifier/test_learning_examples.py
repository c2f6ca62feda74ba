"""Files of labelled messages: what is read, and what is said of lines that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.classifier.learning.examples import (
    BadFile,
    Example,
    rare_labels,
    read_examples,
    without_repetitions,
)


def written(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "data.tsv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_columns_by_place(tmp_path: Path) -> None:
    path = written(tmp_path, '付款 失败\tpay\n\n"quoted" is text\tother\r\n')
    assert read_examples(path) == [
        Example("付款 失败", "pay", line=1),
        Example('"quoted" is text', "other", line=3),
    ]


def test_columns_by_name_in_any_order(tmp_path: Path) -> None:
    path = written(tmp_path, "\ufeffLabel\tid\tText\tlanguage\talternatives\npay\t7\thi\ten\trefund, other\n")
    assert read_examples(path) == [Example("hi", "pay", "en", frozenset({"refund", "other"}), line=2)]


@pytest.mark.parametrize(
    ("third", "language", "alternatives"),
    [("zh", "zh", frozenset()), ("b,c", None, frozenset({"b", "c"})), ("", None, frozenset())],
)
def test_a_third_column_without_a_name(
    tmp_path: Path, third: str, language: str | None, alternatives: frozenset[str]
) -> None:
    (example,) = read_examples(written(tmp_path, f"hi\ta\t{third}\n"))
    assert (example.language, example.alternatives) == (language, alternatives)


def test_secrets_are_cut(tmp_path: Path) -> None:
    (example,) = read_examples(written(tmp_path, "卡号4111 1111 1111 1111付款失败\tpay\n"))
    assert example.text == "卡号[card]付款失败"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("hi\ta\nno label here\n", ":2: has 1 column; text and label"),
        ("hi\ta\n\tb\n", ":2: has no text"),
        ("hi\ta\nho\t \n", ":2: has no label"),
        ("text\tlabel\tlanguage\nhi\ta\tchinese\n", ":2: language 'chinese' is none of en, other, zh"),
        (f"hi\t{'long ' * 50}\n", ":1: the label has 249 characters"),
        (f"{'x' * 20_001}\ta\n", ":1: the text has 20,001 characters"),
        (b"hi\ta\n\xff\tb\n", ":2: is not UTF-8"),
        ("text\tlabel\n", ": holds no example"),
        ("", ": holds no example"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path: Path, content: str | bytes, said: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(BadFile) as raised:
        read_examples(path)
    assert str(raised.value).startswith(f"{path}{said}")


def test_every_bad_line_is_named_up_to_ten(tmp_path: Path) -> None:
    with pytest.raises(BadFile) as raised:
        read_examples(written(tmp_path, "hi\ta\n" + "bad\n" * 12))
    lines = str(raised.value).splitlines()
    assert len(lines) == 11
    assert ":11: has 1 column" in lines[9]
    assert lines[10] == "and 2 more"


def test_a_label_that_nobody_knows(tmp_path: Path) -> None:
    path = written(tmp_path, "hi\ta\tb\nho\tb\tc\n")
    with pytest.raises(BadFile, match=r":2: label 'c' is none of the 2 that the classifier knows"):
        read_examples(path, ["a", "b"])


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="cannot be read: No such file"):
        read_examples(tmp_path / "none.tsv")


def test_repetitions_count_once_contradictions_stay() -> None:
    first, again, other = Example("x", "a", line=1), Example("x", "a", line=2), Example("x", "b", line=3)
    assert without_repetitions([first, again, other]) == [first, other]


def test_rare_labels() -> None:
    assert rare_labels([Example("1", "b"), Example("2", "a"), Example("3", "a")], 2) == {"b": 1}
