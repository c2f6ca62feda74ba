"""The notifier's settings, beside the common ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import NoDecode

from services.notifier.domain.retry import STANDARD_DELAYS_SECONDS, RetryPolicy
from shared.settings import CommonSettings

_REPOSITORY: Final = Path(__file__).parents[2]


def _from_list(value: Any) -> Any:
    return [item.strip() for item in value.split(",") if item.strip()] if isinstance(value, str) else value


def _from_empty(value: Any) -> Any:
    return value or None  # a compose file sets what is left out to an empty text


class Settings(CommonSettings):
    http_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=8004, description="where the API, /livez, /readyz and /metrics are; 0: any free port"
    )

    notifier_config_file: Path = Field(
        default=_REPOSITORY / "deploy" / "config" / "notifications.yaml",
        description="endpoints and people; its ${NAME} references are read from the environment",
    )
    notifier_retry_delays_seconds: Annotated[
        tuple[Annotated[float, Field(ge=0)], ...], NoDecode, BeforeValidator(_from_list), Field(min_length=1)
    ] = Field(
        default=STANDARD_DELAYS_SECONDS,
        description="wait before each try, separated by commas; as many tries as waits",
    )
    notifier_retry_jitter_share: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.1, description="a wait is lengthened by up to this share, so that failures do not come back together"
    )
    notifier_acknowledgements_per_hour: Annotated[int, Field(ge=1)] = Field(
        default=10,
        description="to one customer of one brand and channel; more are held back (two machines answering each other)",
    )
    notifier_reminders_per_window: Annotated[int, Field(ge=1)] = Field(
        default=10,
        description="reminders to one person within a window, calls of those on call not counted; what goes beyond is "
        "folded into one digest",
    )
    notifier_reminder_window_seconds: Annotated[int, Field(ge=1, le=86400)] = Field(
        default=300, description="length of that window"
    )
    notifier_deliveries_per_endpoint: Annotated[int, Field(ge=1, le=200)] = Field(
        default=20, description="deliveries under way to one endpoint (or the mail server), per replica"
    )
    notifier_delivery_timeout_seconds: Annotated[float, Field(gt=0, le=30)] = Field(
        default=15.0, description="one try in all: name, connection, TLS, request and answer"
    )
    notifier_lease_seconds: Annotated[float, Field(gt=0)] = Field(
        default=60.0, description="after a crash a notification under way is tried again after this"
    )
    notifier_webhook_allowed_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_from_list)] = Field(
        default=(),
        description="hosts, as they stand in the URL, that may lie in a private network and may be asked by plain http",
    )
    notifier_smtp_host: str = Field(default="127.0.0.1", description="the mail server that mail leaves by")
    notifier_smtp_port: Annotated[int, Field(ge=1, le=65535)] = Field(
        default=587, description="its port: 587 with starttls, 465 with tls"
    )
    notifier_smtp_security: Literal["starttls", "tls", "none"] = Field(
        default="starttls", description="none only for a mail server on the same machine or network"
    )
    notifier_smtp_username: Annotated[str | None, BeforeValidator(_from_empty)] = Field(
        default=None, description="none or empty: the mail server takes mail without login"
    )
    notifier_smtp_password: Annotated[SecretStr | None, BeforeValidator(_from_empty)] = Field(
        default=None, description="of that login"
    )
    notifier_text_retention_days: Annotated[int, Field(ge=1)] = Field(
        default=30, description="texts, recipients and data of finished notifications are erased after this"
    )
    notifier_record_retention_days: Annotated[int, Field(ge=31)] = Field(
        default=90,
        description="finished notifications are deleted after this; longer than topics keep events: none is sent again",
    )
    notifier_contact_retention_days: Annotated[int, Field(ge=31)] = Field(
        default=365, description="how a ticket's customer is reached is forgotten so long after his last message"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.notifier_lease_seconds < 2 * self.notifier_delivery_timeout_seconds:
            raise ValueError(
                "notifier_lease_seconds must be at least twice notifier_delivery_timeout_seconds, or another replica "
                "takes a notification that is still under way"
            )
        if (self.notifier_smtp_username is None) != (self.notifier_smtp_password is None):
            raise ValueError("set both notifier_smtp_username and notifier_smtp_password, or neither")
        return self

    @property
    def retry_policy(self) -> RetryPolicy:
        return RetryPolicy(self.notifier_retry_delays_seconds, self.notifier_retry_jitter_share)
