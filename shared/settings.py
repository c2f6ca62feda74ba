"""Settings that every service has, read from the environment; each service adds its own in
`services/<name>/settings.py`.

A setting's environment variable is its name in upper case (`kafka_bootstrap_servers` -> `KAFKA_BOOTSTRAP_SERVERS`).
Secrets are `SecretStr`: they do not appear in a log or a traceback.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.brands import BRANDS_DIRECTORY


def _none_from_empty(value: Any) -> Any:
    return None if value == "" else value  # a compose file sets what is left out to an empty text


OptionalPath = Annotated[Path | None, BeforeValidator(_none_from_empty)]


class CommonSettings(BaseSettings):
    model_config = SettingsConfigDict(env_file=None, extra="ignore", frozen=True)

    kafka_bootstrap_servers: str = Field(default="127.0.0.1:9092", description="host:port, several separated by commas")
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="how brokers are spoken to; SASL_SSL wherever others share the network"
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        default="SCRAM-SHA-512", description="how the service signs in, with SASL_PLAINTEXT and SASL_SSL"
    )
    kafka_sasl_username: str | None = Field(default=None, description="the principal that ACLs name")
    kafka_sasl_password: SecretStr | None = Field(default=None, description="its password")
    kafka_ssl_cafile: Path | None = Field(default=None, description="certificate authority of the brokers (PEM)")
    kafka_idempotence: bool = Field(
        default=True,
        description="off only for a broker that has no idempotent producer; never with Apache Kafka",
    )

    kafka_replication_factor: Annotated[int, Field(ge=1, le=9)] = Field(
        default=1, description="replicas of topics that are made here; 3 where there are three brokers"
    )

    kafka_fetch_pause_ms: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=0,
        description="pause between fetches of a consumer that has caught up, for a broker that answers an empty fetch "
        "at once instead of waiting (the embedded one); 0 with Apache Kafka",
    )

    database_url: SecretStr = Field(
        default=SecretStr("postgresql://switchyard@127.0.0.1:5432/switchyard"),
        description="postgresql://user:password@host:port/database, or with ?host=/directory for a socket",
    )
    database_pool_size: Annotated[int, Field(ge=2, le=100)] = Field(
        default=8, description="connections that a replica keeps; up to two more at a rush"
    )
    database_statement_timeout_seconds: Annotated[float, Field(gt=0)] = Field(
        default=30.0, description="a statement that takes longer is ended by PostgreSQL"
    )

    brands_directory: Path = Field(default=BRANDS_DIRECTORY, description="one file per brand, see docs/brands.md")

    http_host: str = Field(default="127.0.0.1", description="0.0.0.0 in a container")
    http_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=8000, description="where the API, /livez, /readyz and /metrics are; 0: any free port"
    )
    http_tls_certfile: OptionalPath = Field(
        default=None, description="PEM, with its chain: HTTP is HTTPS if this and the key are given"
    )
    http_tls_keyfile: OptionalPath = Field(
        default=None, description="PEM: the certificate's private key, without a password"
    )
    http_ca_file: OptionalPath = Field(
        default=None,
        description="authorities (PEM) that HTTPS servers are trusted by, beside the system's: of the notifier's "
        "webhooks and replies, and of the desk's reports",
    )
    metrics_token: SecretStr | None = Field(
        default=None, description="bearer token that /metrics asks for; none leaves it to the network policy"
    )

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="the least important lines that are logged"
    )
    log_format: Literal["json", "text"] = Field(
        default="json", description="one JSON object a line, or `text` for a person at a terminal"
    )

    operations_token: Annotated[SecretStr, Field(min_length=16)] | None = Field(
        default=None,
        description="bearer token of /operations, where the level of logs is changed while the service runs; none: "
        "there is no such route",
    )

    tracing_otlp_endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s/?#@]+",
        description="collector that takes spans by OTLP over HTTP, e.g. http://tempo:4318; none: nothing is traced",
    )
    tracing_otlp_headers: SecretStr | None = Field(
        default=None,
        description="headers that the collector asks for, name=value, several separated by commas",
    )
    tracing_otlp_cafile: Path | None = Field(default=None, description="certificate authority of the collector (PEM)")
    tracing_sample_ratio: Annotated[float, Field(ge=0, le=1)] = Field(
        default=1.0,
        description="share of the messages that are traced, of those that come without a decision of their sender; the "
        "same for all services",
    )

    batch_max_records: Annotated[int, Field(ge=1, le=5000)] = Field(
        default=500,
        description="records a handler gets at once; a batch must stay well under a second of work",
    )
    batch_wait_ms: Annotated[int, Field(ge=1, le=5000)] = Field(
        default=50,
        description="how long a small batch, or an empty poll, lets the next one gather; it adds to the latency",
    )
    delivery_retry_seconds: Annotated[float, Field(gt=0, le=120)] = Field(
        default=20.0,
        description="how long a batch is retried in place before its consumer pauses and takes it up again",
    )
    publish_timeout_seconds: Annotated[float, Field(gt=0)] = Field(
        default=20.0, description="how long brokers may take to acknowledge a batch"
    )
    stalled_after_seconds: Annotated[float, Field(gt=0)] = Field(
        default=60.0,
        description="a consumer that has records waiting and has finished none for so long is not ready",
    )
    drain_timeout_seconds: Annotated[float, Field(gt=0)] = Field(
        default=20.0,
        description="how long a stopping service may finish its batches and requests; keep the stop period 25 s longer",
    )

    @model_validator(mode="after")
    def _has_certificate_and_key_or_neither(self) -> Self:
        if (self.http_tls_certfile is None) != (self.http_tls_keyfile is None):
            raise ValueError("set both HTTP_TLS_CERTFILE and HTTP_TLS_KEYFILE, or neither")
        return self
