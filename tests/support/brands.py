"""Brands' files for tests: the least that one must say, and what a test adds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def brand_content(code: str = "some_brand", **changes: Any) -> dict[str, Any]:
    return {
        "brand": code,
        "name": {"zh": "某钱包", "en": "Some Wallet"},
        "channels": {"app_chat": {"hours": "always"}},
        "mail_from": "service@some.example",
        "gateways": {"default": "other_brands"},
        "leads": {"default": ["service_lead"]},
    } | changes


def write_brand(directory: Path, code: str = "some_brand", **changes: Any) -> Path:
    """The directory that holds the brand's file now."""
    directory.mkdir(exist_ok=True)
    content = yaml.safe_dump(brand_content(code, **changes), allow_unicode=True, sort_keys=False)
    (directory / f"{code}.yaml").write_text(content, encoding="utf-8")
    return directory
