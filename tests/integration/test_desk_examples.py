"""The agents of `examples/`, run as a person runs them."""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from deploy.processes import free_port
from shared.events import ActivityKind
from shared.taxonomy import Fact, Queue
from tests.support.desk import MEI, Site, running_desk
from tests.support.surroundings import Kafka
from tests.unit.desk.samples import at, points_in

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
async def site(kafka: Kafka, new_database: Callable[[], Awaitable[str]], tmp_path: Path) -> AsyncIterator[Site]:
    async with running_desk(kafka, await new_database(), tmp_path) as world:
        site = Site(world, free_port())
        await site.start()
        yield site
        await site.stop()


async def started(script: str, *arguments: str, **environment: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLES / script),
        *arguments,
        env={"PATH": os.environ["PATH"], **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_the_desk_agent_answers_and_resolves_in_order(site: Site) -> None:
    world = site.world
    two = points_in("充值没到账，怎么改手机号", top_up="充值没到账", registration_identity="怎么改手机号")
    first, second = world.ticket(decided_at=at(1), **two), world.ticket(decided_at=at(2), missing=(Fact.AMOUNT,))
    await world.waiting(first, second)
    agent = await started("desk_agent.py", "--url", site.url, "--queue", "payments", "--once", DESK_TOKEN=MEI)
    out, error = await agent.communicate()
    assert (agent.returncode, error) == (0, b"")
    assert [line.split()[-1] for line in out.decode().splitlines()] == [str(first.ticket_id), str(second.ticket_id)]
    done = await world.ticket_now(first.ticket_id)
    assert (done["state"], len(done["points"]), done["open_points"]) == ("resolved", 2, 0)
    assert " 2 points " in out.decode().splitlines()[0]
    assert (await world.ticket_now(second.ticket_id))["state"] == "waiting_on_customer"
    told = await world.activities(first.ticket_id, [ActivityKind.CLAIMED, ActivityKind.REPLIED, ActivityKind.RESOLVED])
    assert told[1].text is not None
    assert told[1].text.startswith("您好")


async def test_the_desk_agent_says_what_is_wrong_with_its_token(site: Site) -> None:
    without = await started("desk_agent.py", "--url", site.url)
    assert (await without.communicate())[1] == b"set DESK_TOKEN to your token\n"
    wrong = await started("desk_agent.py", "--url", site.url, DESK_TOKEN="wrong")
    assert b"the desk answered 401" in (await wrong.communicate())[1]
    assert (without.returncode, wrong.returncode) == (2, 1)


async def test_the_kafka_agent_is_seen_at_the_desk(site: Site) -> None:
    world = site.world
    ticket = world.ticket(queue=Queue.PROMOTIONS)
    await world.waiting(ticket)
    name = f"kafka-agent-{uuid.uuid4().hex[:8]}"
    agent = await started(
        "kafka_agent.py", "--bootstrap-servers", world.bootstrap_servers, "--queue", "promotions", "--agent", name
    )
    try:
        await world.comes_to(ticket.ticket_id, "resolved")
    finally:
        if agent.returncode is None:
            agent.terminate()
        _, error = await agent.communicate()
    assert error == b""
    now = await world.ticket_now(ticket.ticket_id)
    assert now["claimed_by"] == name
    assert [item["kind"] for item in now["history"]] == ["routed", "claimed", "replied", "resolved"]
