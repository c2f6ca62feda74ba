"""The image without Docker: what the Dockerfile copies, run where everything but /tmp is read-only, by a user who owns
nothing, has no rights and no HOME, and with no package but those of requirements.lock.

Needs Linux, and root (as a container's runtime is), for a mount namespace.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Final

from deploy.processes import REPOSITORY
from tests.unit.test_deploy_locks import RUNTIME, pins

_USER: Final = 10001
_ROOM: Final = Path(
    "/mnt"
)  # a directory that every Linux has: the tree, the packages and the guard are mounted below it

# Mounts first, then nothing may be written any more, then the rights go. An interpreter that lies where only root may
# look (/root) is mounted anew in the same place.
_ENTER: Final = f"""
set -e
mount -t tmpfs -o mode=755 tmpfs {_ROOM}
mkdir {_ROOM}/app {_ROOM}/venv {_ROOM}/guard {_ROOM}/base
mount --bind "$1" {_ROOM}/app
mount --bind "$2" {_ROOM}/venv
mount --bind "$3" {_ROOM}/guard
mount --bind "$4" {_ROOM}/base
case "$4" in
    /usr | /usr/*) top={_ROOM} ;;
    *)
        top=/$(echo "$4" | cut -d / -f 2)
        mount -t tmpfs -o mode=755 tmpfs "$top"
        mkdir -p "$4"
        mount --bind {_ROOM}/base "$4"
        ;;
esac
mount -t tmpfs -o size=64m,mode=1777 tmpfs /tmp
for where in / "$top" "$4" {_ROOM} {_ROOM}/app {_ROOM}/venv {_ROOM}/guard {_ROOM}/base /dev/shm; do
    ! mountpoint -q "$where" || mount -o remount,bind,ro "$where"
done
shift 4
cd {_ROOM}/app
exec setpriv --reuid {_USER} --regid {_USER} --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""

_GUARD: Final = '''
"""Packages that only tests and tools have are not there."""
import sys

class Absent:
    names = frozenset({names!r})

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"{{name}} is not in requirements.lock", name=name)

sys.meta_path.insert(0, Absent())
'''


def why_not() -> str | None:
    """Why the image cannot be acted out here, or None."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "only root on Linux can make a mount namespace"
    for program in ("unshare", "setpriv", "mount", "mountpoint"):
        if shutil.which(program) is None:
            return f"{program} is not on the PATH (util-linux)"
    tried = subprocess.run(["unshare", "--mount", "true"], capture_output=True, text=True, check=False)
    return tried.stderr.strip() or None


class Image:
    """The tree below `directory`, made anew."""

    def __init__(self, directory: Path) -> None:
        shutil.rmtree(directory, ignore_errors=True)
        self._app, self._guard = directory / "app", directory / "guard"
        for source in copied():
            target = self._app / source
            target.parent.mkdir(parents=True, exist_ok=True)
            if (REPOSITORY / source).is_dir():
                shutil.copytree(REPOSITORY / source, target)  # what is compiled comes along, as the image compiles it
            else:
                shutil.copy2(REPOSITORY / source, target)
        self._guard.mkdir(parents=True)
        (self._guard / "sitecustomize.py").write_text(_GUARD.format(names=sorted(absent())))

    def command(self, *arguments: str) -> list[str]:
        """What runs `arguments` in the image; `python` is the image's."""
        run = [str(_ROOM / "venv" / "bin" / "python") if word == "python" else word for word in arguments]
        mounts = [str(self._app), sys.prefix, str(self._guard), sys.base_prefix]
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", _ENTER, "sh", *mounts, *run]

    @property
    def environment(self) -> dict[str, str]:
        """What the Dockerfile sets, and the guard. No HOME, as in a container whose user has no entry in passwd."""
        return {
            "PATH": f"{_ROOM}/venv/bin:/usr/bin:/bin",
            "PYTHONPATH": str(_ROOM / "guard"),
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }


def copied() -> list[str]:
    """Paths that the Dockerfile copies out of the repository."""
    text = (REPOSITORY / "deploy" / "docker" / "Dockerfile").read_text()
    last_stage = text[text.rindex("\nFROM ") :]
    lines = re.findall(r"^COPY (?!--)(.+)$", last_stage, re.M)
    return [source for line in lines for source in line.split()[:-1]]


@cache
def absent() -> frozenset[str]:
    """Modules of installed packages that requirements.lock does not name."""
    runtime = set(pins(RUNTIME))
    of_runtime: set[str] = set()
    others: set[str] = set()
    for module, packages in metadata.packages_distributions().items():
        names = {re.sub(r"[-_.]+", "-", package).lower() for package in packages}
        (of_runtime if names & runtime else others).add(module)
    return frozenset(others - of_runtime)
