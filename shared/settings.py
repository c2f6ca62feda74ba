"""Settings that every service has, read from the environment; each service adds its own in
`services/<name>/settings.py`.

A setting's environment variable is its name in upper case (`kafka_bootstrap_servers` -> `KAFKA_BOOTSTRAP_SERVERS`).
Secrets are `SecretStr`: they do not appear in a log or a traceback.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.brands import BRANDS_DIRECTORY


class CommonSettings(BaseSettings):
    model_config = SettingsConfigDict(env_file=None, extra="ignore", frozen=True)

    kafka_bootstrap_servers: str = Field(default="127.0.0.1:9092", description="host:port, several separated by commas")
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_ssl_cafile: Path | None = Field(default=None, description="certificate authority of the brokers (PEM)")
    kafka_idempotence: bool = Field(
        default=True,
        description="off only for a broker that has no idempotent producer; never with Apache Kafka",
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
    database_pool_size: Annotated[int, Field(ge=2, le=100)] = 8
    database_statement_timeout_seconds: Annotated[float, Field(gt=0)] = 30.0

    brands_directory: Path = Field(default=BRANDS_DIRECTORY, description="one file per brand, see docs/brands.md")

    http_host: str = Field(default="127.0.0.1", description="0.0.0.0 in a container")
    http_port: Annotated[int, Field(ge=0, le=65535)] = 8000
    metrics_token: SecretStr | None = Field(
        default=None, description="bearer token that /metrics asks for; none leaves it to the network policy"
    )

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["json", "text"] = "json"

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
    publish_timeout_seconds: Annotated[float, Field(gt=0)] = 20.0
    stalled_after_seconds: Annotated[float, Field(gt=0)] = Field(
        default=60.0,
        description="a consumer that has records waiting and has finished none for so long is not ready",
    )
    drain_timeout_seconds: Annotated[float, Field(gt=0)] = Field(
        default=20.0,
        description="how long a stopping service may finish its batch; keep the stop period longer",
    )
