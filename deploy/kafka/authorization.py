"""Users and ACLs of a cluster, by Kafka's own administration: what is there, what differs, and making it so.

By confluent-kafka: aiokafka's admin client can neither write an ACL nor a SCRAM credential, and Kafka's own tools want
Java where the operators' commands run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)
from pydantic import SecretStr

from deploy.kafka.acls import PRINCIPALS, Acl, Resource
from shared.settings import CommonSettings

_TIMEOUT_SECONDS: Final = 15.0
_POLL_SECONDS: Final = 0.05
_ITERATIONS: Final = 8192  # Kafka's own default is 4096
PASSWORD_AT_LEAST: Final = 20
MECHANISMS: Final = {"SCRAM-SHA-512": ScramMechanism.SCRAM_SHA_512, "SCRAM-SHA-256": ScramMechanism.SCRAM_SHA_256}


class NotPermitted(Exception):
    """Kafka did not do it; the message says why and who asked."""


@dataclass(frozen=True, slots=True)
class Differences:
    """`surplus`: rights of our principals, or of everybody, that nothing here declares. `foreign`: rights of other
    principals, e.g. a company's own tools: shown, never touched.
    """

    missing: tuple[AclBinding, ...]
    surplus: tuple[AclBinding, ...]
    foreign: tuple[AclBinding, ...]

    @property
    def none(self) -> bool:
        return not self.missing and not self.surplus


class Authorization:
    """The cluster of `settings`, asked as its user. Synchronous. Every call may raise NotPermitted."""

    def __init__(self, settings: CommonSettings) -> None:
        self._user = f"User:{settings.kafka_sasl_username}" if settings.kafka_sasl_username else "nobody in particular"
        self._refused: str | None = None
        self._client = AdminClient({**client_configuration(settings), "error_cb": self._remember})  # type: ignore[dict-item]

    def acls(self) -> list[AclBinding]:
        """Every ACL there is."""
        self._require(AclOperation.DESCRIBE, "ACLs cannot be read")
        everything = AclBindingFilter(
            ResourceType.ANY,
            None,  # type: ignore[arg-type] # means any
            ResourcePatternType.ANY,
            None,  # type: ignore[arg-type]
            None,  # type: ignore[arg-type]
            AclOperation.ANY,
            AclPermissionType.ANY,
        )
        found: list[AclBinding] = self._result(
            self._client.describe_acls(everything, request_timeout=_TIMEOUT_SECONDS), "ACLs cannot be read"
        )
        return sorted(found)

    def compare(self, wanted: Iterable[Acl]) -> Differences:
        return differences(wanted, self.acls())

    def apply(self, found: Differences) -> None:
        """Grant what is missing, then revoke what is surplus: nobody who works is without rights in between.

        Returns once the broker that answers here enforces it.
        """
        self._require(AclOperation.ALTER, "ACLs cannot be written")
        if found.missing:
            created = self._client.create_acls(list(found.missing), request_timeout=_TIMEOUT_SECONDS)
            for binding, granted in created.items():
                self._result(granted, f"cannot be granted: {describe(binding)}")
        if found.surplus:
            filters = [
                AclBindingFilter(
                    *(one.restype, one.name, one.resource_pattern_type, one.principal, one.host),
                    *(one.operation, one.permission_type),
                )
                for one in found.surplus
            ]
            deleted = self._client.delete_acls(filters, request_timeout=_TIMEOUT_SECONDS)
            for which, revoked in deleted.items():
                self._result(revoked, f"cannot be revoked: {describe(which)}")
        wanted, unwanted = set(found.missing), set(found.surplus)

        def enforced() -> bool:
            present = set(self.acls())
            return wanted <= present and not unwanted & present

        self._settle(enforced, "what was granted and revoked is not in force yet: run it again")

    def users(self) -> dict[str, tuple[str, ...]]:
        """Users with the mechanisms that each has a password for."""
        self._require(AclOperation.DESCRIBE, "users cannot be read")
        asked = self._client.describe_user_scram_credentials(request_timeout=_TIMEOUT_SECONDS)
        assert isinstance(asked, Future)
        found = self._result(asked, "users cannot be read")
        return {
            user: tuple(sorted(_name_of(one.mechanism) for one in described.scram_credential_infos))
            for user, described in sorted(found.items())
        }

    def set_password(self, user: str, password: SecretStr, mechanism: str = "SCRAM-SHA-512") -> None:
        """Make the user, or change the password of this mechanism; another mechanism's goes on holding.

        Raises ValueError for a password that could be guessed.
        """
        plain = password.get_secret_value()
        if len(plain) < PASSWORD_AT_LEAST:
            raise ValueError(f"the password of {user} is too short: at least {PASSWORD_AT_LEAST} characters, random")
        self._require(AclOperation.ALTER, f"the password of {user} cannot be set")
        change = UserScramCredentialUpsertion(
            user, ScramCredentialInfo(MECHANISMS[mechanism], _ITERATIONS), plain.encode()
        )
        altered = self._client.alter_user_scram_credentials([change], request_timeout=_TIMEOUT_SECONDS)
        self._result(altered[user], f"the password of {user} cannot be set")
        self._settle(lambda: mechanism in self.users().get(user, ()), f"the password of {user} is not in force yet")

    def remove_password(self, user: str, mechanism: str) -> None:
        """A user without any password left is gone."""
        self._require(AclOperation.ALTER, f"the password of {user} cannot be removed")
        change = UserScramCredentialDeletion(user, MECHANISMS[mechanism])
        altered = self._client.alter_user_scram_credentials([change], request_timeout=_TIMEOUT_SECONDS)
        self._result(altered[user], f"the password of {user} cannot be removed")
        self._settle(lambda: mechanism not in self.users().get(user, ()), f"the password of {user} still holds")

    def _require(self, operation: AclOperation, cannot: str) -> None:
        """Ask first: confluent-kafka 2.16 takes a refused list of ACLs for an empty one, and a refused list of users
        ends the process.
        """
        asked = self._client.describe_cluster(include_authorized_operations=True, request_timeout=_TIMEOUT_SECONDS)
        if operation not in (self._result(asked, cannot).authorized_operations or ()):
            raise NotPermitted(
                f"{cannot} as {self._user}: it has no right to; super.users on the brokers names who has"
            )

    def _settle(self, done: Callable[[], bool], not_yet: str) -> None:
        """The controller has it; brokers follow in a moment."""
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while not done():
            if time.monotonic() > deadline:
                raise NotPermitted(not_yet)
            time.sleep(_POLL_SECONDS)

    def _remember(self, error: KafkaError) -> None:
        if error.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL):
            # The request would go on waiting for a connection, and then say only that time ran out.
            self._refused = error.str()

    def _result(self, future: Future[Any], cannot: str) -> Any:
        while not future.done() and self._refused is None:
            self._client.poll(_POLL_SECONDS)
        if self._refused is not None:
            raise NotPermitted(f"{cannot} as {self._user}: {self._refused}")
        try:
            return future.result()
        except KafkaException as error:
            raise NotPermitted(f"{cannot} as {self._user}: {error.args[0].str()}") from None


def client_configuration(settings: CommonSettings) -> dict[str, str | int]:
    """The same sign-in as the services', in librdkafka's words. Holds a password: not for a log."""
    configuration: dict[str, str | int] = {
        "bootstrap.servers": settings.kafka_bootstrap_servers,
        "client.id": "switchyard-operations",
        "security.protocol": settings.kafka_security_protocol,
        "socket.timeout.ms": int(_TIMEOUT_SECONDS * 1000),
        "log_level": 0,
    }
    if settings.kafka_ssl_cafile is not None:
        configuration["ssl.ca.location"] = str(settings.kafka_ssl_cafile)
    if settings.kafka_security_protocol.startswith("SASL"):
        configuration["sasl.mechanism"] = settings.kafka_sasl_mechanism
        configuration["sasl.username"] = settings.kafka_sasl_username or ""
        configuration["sasl.password"] = (settings.kafka_sasl_password or SecretStr("")).get_secret_value()
    return configuration


def differences(wanted: Iterable[Acl], present: Sequence[AclBinding]) -> Differences:
    """Pure."""
    declared = {binding_of(acl) for acl in wanted}
    ours = {f"User:{principal}" for principal in PRINCIPALS} | {"User:*"}
    undeclared = set(present) - declared
    return Differences(
        missing=tuple(sorted(declared - set(present))),
        surplus=tuple(sorted(one for one in undeclared if one.principal in ours)),
        foreign=tuple(sorted(one for one in undeclared if one.principal not in ours)),
    )


def binding_of(acl: Acl) -> AclBinding:
    return AclBinding(
        ResourceType.BROKER if acl.resource is Resource.CLUSTER else ResourceType[acl.resource.name],
        acl.name,
        ResourcePatternType.PREFIXED if acl.is_prefix else ResourcePatternType.LITERAL,
        f"User:{acl.principal}",
        "*",
        AclOperation[acl.operation.name],
        AclPermissionType.ALLOW,
    )


def describe(binding: AclBinding | AclBindingFilter) -> str:
    """E.g. `User:intake may WRITE topic tickets.messages`; hosts only where they are not all."""
    restype, pattern = ResourceType(binding.restype), ResourcePatternType(binding.resource_pattern_type)
    name = f"{binding.name}*" if pattern is ResourcePatternType.PREFIXED else binding.name
    what = "cluster" if restype is ResourceType.BROKER else f"{restype.name.lower()} {name}"
    verb = "may" if AclPermissionType(binding.permission_type) is AclPermissionType.ALLOW else "may not"
    host = "" if binding.host == "*" else f" from {binding.host}"
    return f"{binding.principal} {verb} {AclOperation(binding.operation).name} {what}{host}"


def _name_of(mechanism: ScramMechanism) -> str:
    return next((name for name, known in MECHANISMS.items() if known is mechanism), mechanism.name)
