"""What makes a native broker ask everyone who they are: SASL_SSL for clients, certificates among brokers, ACLs.

The same properties as docs/kafka-security.md gives for an installation, with one broker and an authority of its own.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from deploy.kafka.acls import ADMIN
from deploy.kafka.certificates import Authority
from deploy.processes import HOST
from shared.settings import CommonSettings

_BROKER: Final = "kafka"

# Nobody but brokers and the administrator may anything without an ACL. Of the two SCRAM mechanisms one is in use and
# the other free for the next password: so passwords change without a moment at which neither holds. The time-outs are
# for a busy machine: a first handshake that takes longer than 2 s (the default) would be begun anew for ever.
_PROPERTIES: Final = """\
listeners=SASL_SSL://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=SASL_SSL://{host}:{port}
listener.security.protocol.map=SASL_SSL:SASL_SSL,CONTROLLER:SSL
inter.broker.listener.name=SASL_SSL
sasl.enabled.mechanisms=SCRAM-SHA-512,SCRAM-SHA-256
sasl.mechanism.inter.broker.protocol=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={login} required username="{admin}" password="{password}";
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config={login} required;
listener.name.controller.ssl.client.auth=required
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
ssl.truststore.type=PEM
ssl.truststore.location={truststore}
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:{admin};User:CN={broker}
allow.everyone.if.no.acl.found=false
controller.quorum.request.timeout.ms=30000
controller.socket.timeout.ms=60000
initial.broker.registration.timeout.ms=180000
"""
_LOGIN: Final = "org.apache.kafka.common.security.scram.ScramLoginModule"


@dataclass(frozen=True)
class Security:
    """Certificates below `directory`, and the one user that the storage is formatted with: who makes all others."""

    directory: Path
    admin_password: SecretStr = field(default_factory=lambda: SecretStr(secrets.token_urlsafe(24)))
    authority: Authority = field(init=False)
    _keystore: Path = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "authority", Authority(self.directory))
        object.__setattr__(self, "_keystore", self.authority.issue(_BROKER, address=HOST))

    def properties(self, *, port: int, controller_port: int) -> str:
        """Lines of server.properties that take the place of the plaintext listeners."""
        return _PROPERTIES.format(
            host=HOST,
            port=port,
            controller_port=controller_port,
            keystore=self._keystore,
            truststore=self.authority.certificate,
            login=_LOGIN,
            admin=ADMIN,
            broker=_BROKER,
            password=self.admin_password.get_secret_value(),
        )

    @property
    def format_options(self) -> list[str]:
        """Options of StorageTool: the first user is there before the first connection."""
        password = self.admin_password.get_secret_value()
        return ["--add-scram", f"SCRAM-SHA-512=[name={ADMIN},password={password}]"]

    def settings(self, bootstrap_servers: str, user: str, password: SecretStr) -> CommonSettings:
        """Settings with which `user` signs in."""
        return CommonSettings(
            kafka_bootstrap_servers=bootstrap_servers,
            kafka_security_protocol="SASL_SSL",
            kafka_sasl_username=user,
            kafka_sasl_password=password,
            kafka_ssl_cafile=self.authority.certificate,
        )

    def admin_settings(self, bootstrap_servers: str) -> CommonSettings:
        return self.settings(bootstrap_servers, ADMIN, self.admin_password)
