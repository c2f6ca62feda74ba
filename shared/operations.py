"""`/operations`: what an operator changes in a running process. Each replica is its own: ask the one you mean.

The routes are there only with `OPERATIONS_TOKEN`, and behind it. They are no part of a service's API.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from shared.http import Problem, bearer_token, same_secret, unauthorized
from shared.log_levels import LogLevels, is_ours
from shared.logs import OURS, Level
from shared.settings import CommonSettings

PREFIX: Final = "/operations"
_MINUTES: Final = 15
_MOST_MINUTES: Final = 24 * 60


class LevelWanted(BaseModel):
    model_config = ConfigDict(extra="forbid")

    level: Level
    minutes: Annotated[float, Field(gt=0, le=_MOST_MINUTES)] = _MINUTES
    logger: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]{0,199}$")] | None = None


def build_operations_router(settings: CommonSettings) -> APIRouter:
    """Without a token there are no routes."""
    router = APIRouter(include_in_schema=False)
    if settings.operations_token is None:
        return router
    token = settings.operations_token.get_secret_value()

    async def authenticated(request: Request) -> None:
        if not same_secret(bearer_token(request), token):
            raise unauthorized("this is not OPERATIONS_TOKEN")

    levels = LogLevels(settings.log_level)
    router = APIRouter(prefix=PREFIX, include_in_schema=False, dependencies=[Depends(authenticated)])

    def told() -> dict[str, Any]:
        return {
            "configured": levels.configured,
            "changed": [
                {"logger": item.logger, "level": item.level, "until": item.until.isoformat(timespec="seconds")}
                for item in levels.changes()
            ],
        }

    @router.get("/log-level")
    async def shown() -> dict[str, Any]:
        return told()

    @router.put("/log-level")
    async def changed(wanted: LevelWanted) -> dict[str, Any]:
        if wanted.logger is not None and not is_ours(wanted.logger):
            raise Problem(
                422,
                "Not one of ours",
                f"logger: begin with one of {', '.join(OURS)}; libraries print what customers write below WARNING",
            )
        levels.change(wanted.level, timedelta(minutes=wanted.minutes), wanted.logger)
        return told()

    @router.delete("/log-level")
    async def restored() -> dict[str, Any]:
        levels.restore()
        return told()

    return router
