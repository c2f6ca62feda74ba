"""A ticket as the sla_timer keeps it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime

from services.sla_timer.domain.clocks import Clock, Happening, Ticket
from services.sla_timer.simulation.second_opinion import Opinion
from shared.events import Target


@dataclass(slots=True)
class Kept:
    """`ticket`: none as long as nobody has introduced it. `log`: what came in, with the time at which it was taken.
    `versions`: of the policies under which it has been settled. `opinion`: on its clocks, when it was last settled.
    """

    ticket_id: uuid.UUID
    ticket: Ticket | None = None
    happenings: dict[uuid.UUID, Happening] = field(default_factory=dict)
    clocks: dict[uuid.UUID, Clock] = field(default_factory=dict)
    version: str | None = None
    versions: set[str] = field(default_factory=set)
    has_open: bool = False
    alarm_at: datetime | None = None
    log: list[tuple[datetime, Happening]] = field(default_factory=list)
    opinion: Opinion | None = None

    @property
    def has_open_resolution(self) -> bool:
        return any(clock.target is Target.RESOLUTION and clock.is_open for clock in self.clocks.values())
