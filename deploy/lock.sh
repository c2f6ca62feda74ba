#!/bin/sh
# make lock: pin pyproject.toml's dependencies for every platform, each file by its hash and without index addresses.
#   lock.sh [--upgrade]    without --upgrade, pins that still fit stay
set -eu
uv=.run/uv/bin/uv
if [ ! -x "$uv" ]; then
    .venv/bin/python -m venv .run/uv
    .run/uv/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.13,<0.14'
fi

compile() {
    "$uv" pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --no-annotate --no-header "$@"
}

compile --output-file requirements.lock "$@"
# The services are tested with the very versions they run with.
compile --extra embedded --extra pictures --extra training --extra dev --constraint requirements.lock --output-file requirements-dev.lock "$@"
