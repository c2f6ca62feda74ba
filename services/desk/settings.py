"""Settings of the desk."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, SecretStr

from services.desk.domain import Patience, Rules
from shared.settings import CommonSettings

_REPOSITORY: Final = Path(__file__).parents[2]


class Settings(CommonSettings):
    http_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=8005, description="where the API, /livez, /readyz and /metrics are; 0: any free port"
    )

    desk_agents_file: Path = Field(
        default=_REPOSITORY / "deploy" / "config" / "agents.yaml",
        description="who may use the desk, see docs/agents.md",
    )
    desk_take_back_minutes: Annotated[float, Field(gt=0)] = Field(
        default=15.0, description="a claimed ticket returns to its queue when its agent has been silent for so long"
    )
    desk_patience_p1_minutes: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="how long a P1 ticket lets later, more urgent ones pass"
    )
    desk_patience_p2_minutes: Annotated[float, Field(ge=0)] = Field(default=15.0, description="the same for P2")
    desk_patience_p3_minutes: Annotated[float, Field(ge=0)] = Field(default=120.0, description="the same for P3")
    desk_patience_p4_minutes: Annotated[float, Field(ge=0)] = Field(default=480.0, description="the same for P4")
    desk_requests_per_second: Annotated[float, Field(gt=0)] = Field(
        default=20.0, description="requests a token may make on average"
    )
    desk_requests_burst: Annotated[float, Field(ge=1)] = Field(
        default=60.0, description="requests a token may make at once"
    )
    desk_refresh_seconds: Annotated[float, Field(gt=0)] = Field(
        default=1.0, description="how old the page's figures may be; one query serves all who look"
    )
    desk_idempotency_hours: Annotated[float, Field(gt=0)] = Field(
        default=24.0, description="how long a repeated Idempotency-Key is answered as the first time"
    )

    desk_sla_timer_url: str | None = Field(
        default=None,
        description="where the sla_timer listens, e.g. http://sla-timer:8003: the desk asks it for reports",
    )
    desk_sla_timer_token: SecretStr | None = Field(
        default=None, description="its SLA_TIMER_API_TOKEN; without address or token the desk has no reports"
    )

    @property
    def rules(self) -> Rules:
        """Raises ValueError when the patience does not rise from P1 to P4."""
        minutes = (
            self.desk_patience_p1_minutes,
            self.desk_patience_p2_minutes,
            self.desk_patience_p3_minutes,
            self.desk_patience_p4_minutes,
        )
        return Rules(
            patience=Patience(*(timedelta(minutes=value) for value in minutes)),
            take_back_after=timedelta(minutes=self.desk_take_back_minutes),
        )
