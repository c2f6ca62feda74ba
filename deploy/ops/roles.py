"""`roles apply|verify`: roles of PostgreSQL, one per service; see `deploy.postgres.roles`."""

from __future__ import annotations

import argparse
from typing import Any, Final

import asyncpg

from deploy.ops.console import (
    REFUSED,
    Refused,
    Unusable,
    add_changing,
    add_command,
    add_json,
    add_verbs,
    confirm,
    given_passwords,
    say,
    tell,
)
from deploy.postgres import roles as postgres
from deploy.postgres.roles import PREFIX, Roles
from shared.settings import CommonSettings

_VARIABLE: Final = "POSTGRES_PASSWORD_"


def register(nouns: argparse._SubParsersAction[Any]) -> None:
    verbs = add_verbs(nouns, "roles", help="roles of PostgreSQL: each service may use its own schema only")
    applying = add_command(
        verbs,
        "apply",
        help="make roles, schemas and grants; again as often as wanted",
        says="Make a role per service with rights on its schema only, and one that owns the tables and migrates them.\n"
        f"Passwords come from the environment: {_VARIABLE}OWNER, {_VARIABLE}INTAKE and so on; a role\n"
        "without one keeps what it has. DATABASE_URL is a superuser's. Existing schemas and tables change their\n"
        "owner; running services go on.",
        examples="roles apply --dry-run\nroles apply --yes",
    )
    _add_prefix(applying)
    add_changing(applying)
    applying.set_defaults(run=_apply)
    verifying = add_command(
        verbs,
        "verify",
        help="name each difference; exit status 1 if there is one",
        says="Compare the roles and what they may do with what they should. Any role that can sign in may run it.",
        examples="roles verify\nroles verify --json",
    )
    _add_prefix(verifying)
    add_json(verifying)
    verifying.set_defaults(run=_verify)


def _add_prefix(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prefix", default=PREFIX, help="how the names of the roles begin; default: %(default)s")


def _roles(chosen: argparse.Namespace) -> Roles:
    try:
        return Roles(chosen.prefix)
    except ValueError as error:
        raise Unusable(str(error)) from None


async def _apply(chosen: argparse.Namespace) -> int:
    roles = _roles(chosen)
    url = CommonSettings().database_url.get_secret_value()
    passwords = given_passwords(_VARIABLE, roles.all)
    for line in await _differences(url, roles):
        say(line)
    say(f"passwords are set for {', '.join(passwords) or 'nobody'}")
    if not confirm(chosen, f"bring {len(roles.all)} roles to what they should be"):
        return 0
    try:
        await postgres.apply(url, roles, passwords)
    except ValueError as error:
        raise Unusable(str(error)) from None
    except asyncpg.InsufficientPrivilegeError as error:
        raise Refused(f"DATABASE_URL must be a superuser's: {error}") from None
    return await _verify_and_say(url, roles)


async def _verify(chosen: argparse.Namespace) -> int:
    url = CommonSettings().database_url.get_secret_value()
    if not chosen.json:
        return await _verify_and_say(url, _roles(chosen))
    found = await _differences(url, _roles(chosen))
    tell(found)
    return REFUSED if found else 0


async def _verify_and_say(url: str, roles: Roles) -> int:
    found = await _differences(url, roles)
    for line in found:
        print(line)
    say(f"{len(roles.all)} roles looked at, {len(found)} differences")
    return REFUSED if found else 0


async def _differences(url: str, roles: Roles) -> list[str]:
    try:
        return await postgres.verify(url, roles)
    except asyncpg.PostgresError as error:
        raise Refused(f"the roles cannot be read: {error}") from None
