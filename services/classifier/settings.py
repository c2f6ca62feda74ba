"""Settings of the classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from services.classifier.domain.rulebook import PRIORITIES
from services.classifier.learning.shipped import SHIPPED
from shared.settings import CommonSettings


class Settings(CommonSettings):
    http_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=8002, description="where the API, /livez, /readyz and /metrics are; 0: any free port"
    )

    classifier_priorities_file: Path = Field(
        default=PRIORITIES, description="YAML of the priority rules, in the form of the shipped one"
    )
    classifier_model_directory: Path = Field(
        default=SHIPPED, description="what `rebuild --out DIR` wrote, in the place of the shipped model"
    )
    classifier_decisions_kept_days: Annotated[int, Field(ge=1)] = Field(
        default=31,
        description="how long a decision is kept so that a redelivery publishes it again; keep it longer than "
        "tickets.messages retains its records",
    )
