"""The demo's settings: promises of seconds, receivers of its own, tokens made for this run."""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from deploy.processes import HOST

_HERE: Final = Path(__file__).parent


def _secret() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def _token() -> str:
    return secrets.token_urlsafe(24)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Made anew for every run: nothing secret is written into a file."""

    channel: str = field(default_factory=_token)
    chat: str = field(default_factory=_secret)
    agent: str = field(default_factory=_token)
    lead: str = field(default_factory=_token)
    sla_timer: str = field(default_factory=_token)
    gateway_secret: str = field(default_factory=_secret)
    leads_secret: str = field(default_factory=_secret)


def environment(credentials: Credentials, *, receiver_url: str, mail_port: int) -> dict[str, str]:
    """Settings for all services. `receiver_url`: where webhooks go, without a slash at its end."""
    return {
        "LOG_FORMAT": "text",
        "SLA_TIMER_POLICIES_FILE": str(_HERE / "sla.yaml"),
        "SLA_TIMER_API_TOKEN": credentials.sla_timer,
        "INTAKE_KEY_UPAY_WALLET_APP_CHAT": credentials.channel,
        "UPAY_WALLET_APP_CHAT_TOKEN_SECRET": credentials.chat,
        "INTAKE_REPLIES_SECRET": credentials.gateway_secret,
        "DESK_TOKEN_AGENT": credentials.agent,
        "DESK_TOKEN_LEAD": credentials.lead,
        "DESK_SLA_TIMER_TOKEN": credentials.sla_timer,
        "DESK_REQUESTS_PER_SECOND": "100",
        "DESK_REQUESTS_BURST": "200",
        "NOTIFIER_GATEWAY_URL": f"{receiver_url}/gateway",
        "NOTIFIER_GATEWAY_SECRET": credentials.gateway_secret,
        "NOTIFIER_LEADS_URL": f"{receiver_url}/leads",
        "NOTIFIER_LEADS_SECRET": credentials.leads_secret,
        "NOTIFIER_SECURITY_LEAD_MAIL": "security-lead@example.com",
        "NOTIFIER_ON_CALL_MAIL": "on-call@example.com",
        "NOTIFIER_WEBHOOK_ALLOWED_HOSTS": HOST,
        "NOTIFIER_SMTP_HOST": HOST,
        "NOTIFIER_SMTP_PORT": str(mail_port),
        "NOTIFIER_SMTP_SECURITY": "none",  # the receiver is this very process
        "NOTIFIER_RETRY_DELAYS_SECONDS": "0,1,2,4",
    }
