"""What of the events on its topics the sla_timer takes for something that happened."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from services.sla_timer.domain.rules import What
from services.sla_timer.handlers import facts_of, happening_of
from tests.support.sla_timer import message

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)


@pytest.mark.parametrize("change", [{"edits": "m-1", "text": "提现没到账"}, {"deletes": "m-1", "text": ""}])
def test_a_change_introduces_its_ticket_and_starts_or_stops_no_clock(change: dict[str, str]) -> None:
    ticket_id = uuid.uuid4()
    written = message(ticket_id, NOW, NOW - timedelta(hours=1))
    changed = message(ticket_id, NOW, NOW - timedelta(hours=1), **change)
    assert [item.what for _, item in happening_of(written, NOW)] == [What.CUSTOMER_WROTE]
    assert happening_of(changed, NOW) == []
    assert [item.ticket_id for item in facts_of(changed, NOW)] == [ticket_id]
