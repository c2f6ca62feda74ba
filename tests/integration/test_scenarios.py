"""The stories of all brands, played through the five services: what customers write, agents do, and comes of it."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from deploy.brokers import Broker
from deploy.demo.receivers import Receivers
from deploy.demo.settings import Credentials, environment
from deploy.stack import Stack
from shared import topics
from shared.broker import Publisher, build_broker
from shared.cloudevents import InvalidRecord, Outgoing, decode, trace_of
from shared.database import SERVICES
from shared.events import (
    ActivityKind,
    Event,
    NotificationKind,
    NotificationOutcome,
    NotificationStatus,
    SlaEvent,
    SlaKind,
    Target,
    TicketActivity,
    TicketMessage,
    TicketRouted,
)
from shared.taxonomy import Language, Priority
from tests.scenarios.schema import (
    Act,
    AgentAct,
    AgentExpectation,
    AgentStep,
    MessageExpectation,
    MessageStep,
    Outcome,
    RoutingExpectation,
    Scenario,
    Story,
    load,
)
from tests.support.waiting import eventually

_SCENARIOS = sorted((Path(__file__).parents[1] / "scenarios").glob("*.yaml"))
_KINDS = {
    Act.CLAIM: ActivityKind.CLAIMED,
    Act.RELEASE: ActivityKind.RELEASED,
    Act.REPLY: ActivityKind.REPLIED,
    Act.WAIT_ON_CUSTOMER: ActivityKind.WAITING_ON_CUSTOMER,
    Act.RESOLVE: ActivityKind.RESOLVED,
    Act.REOPEN: ActivityKind.REOPENED,
    Act.CORRECT: ActivityKind.CORRECTED,
}
E = TypeVar("E", bound=Event)


class World:
    """The running stack and everything that its topics have said."""

    def __init__(self, stack: Stack, receivers: Receivers) -> None:
        self.stack = stack
        self.receivers = receivers
        self.run = uuid.uuid4().hex[:8]
        self.events: list[Event] = []
        self.published = bytearray()
        self._broker = build_broker(stack.settings, service="scenarios")
        self._publisher = Publisher(self._broker, stack.settings, service="scenarios")

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[World]:
        await self._broker.connect()
        reading = asyncio.create_task(self._read())
        try:
            yield self
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await self._broker.stop()

    async def _read(self) -> None:
        names = [topic.name for topic in topics.ALL if topic is not topics.CHANNEL_MESSAGES]
        consumer = AIOKafkaConsumer(
            *names,
            bootstrap_servers=self.stack.broker.bootstrap_servers,
            group_id=f"scenarios-{self.run}",
            auto_offset_reset="earliest",
        )
        await consumer.start()
        try:
            while True:
                for records in (await consumer.getmany(timeout_ms=50)).values():
                    for record in records:
                        self.published += record.value or b""
                        try:
                            self.events.append(decode(record, topics.BY_NAME[record.topic].carries).event)
                        except InvalidRecord as error:
                            raise AssertionError(f"a service published what breaks its contract: {error}") from error
        finally:
            await consumer.stop()

    async def publish(self, topic: topics.Topic, event: Event) -> None:
        await self._publisher.publish([Outgoing(topic.name, event, trace_of(event))])

    async def intake_has_caught_up(self) -> bool:
        """Whether intake has committed everything that was on its topic when this was asked."""
        servers = self.stack.broker.bootstrap_servers
        consumer, admin = AIOKafkaConsumer(bootstrap_servers=servers), AIOKafkaAdminClient(bootstrap_servers=servers)
        try:
            await consumer.start()
            await admin.start()
            name = topics.CHANNEL_MESSAGES.name
            places = [TopicPartition(name, part) for part in range(topics.CHANNEL_MESSAGES.partitions)]
            ends = await consumer.end_offsets(places)
            committed = await admin.list_consumer_group_offsets(f"intake.{name}", partitions=places)
        finally:
            await consumer.stop()
            await admin.close()
        return all(committed[place].offset >= ends[place] for place in places if ends[place])

    def all(self, kind: type[E], ticket: uuid.UUID | None = None) -> list[E]:
        found = [event for event in self.events if isinstance(event, kind)]
        return [event for event in found if ticket is None or getattr(event, "ticket_id", None) == ticket]

    def routed(self, ticket: uuid.UUID, cause: uuid.UUID) -> TicketRouted | None:
        return next((event for event in self.all(TicketRouted, ticket) if event.cause_id == cause), None)

    def clock_says(self, ticket: uuid.UUID, target: Target, kind: SlaKind, since: int) -> bool:
        events = self.events[since:]
        return any(
            isinstance(event, SlaEvent) and (event.ticket_id, event.target, event.kind) == (ticket, target, kind)
            for event in events
        )


class Player:
    """Plays one story: each step waits for what the one before was expected to bring."""

    def __init__(self, world: World, scenario: Scenario, story: Story) -> None:
        self.world, self.scenario, self.story = world, scenario, story
        self.tickets: list[uuid.UUID] = []
        self.latest_routing: TicketRouted | None = None

    async def play(self) -> None:
        start = datetime.now(UTC) - self.story.duration() - timedelta(seconds=1)
        for position, (at, step) in enumerate(self.story.timed(start)):
            since = len(self.world.events)
            where = f"{self.scenario.brand}/{self.story.name}, step {position + 1}"
            if isinstance(step, MessageStep):
                await self._message(position, at, step, since, where)
            else:
                await self._agent(position, at, step, since, where)
        assert len(set(self.tickets)) == self.story.tickets, self.story.name

    async def _message(self, position: int, at: datetime, step: MessageStep, since: int, where: str) -> None:
        message = self.scenario.channel_message(self.story, position, at, self.world.run)
        await self.world.publish(topics.CHANNEL_MESSAGES, message)
        if step.expect.outcome is Outcome.DUPLICATE:
            await self._nothing_came_of(message.message_id, where)
            return
        accepted = await eventually(lambda: self._accepted(message.message_id), 60)
        assert accepted is not None
        assert accepted.disposition.value == step.expect.outcome.value, where
        if step.expect.linked is not None:
            assert (accepted.linked_ticket_id is not None) is step.expect.linked, where
        self.tickets.append(accepted.ticket_id)
        routed = await eventually(lambda: self._routed(accepted.ticket_id, accepted.event_id), 60)
        assert routed is not None
        self.latest_routing = routed
        _check_routing(routed, step.expect, where)
        _check_message(routed, step.expect, where)
        for target in step.expect.resumed:
            await eventually(lambda target=target: self._clock(target, SlaKind.RESUMED, since), 30)  # type: ignore[misc]
        if step.expect.acknowledged_in is not None:
            await eventually(lambda: self._acknowledged(accepted.ticket_id, step.expect.acknowledged_in), 30)

    async def _agent(self, position: int, at: datetime, step: AgentStep, since: int, where: str) -> None:
        activity = self._activity(position, at, step.agent)
        await self.world.publish(topics.TICKETS_ACTIVITY, activity)
        if step.agent.act is Act.CORRECT:
            self.latest_routing = await eventually(lambda: self._routed(self.tickets[-1], activity.event_id), 60)
        if step.expect.model_fields_set - {"met", "paused", "resumed", "delivered"}:
            assert self.latest_routing is not None
            _check_routing(self.latest_routing, step.expect, where)
        await self._check_clocks(step.expect, since)
        if step.expect.delivered:
            await eventually(lambda: self._delivered(step.agent.text or ""), 30)

    def _activity(self, position: int, at: datetime, act: AgentAct) -> TicketActivity:
        return TicketActivity(
            ticket_id=self.tickets[-1],
            activity_id=f"{self.world.run}-{self.story.name}-{position}",
            kind=_KINDS[act.act],
            agent=act.by,
            at=at,
            text=act.text,
            queue=act.queue,
            category=act.category,
            priority=act.priority,
            brand=self.scenario.brand,
        )

    async def _check_clocks(self, expect: AgentExpectation, since: int) -> None:
        wanted = ((SlaKind.MET, expect.met), (SlaKind.PAUSED, expect.paused), (SlaKind.RESUMED, expect.resumed))
        for kind, targets in wanted:
            for target in targets:
                await eventually(lambda target=target, kind=kind: self._clock(target, kind, since), 30)  # type: ignore[misc]

    async def _clock(self, target: Target, kind: SlaKind, since: int) -> bool:
        said = self.world.clock_says(self.tickets[-1], target, kind, since)
        assert said, f"{self.scenario.brand}/{self.story.name}: {target} has not {kind}"
        return said

    async def _accepted(self, message_id: str) -> TicketMessage | None:
        return next((event for event in self.world.all(TicketMessage) if event.message_id == message_id), None)

    async def _routed(self, ticket: uuid.UUID, cause: uuid.UUID) -> TicketRouted | None:
        return self.world.routed(ticket, cause)

    async def _acknowledged(self, ticket: uuid.UUID, language: Language | None) -> bool:
        outcomes = [
            event
            for event in self.world.all(NotificationOutcome, ticket)
            if event.kind is NotificationKind.ACKNOWLEDGEMENT and event.status is NotificationStatus.DELIVERED
        ]
        assert len(outcomes) == 1, f"{len(outcomes)} acknowledgements of {self.story.name}"
        connection = await asyncpg.connect(self.world.stack.database_url)
        try:
            said = await connection.fetchval(
                "SELECT language FROM notifier.notifications WHERE notification_id = $1", outcomes[0].notification_id
            )
        finally:
            await connection.close()
        assert said == language, f"{self.story.name} was acknowledged in {said}"
        return True

    async def _delivered(self, text: str) -> bool:
        # As it stands in a JSON body, where quotes are escaped, or in a mail.
        return any(
            text in body or json.dumps(text, ensure_ascii=False)[1:-1] in body for body in self.world.receivers.bodies
        )

    async def _nothing_came_of(self, message_id: str, where: str) -> None:
        """Intake has committed past it, and the message is still there once."""
        await eventually(self.world.intake_has_caught_up, 60)
        same = [event for event in self.world.all(TicketMessage) if event.message_id == message_id]
        assert len(same) == 1, where


def _check_routing(routed: TicketRouted, expect: RoutingExpectation, where: str) -> None:
    if expect.category:
        assert routed.category in expect.category, f"{where}: {routed.category} by {routed.trace}"
    if expect.queue is not None:
        assert routed.queue is expect.queue, f"{where}: {routed.queue} ({routed.category}, {routed.confidence})"
    why = [(reason.rule, reason.effect) for reason in routed.reasons]
    if expect.priority is not None:
        assert routed.priority is expect.priority, f"{where}: {routed.priority} by {why}"
    if expect.no_less_urgent_than is not None:
        assert routed.priority <= Priority(expect.no_less_urgent_than), f"{where}: {routed.priority} by {why}"
    if expect.no_more_urgent_than is not None:
        assert routed.priority >= Priority(expect.no_more_urgent_than), f"{where}: {routed.priority} by {why}"


def _check_message(routed: TicketRouted, expect: MessageExpectation, where: str) -> None:
    points = {point.category for point in routed.points} | {routed.category}
    assert set(expect.points) <= points, f"{where}: points {sorted(points)}"
    assert set(expect.asked) <= set(routed.missing), f"{where}: missing {routed.missing}"
    assert not set(expect.not_asked) & set(routed.missing), f"{where}: missing {routed.missing}"
    if expect.language is not None:
        assert routed.language is expect.language, where


@pytest.fixture(scope="module")
async def world(run_directory: Path) -> AsyncIterator[World]:
    from tests.conftest import _broker

    broker: Broker = _broker(run_directory / "scenarios" / "broker")
    credentials = Credentials()
    receivers = Receivers(credentials)
    settings = environment(credentials, receiver_url=receivers.url, mail_port=receivers.mail_port)
    del settings["SLA_TIMER_POLICIES_FILE"]  # the brands' own promises
    stack = Stack(run_directory / "scenarios", broker, environment=settings)
    async with receivers.listening(), stack, World(stack, receivers).watching() as world:
        yield world


@pytest.fixture(scope="module")
async def played(world: World) -> dict[str, BaseException | None]:
    """All stories of all brands, at the same time; what went wrong with each."""
    players = [Player(world, scenario, story) for scenario in map(load, _SCENARIOS) for story in scenario.stories]
    results = await asyncio.gather(*(player.play() for player in players), return_exceptions=True)
    return {
        f"{player.scenario.brand}/{player.story.name}": result for player, result in zip(players, results, strict=True)
    }


_STORIES = [f"{path.stem}/{story.name}" for path in _SCENARIOS for story in load(path).stories]


@pytest.mark.parametrize("story", _STORIES)
async def test_story(story: str, played: dict[str, BaseException | None]) -> None:
    error = played[story]
    if error is not None:
        raise error


async def test_no_secret_of_any_story_is_found_anywhere(world: World, played: dict[str, Any]) -> None:
    secrets = [
        words
        for scenario in map(load, _SCENARIOS)
        for story in scenario.stories
        for step in story.steps
        if isinstance(step, MessageStep)
        for words in step.expect.cut
    ]
    assert len(secrets) >= 5
    assert played
    places = {
        "topics": world.published.decode(),
        "notifications": "\n".join(world.receivers.bodies),
        "tables": await _all_rows(world.stack.database_url),
        "logs": "\n".join(world.stack.log(service).read_text("utf-8") for service in SERVICES),
    }
    found = [(place, words) for place, text in places.items() for words in secrets if words in text]
    assert found == []


async def _all_rows(url: str) -> str:
    connection = await asyncpg.connect(url)
    try:
        tables = await connection.fetch(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname = ANY($1)", list(SERVICES)
        )
        assert len(tables) > len(SERVICES)
        rows: list[str] = []
        for table in tables:
            name = f'"{table["schemaname"]}"."{table["tablename"]}"'
            rows += [row["row"] for row in await connection.fetch(f"SELECT t::text AS row FROM {name} t")]
    finally:
        await connection.close()
    return "\n".join(rows)
