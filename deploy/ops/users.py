"""`users list|apply|remove`: SCRAM users of Kafka, their passwords taken from the environment."""

from __future__ import annotations

import argparse
from typing import Any

from deploy.kafka.acls import ADMIN, PRINCIPALS
from deploy.ops.acls import authorization
from deploy.ops.console import (
    Refused,
    Unusable,
    add_changing,
    add_command,
    add_json,
    add_verbs,
    confirm,
    given_passwords,
    say,
    table,
    tell,
)

_USERS = (*PRINCIPALS, ADMIN)
_MECHANISMS = ("SCRAM-SHA-512", "SCRAM-SHA-256")
_VARIABLE = "KAFKA_PASSWORD_"


def register(nouns: argparse._SubParsersAction[Any]) -> None:
    verbs = add_verbs(nouns, "users", help="users of Kafka and their passwords")
    listing = add_command(
        verbs,
        "list",
        help="which users have a password, by which mechanism",
        says="Print every SCRAM user of the cluster with the mechanisms that it has a password for.",
        examples="users list\nusers list --json",
    )
    add_json(listing)
    listing.set_defaults(run=_list)
    applying = add_command(
        verbs,
        "apply",
        help="make users, or change their passwords",
        says=f"Set the password of every user for which the environment has {_VARIABLE}<USER>, e.g.\n"
        f"{_VARIABLE}INTAKE: a password on the command line could be read by everybody on the machine. A user has\n"
        "one password per mechanism, and both hold: set the next one by the mechanism that is not in use, restart the\n"
        "service with it and with KAFKA_SASL_MECHANISM, then remove the old one. docs/kafka-security.md tells it step\n"
        "by step.",
        examples="users apply --dry-run\nusers apply --yes\nusers apply --mechanism SCRAM-SHA-256",
    )
    _add_mechanism(applying)
    add_changing(applying)
    applying.set_defaults(run=_apply)
    removing = add_command(
        verbs,
        "remove",
        help="take a password away; a user without any cannot sign in",
        says="Take the password of one mechanism away. Connections that are open stay so until they sign in anew\n"
        "(connections.max.reauth.ms on the brokers).",
        examples="users remove intake --mechanism SCRAM-SHA-512",
    )
    removing.add_argument("user", choices=_USERS)
    _add_mechanism(removing)
    add_changing(removing)
    removing.set_defaults(run=_remove)


def _add_mechanism(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--mechanism", choices=_MECHANISMS, default=_MECHANISMS[0], help="default: %(default)s")


async def _list(chosen: argparse.Namespace) -> int:
    cluster = authorization()
    from deploy.kafka.authorization import NotPermitted

    try:
        users = cluster.users()
    except NotPermitted as error:
        raise Refused(str(error)) from None
    if chosen.json:
        tell(users)
    else:
        print(table(("user", "mechanisms"), [(user, ", ".join(those)) for user, those in users.items()]))
        if without := [user for user in _USERS if user not in users]:
            say(f"without a password: {', '.join(without)}")
    return 0


async def _apply(chosen: argparse.Namespace) -> int:
    passwords = given_passwords(_VARIABLE, _USERS)
    if not passwords:
        raise Unusable(f"no {_VARIABLE}<USER> is set; users are {', '.join(_USERS)}")
    cluster = authorization()
    from deploy.kafka.authorization import NotPermitted

    say(f"{chosen.mechanism} passwords of {', '.join(passwords)}")
    if not confirm(chosen, f"set {len(passwords)} passwords"):
        return 0
    for user, password in passwords.items():
        try:
            cluster.set_password(user, password, chosen.mechanism)
        except ValueError as error:
            raise Unusable(f"{_VARIABLE}{user.upper()}: {error}") from None
        except NotPermitted as error:
            raise Refused(str(error)) from None
        say(f"set: {user}")
    return 0


async def _remove(chosen: argparse.Namespace) -> int:
    cluster = authorization()
    from deploy.kafka.authorization import NotPermitted

    try:
        has = cluster.users().get(chosen.user, ())
        if chosen.mechanism not in has:
            say(f"{chosen.user} has no {chosen.mechanism} password")
            return 0
        left = [one for one in has if one != chosen.mechanism]
        say(f"{chosen.user} then has {' and '.join(left) if left else 'no password, and cannot sign in'}")
        if confirm(chosen, f"take the {chosen.mechanism} password of {chosen.user} away"):
            cluster.remove_password(chosen.user, chosen.mechanism)
    except NotPermitted as error:
        raise Refused(str(error)) from None
    return 0
