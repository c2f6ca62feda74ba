#!/bin/sh
# make setup: a virtual environment in .venv with exactly what the lock file names, every file checked by its hash.
#   setup.sh LOCK STAMP    STAMP becomes a copy of LOCK once everything is installed
set -eu
lock=$1
stamp=$2

# A name on the PATH may be a shim that fails, a Python too old, or one without venv: so each is tried out.
suits() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    for name in ${PYTHON:-} python3.14 python3.13 python3.12 python3.11 python3 python; do
        if suits "$name"; then
            echo "$name"
            return
        fi
    done
    echo 'Switchyard needs Python 3.11 or newer with the venv module; none of python3.14 to python3.11, python3 and' >&2
    echo 'python on the PATH is that. Install one (Debian, Ubuntu: apt install python3 python3-venv) and run' >&2
    echo '`make setup` again, or name it: `PYTHON=/path/to/python3 make setup`.' >&2
    exit 1
}

if ! suits .venv/bin/python; then
    python=$(find_python)
    echo "Making .venv with $("$python" --version)" >&2
    "$python" -m venv --clear .venv
fi

echo "Installing what $lock names" >&2
rm -f "$stamp"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input --require-hashes -r "$lock"
cp "$lock" "$stamp"
