"""What a stranger sends becomes no label."""

from __future__ import annotations

from pathlib import Path

from shared.labels import Brands, method_label


def test_a_brand_is_known_by_its_file_also_by_one_that_comes_later(tmp_path: Path) -> None:
    now = 0.0
    brands = Brands(clock=lambda: now)
    (tmp_path / "upay.yaml").touch()
    brands.add(tmp_path)
    assert [brands.label(code) for code in ("upay", "topay", None)] == ["upay", "other", "none"]
    (tmp_path / "topay.yaml").touch()
    now = 59.0
    assert brands.label("topay") == "other"  # a stranger's thousand codes do not make us look a thousand times
    now = 60.0
    assert brands.label("topay") == "topay"


def test_brands_of_several_directories_are_known(tmp_path: Path) -> None:
    brands = Brands()
    for code in ("upay", "topay"):
        (tmp_path / code).mkdir()
        (tmp_path / code / f"{code}.yaml").touch()
        brands.add(tmp_path / code)
    assert [brands.label(code) for code in ("upay", "topay")] == ["upay", "topay"]


def test_an_invented_method_is_another() -> None:
    assert [method_label(method) for method in ("GET", "get", "BREW")] == ["GET", "other", "other"]
