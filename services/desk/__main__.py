"""`python -m services.desk` runs the desk; `python -m services.desk token` makes a token for `agents.yaml`."""

from __future__ import annotations

import argparse
import secrets
import sys

from shared.early_stop import end_when_told


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m services.desk", description=__doc__)
    parser.add_argument("command", nargs="?", choices=("run", "token"), default="run")
    if parser.parse_args().command == "token":
        from shared.http import token_hash

        token = secrets.token_urlsafe(32)
        print(f"token         {token}")
        print(f"token_sha256  {token_hash(token)}")
        print("Give the token to its agent; put only token_sha256 into agents.yaml.")
        return 0
    end_when_told()
    from services.desk.app import build
    from services.desk.settings import Settings
    from shared import logs
    from shared.service import run
    from shared.yaml_files import ConfigError

    settings = Settings()
    logs.configure("desk", settings.log_level, settings.log_format)  # agents without a token are told while it is built
    try:
        service = build(settings)
    except ConfigError as error:
        print(f"desk cannot start:\n{error}", file=sys.stderr)
        return 2
    run(service)
    return 0


if __name__ == "__main__":
    sys.exit(main())
