"""Intake's settings, beside the common ones."""

from __future__ import annotations

import ssl
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, model_validator

from services.intake.domain import Windows
from services.intake.domain_floods import FloodLimit
from shared.settings import CommonSettings
from shared.yaml_files import ConfigError


class Settings(CommonSettings):
    http_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=8001, description="where the API, /livez, /readyz and /metrics are; 0: any free port"
    )

    intake_follow_up_window_hours: Annotated[float, Field(gt=0)] = Field(
        default=24.0, description="a message this near to a ticket's last one joins it; later, it opens another"
    )
    intake_reopen_window_hours: Annotated[float, Field(ge=0)] = Field(
        default=72.0, description="a message this soon after the resolution reopens the ticket; later, it opens another"
    )
    intake_message_oldest_days: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="messages sent longer ago are refused; none accepts them all"
    )
    intake_flood_messages: Annotated[int, Field(ge=1)] = Field(
        default=20,
        description="messages of one ticket within a window that are told one by one; those beyond, together",
    )
    intake_flood_window_seconds: Annotated[float, Field(ge=1)] = Field(
        default=60.0, description="length of such a window, and how long what is beyond may wait to be told"
    )
    intake_body_most_bytes: Annotated[int, Field(ge=1024)] = Field(
        default=2 * 1024 * 1024, description="longest body of an HTTP request"
    )
    intake_rate_per_second: Annotated[float, Field(gt=0)] = Field(
        default=500.0, description="messages that one API key may send over HTTP, on average, to one replica"
    )
    intake_rate_burst: Annotated[float, Field(ge=1)] = Field(
        default=2000.0, description="messages that one API key may send at once"
    )

    intake_sender_rate_per_second: Annotated[float, Field(gt=0)] = Field(
        default=1.0, description="messages of one customer by mail, app chat or web form, on average, to one replica"
    )
    intake_sender_rate_burst: Annotated[float, Field(ge=1)] = Field(
        default=30.0, description="messages of one customer at once; beyond, he is asked to wait"
    )
    intake_client_rate_per_second: Annotated[float, Field(gt=0)] = Field(
        default=200.0, description="requests to gateways from one network address, on average, to one replica"
    )
    intake_client_rate_burst: Annotated[float, Field(ge=1)] = Field(default=1000.0, description="such requests at once")
    intake_visitor_rate_per_second: Annotated[float, Field(gt=0)] = Field(
        default=1.0, description="chats opened from one network address, on average, to one replica"
    )
    intake_visitor_rate_burst: Annotated[float, Field(ge=1)] = Field(default=60.0, description="such chats at once")
    intake_smtp_host: str = Field(default="127.0.0.1", description="0.0.0.0 in a container")
    intake_smtp_port: Annotated[int, Field(ge=0, le=65535)] | None = Field(
        default=None, description="where intake takes mail by SMTP; none: it takes none"
    )
    intake_smtp_hostname: str = Field(default="switchyard", description="how intake calls itself to other mail servers")
    intake_smtp_tls_certificate: Path | None = Field(
        default=None, description="PEM, with its chain: STARTTLS is offered if this and the key are given"
    )
    intake_smtp_tls_key: Path | None = Field(default=None, description="PEM: the certificate's private key")
    intake_mail_rate_per_second: Annotated[float, Field(gt=0)] = Field(
        default=10.0, description="mails from one client's address, on average, to one replica"
    )
    intake_mail_rate_burst: Annotated[float, Field(ge=1)] = Field(default=200.0, description="such mails at once")
    intake_imap_poll_seconds: Annotated[float, Field(ge=1)] = Field(
        default=30.0, description="how often mailboxes are looked into, of brands whose mail is fetched by IMAP"
    )
    intake_public_url: str | None = Field(
        default=None,
        description="how providers reach intake, e.g. https://intake.example.com; needed where a signature covers it",
    )
    intake_provider_timeout_seconds: Annotated[float, Field(gt=0)] = Field(
        default=10.0,
        description="how long a provider may take to answer; shorter than NOTIFIER_DELIVERY_TIMEOUT_SECONDS",
    )
    intake_replies_secret: SecretStr | None = Field(
        default=None,
        description="what the notifier signs replies with (NOTIFIER_GATEWAY_SECRET); none: no replies here",
    )
    intake_replies_secret_previous: SecretStr | None = Field(
        default=None, description="the one before, while it changes"
    )
    intake_accept_in_outage_seconds: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description="how long into an outage of Kafka gateways still store messages for later; then senders must wait",
    )
    intake_outbox_most: Annotated[int, Field(ge=1)] = Field(
        default=100_000, description="events that may wait for Kafka; with more, senders are told to try again"
    )

    @model_validator(mode="after")
    def _has_both_halves_of_its_certificate(self) -> Self:
        if (self.intake_smtp_tls_certificate is None) != (self.intake_smtp_tls_key is None):
            raise ValueError("set both INTAKE_SMTP_TLS_CERTIFICATE and INTAKE_SMTP_TLS_KEY, or neither")
        return self

    @property
    def smtp_tls(self) -> ssl.SSLContext | None:
        """Raises ConfigError when certificate and key cannot be used."""
        if self.intake_smtp_tls_certificate is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(self.intake_smtp_tls_certificate, self.intake_smtp_tls_key)
        except OSError as error:  # of ssl, too: no PEM, or the key of another certificate
            raise ConfigError(f"INTAKE_SMTP_TLS_CERTIFICATE, INTAKE_SMTP_TLS_KEY: {error.strerror or error}") from None
        return context

    @property
    def replies_secrets(self) -> tuple[SecretStr, ...]:
        given = (self.intake_replies_secret, self.intake_replies_secret_previous)
        return tuple(secret for secret in given if secret is not None and secret.get_secret_value())

    @property
    def windows(self) -> Windows:
        return Windows(
            follow_up=timedelta(hours=self.intake_follow_up_window_hours),
            reopen=timedelta(hours=self.intake_reopen_window_hours),
        )

    @property
    def flood_limit(self) -> FloodLimit:
        return FloodLimit(self.intake_flood_messages, timedelta(seconds=self.intake_flood_window_seconds))

    @property
    def message_oldest(self) -> timedelta | None:
        days = self.intake_message_oldest_days
        return None if days is None else timedelta(days=days)
