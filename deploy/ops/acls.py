"""`acls show|apply|verify`: who may do what on Kafka, as `deploy.kafka.acls` derives it from `shared/topics.py`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from deploy.kafka.acls import PRINCIPALS, acls_of
from deploy.ops.console import (
    REFUSED,
    Refused,
    add_changing,
    add_command,
    add_json,
    add_verbs,
    confirm,
    say,
    tell,
)
from shared.settings import CommonSettings

if TYPE_CHECKING:
    from deploy.kafka.authorization import Authorization, Differences


def register(nouns: argparse._SubParsersAction[Any]) -> None:
    verbs = add_verbs(nouns, "acls", help="who may read and write which topic of Kafka")
    showing = add_command(
        verbs,
        "show",
        help="print the ACLs that should be there; asks no broker",
        says="Print what every user should be allowed, as derived from shared/topics.py. Asks no broker.",
        examples="acls show\nacls show --user intake\nacls show --json",
    )
    showing.add_argument("--user", choices=PRINCIPALS, help="only this user's")
    add_json(showing)
    showing.set_defaults(run=_show)
    applying = add_command(
        verbs,
        "apply",
        help="grant what is missing, then revoke what our users have beyond it",
        says="Bring the cluster's ACLs to what they should be: grant what is missing first, then revoke what\n"
        "Switchyard's users, or everybody (User:*), have beyond it. ACLs of other users are left alone. Needs a super\n"
        "user of Kafka: whoever may write ACLs may give themselves everything.",
        examples="acls apply --dry-run\nacls apply --yes",
    )
    add_changing(applying)
    applying.set_defaults(run=_apply)
    verifying = add_command(
        verbs,
        "verify",
        help="name each difference; exit status 1 if there is one",
        says="Compare the cluster's ACLs with what they should be. Prints each difference, and on standard error the\n"
        "ACLs of users that are not Switchyard's. The user `operations` may run it.",
        examples="acls verify\nacls verify --json",
    )
    add_json(verifying)
    verifying.set_defaults(run=_verify)


def authorization() -> Authorization:
    """The cluster of the environment. Imported here: a large library, which the other commands do without."""
    from deploy.kafka.authorization import Authorization

    return Authorization(CommonSettings())


async def _show(chosen: argparse.Namespace) -> int:
    for acl in acls_of():
        if chosen.user not in (None, acl.principal):
            continue
        if chosen.json:
            tell(
                {
                    "user": acl.principal,
                    "operation": acl.operation,
                    "resource": acl.resource.name.lower(),
                    "name": acl.name,
                    "is_prefix": acl.is_prefix,
                }
            )
        else:
            print(acl)
    return 0


async def _apply(chosen: argparse.Namespace) -> int:
    from deploy.kafka.authorization import NotPermitted

    cluster = authorization()
    try:
        found = cluster.compare(acls_of())
        _say(found)
        if found.none:
            say(f"all {len(acls_of())} ACLs are as they should be")
            return 0
        if not confirm(chosen, f"grant {len(found.missing)} ACLs and revoke {len(found.surplus)}"):
            return 0
        cluster.apply(found)
    except NotPermitted as error:
        raise Refused(str(error)) from None
    say(f"granted {len(found.missing)} ACLs, revoked {len(found.surplus)}")
    return 0


async def _verify(chosen: argparse.Namespace) -> int:
    from deploy.kafka.authorization import NotPermitted, describe

    cluster = authorization()
    try:
        found = cluster.compare(acls_of())
    except NotPermitted as error:
        raise Refused(str(error)) from None
    if chosen.json:
        tell({what: [describe(one) for one in getattr(found, what)] for what in ("missing", "surplus", "foreign")})
    else:
        _say(found, differences_on_stdout=True)
        say(f"{len(acls_of())} ACLs looked for, {len(found.missing)} missing, {len(found.surplus)} too many")
    return 0 if found.none else REFUSED


def _say(found: Differences, *, differences_on_stdout: bool = False) -> None:
    from deploy.kafka.authorization import describe

    write = print if differences_on_stdout else say
    for one in found.missing:
        write(f"missing: {describe(one)}")
    for one in found.surplus:
        write(f"too many: {describe(one)}")
    for one in found.foreign:
        say(f"not ours, left alone: {describe(one)}")
