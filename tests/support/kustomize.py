"""Builds kustomizations with `kubectl kustomize`, or with `kustomize` where there is no kubectl."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

Resource = dict[str, Any]


def command() -> list[str]:
    """Skips the test where neither program is, or fails it with REQUIRE_KUSTOMIZE."""
    if shutil.which("kubectl"):
        return ["kubectl", "kustomize"]
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    missing = "neither kubectl nor kustomize is on the PATH: install one to build deploy/k8s"
    if os.environ.get("REQUIRE_KUSTOMIZE", "") not in ("", "0"):
        pytest.fail(f"REQUIRE_KUSTOMIZE is set. {missing}", pytrace=False)
    pytest.skip(missing)


@cache
def build(directory: Path) -> tuple[Resource, ...]:
    """What `kubectl apply -k` would send. Do not change what it returns: it is built once."""
    built = subprocess.run([*command(), str(directory)], capture_output=True, text=True, check=False, timeout=120)
    assert built.returncode == 0, built.stderr
    # A warning is a kustomization in an old form.
    assert not built.stderr, built.stderr
    return tuple(yaml.load_all(built.stdout, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
