"""Every recorded request of every provider: its answer, its messages, or why it is refused."""

from __future__ import annotations

import json

import pytest

from services.intake.channels import registry
from services.intake.channels.base import Refused
from tests.channels import cases

_CASES = [case for provider in sorted(registry.ADAPTERS) for case in cases.load(provider)]
BRAND = "upay"


@pytest.mark.parametrize("named", _CASES, ids=[f"{named.provider}-{named.name}" for named in _CASES])
def test_case(named: cases.Named) -> None:
    kind = registry.ADAPTERS[named.provider]
    adapter = kind(BRAND, kind.config_type.model_validate(cases.config(named.provider)))
    expect = named.case.expect
    if expect.refused is not None:
        with pytest.raises(Refused) as refused:
            adapter.receive(named.case.request.built())
        assert (refused.value.status, refused.value.reason) == (expect.refused.status, expect.refused.reason)
        return
    answer = adapter.receive(named.case.request.built())
    assert answer.status == expect.status
    assert expect.body is None or answer.body == expect.body
    assert answer.ignored == expect.ignored
    messages = [json.loads(message.model_dump_json()) for message in answer.messages]
    assert cases.contains(messages, list(expect.messages)), messages


@pytest.mark.parametrize("provider", sorted(registry.ADAPTERS))
def test_every_provider_has_a_message_and_a_refusal(provider: str) -> None:
    played = [named.case.expect for named in cases.load(provider)]
    assert any(expect.messages for expect in played)
    assert any(expect.refused for expect in played)
