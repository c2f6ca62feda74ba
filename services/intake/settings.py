"""Intake's settings, beside the common ones."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field

from services.intake.domain import Windows
from shared.settings import CommonSettings

_REPOSITORY: Final = Path(__file__).parents[2]


class Settings(CommonSettings):
    http_port: Annotated[int, Field(ge=0, le=65535)] = 8001

    intake_channels_file: Path = Field(
        default=_REPOSITORY / "deploy" / "config" / "channels.yaml",
        description="which API key may send messages of which brand and channels",
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
    intake_body_most_bytes: Annotated[int, Field(ge=1024)] = Field(
        default=2 * 1024 * 1024, description="longest body of an HTTP request"
    )
    intake_rate_per_second: Annotated[float, Field(gt=0)] = Field(
        default=500.0, description="messages that one API key may send over HTTP, on average, to one replica"
    )
    intake_rate_burst: Annotated[float, Field(ge=1)] = Field(
        default=2000.0, description="messages that one API key may send at once"
    )

    @property
    def windows(self) -> Windows:
        return Windows(
            follow_up=timedelta(hours=self.intake_follow_up_window_hours),
            reopen=timedelta(hours=self.intake_reopen_window_hours),
        )

    @property
    def message_oldest(self) -> timedelta | None:
        days = self.intake_message_oldest_days
        return None if days is None else timedelta(days=days)
