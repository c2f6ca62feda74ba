"""Every HTTP surface against whatever its OpenAPI document allows, and forbids: never a server error (schemathesis)."""

from __future__ import annotations

import asyncio
import base64
import uuid
from collections import Counter
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from pydantic import SecretStr
from schemathesis.checks import not_a_server_error

from services.desk.app import build as build_desk
from services.desk.settings import Settings as DeskSettings
from services.intake.app import build as build_intake
from services.intake.channels.registry import ADAPTERS
from services.intake.settings import Settings as IntakeSettings
from services.sla_timer.app import build as build_sla_timer
from services.sla_timer.settings import Settings as SlaTimerSettings
from shared.http import token_hash
from shared.service import Service
from tests.channels import cases
from tests.support.desk import BOSS, agents_file
from tests.support.server import serving

TOKEN = uuid.uuid4().hex
BRAND = "upay"
EXAMPLES = 30
UNLIMITED = 1e9


def intake(database: str, directory: Path) -> Service:
    brand: dict[str, Any] = {
        "brand": BRAND,
        "name": {"zh": "UPay", "en": "UPay"},
        "mail_from": "service@upay.example",
        "gateways": {"default": "upay"},
        "leads": {"default": ["service_lead"]},
        "channels": {
            adapter.channel.value: {
                "hours": "always",
                "keys": [{"key_sha256": token_hash(TOKEN)}],
                "adapter": cases.config(provider) | {"provider": provider},
            }
            for provider, adapter in ADAPTERS.items()
        },
    }
    (directory / f"{BRAND}.yaml").write_text(yaml.safe_dump(brand, allow_unicode=True))
    return build_intake(
        IntakeSettings(
            database_url=SecretStr(database),
            brands_directory=directory,
            intake_client_rate_per_second=UNLIMITED,
            intake_client_rate_burst=UNLIMITED,
            intake_rate_per_second=UNLIMITED,
            intake_rate_burst=UNLIMITED,
            intake_visitor_rate_per_second=UNLIMITED,
            intake_visitor_rate_burst=UNLIMITED,
            intake_replies_secret=SecretStr(base64.b64encode(TOKEN.encode()).decode()),
        )
    )


def desk(database: str, directory: Path) -> Service:
    return build_desk(
        DeskSettings(
            database_url=SecretStr(database),
            desk_agents_file=agents_file(directory, BRAND),
            desk_requests_per_second=UNLIMITED,
            desk_requests_burst=UNLIMITED,
        )
    )


def sla_timer(database: str, _: Path) -> Service:
    return build_sla_timer(SlaTimerSettings(database_url=SecretStr(database), sla_timer_api_token=SecretStr(TOKEN)))


SURFACES = {"intake": (intake, TOKEN), "desk": (desk, BOSS), "sla_timer": (sla_timer, TOKEN)}


@pytest.mark.filterwarnings("ignore")  # schemathesis generates on purpose what other libraries warn of
@pytest.mark.parametrize("name", SURFACES)
async def test_no_request_is_answered_with_a_server_error(name: str, database: str, tmp_path: Path) -> None:
    build, token = SURFACES[name]
    service = build(database, tmp_path)
    app = service.app()
    try:
        async with serving(app, lifespan="off") as url:
            statuses = await asyncio.to_thread(attack, known_places(app.openapi()), url, token)
    finally:
        await service.database.close()
    print(f"{name}: {sum(statuses.values())} requests, by status {dict(sorted(statuses.items()))}")
    assert len(statuses) > 1
    assert sum(statuses.values()) >= EXAMPLES


def known_places(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with brands and providers that there are: a guess would find none of them."""
    narrowed = deepcopy(dict(document))
    there = {"brand": [BRAND], "provider": sorted(ADAPTERS)}
    for operations in narrowed["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "path" and parameter["name"] in there:
                    parameter["schema"] = {"type": "string", "enum": there[parameter["name"]]}
    return narrowed


def attack(document: dict[str, Any], url: str, token: str) -> Counter[int]:
    """Statuses of all answers, of all operations. Raises when one is a server error."""
    statuses: Counter[int] = Counter()
    for result in schemathesis.openapi.from_dict(document).get_all_operations():
        operation: Any = result.ok()  # type: ignore[union-attr]  # an invalid document would fail here
        if operation.path.endswith("/stream"):  # open until its client goes
            continue

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def send(case: Any) -> None:
            for headers in ({"Authorization": f"Bearer {token}"}, {}):
                answer = case.call(base_url=url, headers=headers, timeout=20)
                statuses[answer.status_code] += 1
                case.validate_response(answer, checks=[not_a_server_error])

        send()
    return statuses
