"""One role per service with rights on its own schema, and one that owns the tables and migrates them.

`<prefix>_owner` is for `deploy.migrations` and for operators' commands; `<prefix>_<service>` for the service alone.
What the owner creates later is the service's to use by default privileges, so a migration needs no grants.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import asyncpg
from pydantic import SecretStr
from sqlalchemy.engine import make_url

from shared.database import SERVICES

OWNER: Final = "owner"
PREFIX: Final = "switchyard"
PASSWORD_AT_LEAST: Final = 20
_ITERATIONS: Final = 4096  # as PostgreSQL's scram_iterations; the passwords are random and long
_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_MAY_NOT: Final = "NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
_USED: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")
_NOT_USED: Final = ("TRUNCATE", "REFERENCES", "TRIGGER")


@dataclass(frozen=True, slots=True)
class Roles:
    """Names of roles, all with one prefix: several installations may share a server. Raises ValueError."""

    prefix: str = PREFIX

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.prefix):
            raise ValueError(f"{self.prefix!r} is no prefix for roles: lower-case letters, digits and _")

    @property
    def owner(self) -> str:
        return f"{self.prefix}_{OWNER}"

    def of(self, service: str) -> str:
        return f"{self.prefix}_{service}"

    @property
    def all(self) -> dict[str, str]:
        """Names of roles by whom they are for: `owner` and each service."""
        return {OWNER: self.owner, **{service: self.of(service) for service in SERVICES}}


async def apply(url: str, roles: Roles, passwords: Mapping[str, SecretStr]) -> None:
    """Make the database at `url` as described, in one transaction; again as often as wanted.

    `url` is a superuser's, or that of whoever may create roles and owns the schemas. `passwords`: by `owner` or
    service; a role that is not named keeps the one it has. Raises ValueError for a password that could be guessed.
    """
    verifiers = {roles.all[who]: _verifier(who, password) for who, password in passwords.items()}
    connection = await asyncpg.connect(url, timeout=10)
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(hashtext('switchyard roles'))")
            present = {row["rolname"] for row in await connection.fetch("SELECT rolname FROM pg_roles")}
            is_superuser = await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
            database = await connection.fetchval("SELECT quote_ident(current_database())")
            for role in roles.all.values():
                verb = "ALTER" if role in present else "CREATE"
                await connection.execute(f"{verb} ROLE {role} LOGIN{f' {_MAY_NOT}' if is_superuser else ''}")
                if role in verifiers:
                    await connection.execute(f"ALTER ROLE {role} PASSWORD '{verifiers[role]}'")
            if not is_superuser:
                await connection.execute(f"GRANT {roles.owner} TO CURRENT_USER")
            for statement in _grants(database, roles):
                await connection.execute(statement)
            for statement in await _transfers(connection, roles):
                await connection.execute(statement)
            for service in SERVICES:
                for statement in _grants_in_schema(service, roles):
                    await connection.execute(statement)
    finally:
        await connection.close()


async def verify(url: str, roles: Roles) -> list[str]:
    """What differs from what `apply` makes, in words; empty when nothing does."""
    connection = await asyncpg.connect(url, timeout=10)
    try:
        present = await connection.fetch(
            "SELECT rolname, rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls AS is_mighty, "
            "ARRAY(SELECT pg_get_userbyid(roleid) FROM pg_auth_members WHERE member = pg_roles.oid) AS member_of "
            "FROM pg_roles WHERE rolname = ANY($1)",
            list(roles.all.values()),
        )
        missing = sorted(set(roles.all.values()) - {row["rolname"] for row in present})
        if missing:
            return [f"role {role} is missing" for role in missing]
        found = [f"{row['rolname']} may more than use its schema" for row in present if row["is_mighty"]]
        found += [
            f"{row['rolname']} is a member of {', '.join(row['member_of'])}" for row in present if row["member_of"]
        ]
        for row in await connection.fetch(_SCHEMAS, list(SERVICES), list(roles.all.values())):
            own = row["rolname"] in (roles.of(row["nspname"]), roles.owner)
            if row["may_use"] != own:
                found.append(f"{row['rolname']} may {'not ' if own else ''}use schema {row['nspname']}")
            if row["may_create"] != (row["rolname"] == roles.owner):
                found.append(f"{row['rolname']}: right to create in schema {row['nspname']} is {row['may_create']}")
        for row in await connection.fetch(_TABLES, list(SERVICES), list(roles.all.values()), [*_USED, *_NOT_USED]):
            if row["owner"] != roles.owner and row["rolname"] == roles.owner:
                found.append(f"{row['relation']} belongs to {row['owner']}, not {roles.owner}")
            if row["rolname"] == roles.owner:
                continue
            own = row["rolname"] == roles.of(row["nspname"]) and row["privilege"] in _USED
            if row["granted"] != own:
                found.append(f"{row['rolname']} may {'not ' if own else ''}{row['privilege']} {row['relation']}")
    finally:
        await connection.close()
    return list(dict.fromkeys(found))


def url_of(url: str, role: str, password: SecretStr) -> str:
    """The same database, signed in as `role`."""
    signed_in = make_url(url).set(username=role, password=password.get_secret_value())
    return signed_in.render_as_string(hide_password=False)


_SCHEMAS: Final = """
SELECT rolname, nspname, has_schema_privilege(r.oid, n.oid, 'USAGE') AS may_use,
       has_schema_privilege(r.oid, n.oid, 'CREATE') AS may_create
  FROM pg_namespace n CROSS JOIN pg_roles r
 WHERE nspname = ANY($1) AND rolname = ANY($2)
 ORDER BY nspname, rolname
"""
_TABLES: Final = """
SELECT rolname, nspname, c.oid::regclass::text AS relation, pg_get_userbyid(relowner) AS owner, privilege,
       has_table_privilege(r.oid, c.oid, privilege) AS granted
  FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
 CROSS JOIN pg_roles r
 CROSS JOIN unnest($3::text[]) privilege
 WHERE nspname = ANY($1) AND rolname = ANY($2) AND relkind IN ('r', 'p', 'v', 'm')
 ORDER BY relation, rolname, privilege
"""


def _grants(database: str, roles: Roles) -> Iterator[str]:
    """`database`: quoted."""
    yield f"REVOKE ALL ON DATABASE {database} FROM PUBLIC"
    yield f"GRANT CONNECT ON DATABASE {database} TO {', '.join(roles.all.values())}"
    yield f"GRANT CREATE ON DATABASE {database} TO {roles.owner}"  # the schema of a service that is new
    yield "REVOKE ALL ON SCHEMA public FROM PUBLIC"
    for service in SERVICES:
        yield f"CREATE SCHEMA IF NOT EXISTS {service}"
        yield f"ALTER SCHEMA {service} OWNER TO {roles.owner}"


async def _transfers(connection: asyncpg.Connection, roles: Roles) -> list[str]:
    """Tables of before belong to whoever migrated until now. Sequences and indexes go with their tables."""
    rows = await connection.fetch(
        "SELECT c.oid::regclass::text AS relation FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
        "WHERE nspname = ANY($1) AND relkind IN ('r', 'p', 'v', 'm') AND pg_get_userbyid(relowner) <> $2",
        list(SERVICES),
        roles.owner,
    )
    return [f"ALTER TABLE {row['relation']} OWNER TO {roles.owner}" for row in rows]


def _grants_in_schema(service: str, roles: Roles) -> Iterator[str]:
    role, used = roles.of(service), ", ".join(_USED)
    others = ", ".join(name for who, name in roles.all.items() if who not in (service, OWNER))
    default = f"ALTER DEFAULT PRIVILEGES FOR ROLE {roles.owner} IN SCHEMA {service}"
    yield f"REVOKE ALL ON SCHEMA {service} FROM PUBLIC, {others}"
    yield f"REVOKE ALL ON ALL TABLES IN SCHEMA {service} FROM PUBLIC, {role}, {others}"
    yield f"REVOKE CREATE ON SCHEMA {service} FROM {role}"
    yield f"GRANT USAGE ON SCHEMA {service} TO {role}"
    yield f"GRANT {used} ON ALL TABLES IN SCHEMA {service} TO {role}"
    yield f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {service} TO {role}"
    yield f"{default} GRANT {used} ON TABLES TO {role}"
    yield f"{default} GRANT USAGE ON SEQUENCES TO {role}"


def _verifier(who: str, password: SecretStr) -> str:
    """What PostgreSQL stores (RFC 5802), made here: the password itself then stands in no log of statements."""
    plain = password.get_secret_value()
    if len(plain) < PASSWORD_AT_LEAST or not plain.isascii():
        raise ValueError(f"the password of {who} must have at least {PASSWORD_AT_LEAST} characters, ASCII, random")
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", plain.encode(), salt, _ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt_text, stored_text, server_text = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return f"SCRAM-SHA-256${_ITERATIONS}:{salt_text}${stored_text}:{server_text}"
