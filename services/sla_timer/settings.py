"""Settings of the sla_timer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, SecretStr

from services.sla_timer.config import PolicyFiles
from shared.settings import CommonSettings

_CONFIG: Final = Path(__file__).parents[2] / "deploy" / "config"


class Settings(CommonSettings):
    http_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=8003, description="where the API, /livez, /readyz and /metrics are; 0: any free port"
    )

    sla_timer_policies_file: Path = Field(
        default=_CONFIG / "sla.yaml", description="what is promised to whom, see docs/sla.md"
    )
    sla_timer_calendars_file: Path = Field(
        default=_CONFIG / "calendars.yaml", description="when each brand and channel works, see docs/sla.md"
    )
    sla_timer_reload_seconds: Annotated[float, Field(gt=0, le=300)] = Field(
        default=5.0, description="how often these files, and the brands', are looked at for a change"
    )
    sla_timer_api_token: SecretStr | None = Field(
        default=None, description="bearer token of the API (/v1/...); without one it answers nobody"
    )
    sla_timer_history_days: Annotated[int, Field(ge=31)] = Field(
        default=180,
        description="a ticket whose clocks have all ended is forgotten so long after its last event; longer than the "
        "topics are kept, so that no replayed event starts a promise anew",
    )
    sla_timer_arrivals_days: Annotated[int, Field(ge=35)] = Field(
        default=400, description="how long arrivals are kept, to learn what is usual at a time of the week"
    )

    @property
    def policy_files(self) -> PolicyFiles:
        return PolicyFiles(self.sla_timer_policies_file, self.sla_timer_calendars_file, self.brands_directory)
