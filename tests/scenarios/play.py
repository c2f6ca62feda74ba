"""Plays stories through the five services: customers write by their channels, agents act, and what comes is checked."""

from __future__ import annotations

import asyncio
import smtplib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, TypeVar

import asyncpg
import httpx
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from deploy.demo.receivers import Receivers
from deploy.demo.settings import Credentials, environment
from deploy.processes import free_port
from deploy.stack import Stack, Startable
from services.notifier.domain.texts import reference_of
from shared import topics
from shared.broker import Publisher, build_broker
from shared.calendars import load_calendars
from shared.cloudevents import InvalidRecord, Outgoing, decode, trace_of
from shared.database import SERVICES
from shared.events import (
    ActivityKind,
    ChannelMessage,
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
from shared.events.channel import Customer
from shared.taxonomy import Channel, Language, Priority
from tests.scenarios.outside import Outside, Said, chat_answers, person_of
from tests.scenarios.schema import (
    Act,
    AgentAct,
    AgentExpectation,
    AgentStep,
    MessageExpectation,
    MessageStep,
    Outcome,
    Promise,
    RoutingExpectation,
    Scenario,
    Story,
    Via,
    load,
)
from tests.support.waiting import eventually

FILES: Final = sorted(Path(__file__).parent.glob("*.yaml"))
_CALENDARS: Final = Path(__file__).parents[2] / "deploy" / "config" / "calendars.yaml"
_SECONDS: Final = 30.0
_KINDS: Final = {
    Act.CLAIM: ActivityKind.CLAIMED,
    Act.RELEASE: ActivityKind.RELEASED,
    Act.REPLY: ActivityKind.REPLIED,
    Act.WAIT_ON_CUSTOMER: ActivityKind.WAITING_ON_CUSTOMER,
    Act.RESOLVE: ActivityKind.RESOLVED,
    Act.REOPEN: ActivityKind.REOPENED,
    Act.CORRECT: ActivityKind.CORRECTED,
}
_PLANNING: Final = (SlaKind.STARTED, SlaKind.REPLANNED, SlaKind.RESUMED)
E = TypeVar("E", bound=Event)
T = TypeVar("T")


def scenarios() -> list[Scenario]:
    return [load(path) for path in FILES]


class World:
    """The running stack, what is outside of it, and everything that its topics have said."""

    def __init__(
        self, stack: Stack, receivers: Receivers, outside: Outside, smtp_port: int, credentials: Credentials
    ) -> None:
        self.smtp_port = smtp_port
        """Of intake."""
        self.stack = stack
        self.receivers = receivers
        self.outside = outside
        self.credentials = credentials
        self.run = uuid.uuid4().hex[:8]
        self.calendars = load_calendars(_CALENDARS)
        self.events: list[Event] = []
        self.published = bytearray()
        self.http = httpx.AsyncClient(trust_env=False, timeout=20)
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
            await self.http.aclose()
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

    async def publish(self, topic: topics.Topic, event: Event, traceparent: str | None = None) -> None:
        await self._publisher.publish([Outgoing(topic.name, event, traceparent or trace_of(event))])

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

    async def fetch(self, query: str, *values: object) -> object:
        """One value out of the stack's database."""
        connection = await asyncpg.connect(self.stack.database_url)
        try:
            return await connection.fetchval(query, *values)
        finally:
            await connection.close()

    async def answers(self, brand: str, channel: Channel, customer: Customer) -> str:
        """All that has reached this customer, by the way his channel answers."""
        if channel is Channel.APP_CHAT:
            return await chat_answers(self.stack.url("intake"), self.outside, brand, customer)
        if channel in (Channel.EMAIL, Channel.WEB_FORM):
            return "\n".join(body for body in self.receivers.bodies if f"\nTo: {customer.id}" in body)
        return self.outside.answers(brand, channel, customer.id)

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

    async def leaks(self) -> list[tuple[str, str]]:
        """Each secret of a story that is found where none may be: the place, and the secret."""
        secrets = [
            words
            for scenario in scenarios()
            for story in scenario.stories
            for step in story.steps
            if isinstance(step, MessageStep)
            for words in step.expect.cut
        ]
        places = {
            "topics": self.published.decode(),
            "notifications": "\n".join((*self.receivers.bodies, *(text for *_, text in self.outside.arrived))),
            "tables": await _all_rows(self.stack.database_url),
            "logs": "\n".join(self.stack.log(service).read_text("utf-8") for service in SERVICES),
        }
        return [(place, words) for place, text in places.items() for words in secrets if words in text]


@asynccontextmanager
async def running(directory: Path, broker: Startable, more: Mapping[str, str] | None = None) -> AsyncIterator[World]:
    """The stack with the brands' own promises and channels, and the world around it. `more`: further settings."""
    credentials = Credentials()
    receivers = Receivers(credentials)
    outside = Outside(directory)
    settings = environment(credentials, receiver_url=receivers.url, mail_port=receivers.mail_port)
    # The brands' own promises, in place of the demo's; answers go back through intake, in place of a receiver.
    del settings["SLA_TIMER_POLICIES_FILE"], settings["NOTIFIER_GATEWAY_URL"]
    settings |= {
        "BRANDS_DIRECTORY": str(outside.brands),
        "INTAKE_REPLIES_SECRET": credentials.gateway_secret,
        "INTAKE_SMTP_PORT": str(smtp_port := free_port()),
        **(more or {}),
    }
    stack = Stack(directory, broker, environment=settings, of_service={"intake": outside.environment})
    async with (
        receivers.listening(),
        outside.listening(),
        stack,
        World(stack, receivers, outside, smtp_port, credentials).watching() as world,
    ):
        yield world


async def play_all(world: World) -> dict[str, BaseException | None]:
    """All stories of all brands, at the same time: by `<brand>/<story>`, what went wrong with it."""
    players = [Player(world, scenario, story) for scenario in scenarios() for story in scenario.stories]
    results = await asyncio.gather(*(player.play() for player in players), return_exceptions=True)
    return {player.name: result for player, result in zip(players, results, strict=True)}


class Player:
    """Plays one story: each step waits for what the one before was expected to bring.

    What is not as expected raises AssertionError: story and step, what was expected, what came.
    """

    def __init__(self, world: World, scenario: Scenario, story: Story) -> None:
        self.world, self.brand, self.story = world, scenario.brand, story
        self.name = f"{scenario.brand}/{story.name}"
        self.customer = person_of(story.channel, scenario.brand, story.customer, world.run)
        self.tickets: list[uuid.UUID] = []
        self.accepted: list[TicketMessage] = []
        self.latest_routing: TicketRouted | None = None
        self._where = self.name

    async def play(self) -> None:
        start = datetime.now(UTC) - self.story.duration() - timedelta(seconds=1)
        for position, (at, step) in enumerate(self.story.timed(start)):
            since = len(self.world.events)
            self._where = f"{self.name}, step {position + 1}"
            if isinstance(step, MessageStep):
                await self._message(position, at, step, since)
            else:
                await self._agent(position, at, step, since)
        self._expect(len(set(self.tickets)) == self.story.tickets, f"{self.story.tickets} tickets", self.tickets)

    def _expect(self, holds: bool, expected: object, came: object) -> None:
        if not holds:
            raise AssertionError(f"{self._where}: expected {expected}, came {came}")

    async def _soon(self, predicate: Callable[[], Awaitable[T]], expected: object) -> T:
        try:
            return await eventually(predicate, _SECONDS)
        except AssertionError as error:
            raise AssertionError(f"{self._where}: expected {expected}, came {error.__cause__ or error}") from None

    # --- a customer writes ------------------------------------------------------------------------------------------

    async def _message(self, position: int, at: datetime, step: MessageStep, since: int) -> None:
        await self._send(position, at, step)
        if step.expect.outcome is Outcome.DUPLICATE:
            await self._nothing_came_of_it()
            return
        accepted = await self._soon(self._new_message, "the message to be accepted")
        assert accepted is not None
        self.accepted.append(accepted)
        came = accepted.disposition.value
        self._expect(came == step.expect.outcome.value, step.expect.outcome, came)
        if step.expect.linked is not None:
            is_linked = accepted.linked_ticket_id is not None
            self._expect(is_linked is step.expect.linked, f"linked: {step.expect.linked}", is_linked)
        self.tickets.append(accepted.ticket_id)

        async def routing() -> TicketRouted | None:
            return self.world.routed(accepted.ticket_id, accepted.event_id)

        routed = await self._soon(routing, "the message to be routed")
        assert routed is not None
        self.latest_routing = routed
        self._check_routing(routed, step.expect)
        self._check_message(routed, step.expect)
        for target in step.expect.resumed:
            await self._clock(target, SlaKind.RESUMED, since)
        for target, promise in step.expect.promised.items():
            await self._check_promise(target, promise)
        if step.expect.acknowledged_in is not None:
            await self._check_acknowledgement(accepted.ticket_id, step.expect.acknowledged_in)

    async def _send(self, position: int, at: datetime, step: MessageStep) -> None:
        message = step.message
        number = f"{self.world.run}-{self.story.name}-{message.id or f'step-{position + 1}'}"
        if self.story.via is Via.KAFKA:
            await self.world.publish(
                topics.CHANNEL_MESSAGES,
                ChannelMessage(
                    brand=self.brand,
                    channel=self.story.channel,
                    message_id=number,
                    customer=self.customer,
                    text=message.text,
                    subject=message.subject,
                    sent_at=at,
                    reply_to=self.customer.id,
                    attachments=message.attachments,
                ),
            )
            return
        said = Said(self.brand, self.customer, number, message.text, message.subject, message.attachments, at)
        if self.story.channel is Channel.EMAIL:
            try:
                await self.world.outside.mail(said, self.world.smtp_port)
            except smtplib.SMTPException as error:
                self._expect(False, "the mail to be taken", error)
            return
        delivery = self.world.outside.delivery(self.story.channel, said)
        answer = await self.world.http.post(
            f"{self.world.stack.url('intake')}/v1/channels/{delivery.provider}/{self.brand}",
            content=delivery.body,
            headers=dict(delivery.headers),
            params=dict(delivery.query),
        )
        self._expect(answer.is_success, "the gateway to accept it", f"{answer.status_code} {answer.text}")

    async def _new_message(self) -> TicketMessage | None:
        known = {message.message_id for message in self.accepted}
        for event in self.world.all(TicketMessage):
            whose = event.brand, event.channel, event.customer.id
            if whose == (self.brand, self.story.channel, self.customer.id) and event.message_id not in known:
                return event
        return None

    async def _nothing_came_of_it(self) -> None:
        """Intake has stored it, or committed past it: and there is no message more."""
        if self.story.via is Via.KAFKA:
            await self._soon(self.world.intake_has_caught_up, "intake to have read it")
        count = await self.world.fetch(
            "SELECT count(*) FROM intake.messages WHERE ticket_id = ANY($1)", list(set(self.tickets))
        )
        self._expect(count == len(self.accepted), f"{len(self.accepted)} messages", count)

    def _check_routing(self, routed: TicketRouted, expect: RoutingExpectation) -> None:
        if expect.category:
            decided = f"{routed.category} ({routed.confidence:.2f}, by {routed.trace.decided_by})"
            self._expect(routed.category in expect.category, " or ".join(expect.category), decided)
        if expect.queue is not None:
            decided = f"{routed.queue} ({routed.category}, {routed.confidence:.2f})"
            self._expect(routed.queue is expect.queue, f"queue {expect.queue}", decided)
        by = f"{routed.priority} by {', '.join(f'{reason.rule} {reason.effect}' for reason in routed.reasons)}"
        if expect.priority is not None:
            self._expect(routed.priority is expect.priority, expect.priority, by)
        if (least := expect.no_less_urgent_than) is not None:
            self._expect(routed.priority <= Priority(least), f"no less urgent than {least}", by)
        if (most := expect.no_more_urgent_than) is not None:
            self._expect(routed.priority >= Priority(most), f"no more urgent than {most}", by)

    def _check_message(self, routed: TicketRouted, expect: MessageExpectation) -> None:
        points = {point.category for point in routed.points} | {routed.category}
        self._expect(set(expect.points) <= points, f"points {', '.join(expect.points)}", ", ".join(sorted(points)))
        missing = ", ".join(routed.missing) or "nothing"
        self._expect(set(expect.asked) <= set(routed.missing), f"to ask {', '.join(expect.asked)}", missing)
        unasked = not set(expect.not_asked) & set(routed.missing)
        self._expect(unasked, f"not to ask {', '.join(expect.not_asked)}", f"asked {missing}")
        if expect.language is not None:
            self._expect(routed.language is expect.language, f"language {expect.language}", routed.language)

    async def _check_promise(self, target: Target, promise: Promise) -> None:
        """On the right calendar, and due when this calendar says."""

        async def planned() -> SlaEvent:
            events = [event for event in self.world.all(SlaEvent, self.tickets[-1]) if event.target is target]
            latest = next((event for event in reversed(events) if event.kind in _PLANNING), None)
            assert latest is not None, f"{target} has not started"
            came = latest.calendar, latest.target_seconds
            assert came == (promise.calendar, promise.seconds), f"{latest.policy}: {came[1]} s on {came[0]}"
            if promise.rule is not None:
                assert latest.policy.rpartition("/")[0] == promise.rule, f"by {latest.policy}"
            due = self.world.calendars[promise.calendar].deadline(latest.started_at, promise.seconds)
            assert latest.kind is SlaKind.RESUMED or latest.due_at == due, f"due at {latest.due_at}, not {due}"
            return latest

        await self._soon(planned, f"{target} within {promise.seconds} s on {promise.calendar}")

    async def _check_acknowledgement(self, ticket: uuid.UUID, language: Language) -> None:
        """Exactly one, in this language, and it has reached the customer by the way his channel answers."""

        async def delivered() -> NotificationOutcome:
            outcomes = [
                event
                for event in self.world.all(NotificationOutcome, ticket)
                if event.kind is NotificationKind.ACKNOWLEDGEMENT
            ]
            done = [event for event in outcomes if event.status is NotificationStatus.DELIVERED]
            told = ", ".join(f"{event.status} ({event.detail})" for event in outcomes) or "none"
            assert len(done) == 1, f"acknowledgements: {told}"
            return done[0]

        outcome = await self._soon(delivered, "one acknowledgement to be delivered")
        came = await self.world.fetch(
            "SELECT language FROM notifier.notifications WHERE notification_id = $1", outcome.notification_id
        )
        self._expect(came == language, f"an acknowledgement in {language}", came)
        await self._reaches_him(reference_of(ticket), "the acknowledgement")

    async def _reaches_him(self, words: str, what: str) -> None:
        async def arrived() -> bool:
            answers = await self.world.answers(self.brand, self.story.channel, self.customer)
            assert words in answers, f"what has reached {self.customer.id} is: {answers[-300:] or 'nothing'}"
            return True

        await self._soon(arrived, f"{what} to arrive by {self.story.channel}")

    # --- an agent acts ----------------------------------------------------------------------------------------------

    async def _agent(self, position: int, at: datetime, step: AgentStep, since: int) -> None:
        activity = self._activity(position, at, step.agent)
        await self.world.publish(topics.TICKETS_ACTIVITY, activity)
        if step.agent.act is Act.CORRECT:

            async def corrected() -> TicketRouted | None:
                return self.world.routed(self.tickets[-1], activity.event_id)

            self.latest_routing = await self._soon(corrected, "the correction to be routed")
        if step.expect.model_fields_set - {"met", "paused", "resumed", "delivered"}:
            assert self.latest_routing is not None
            self._check_routing(self.latest_routing, step.expect)
        await self._check_clocks(step.expect, since)
        if step.expect.delivered:
            await self._reaches_him(step.agent.text or "", "the reply")

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
            brand=self.brand,
        )

    async def _check_clocks(self, expect: AgentExpectation, since: int) -> None:
        wanted = ((SlaKind.MET, expect.met), (SlaKind.PAUSED, expect.paused), (SlaKind.RESUMED, expect.resumed))
        for kind, targets in wanted:
            for target in targets:
                await self._clock(target, kind, since)

    async def _clock(self, target: Target, kind: SlaKind, since: int) -> None:
        async def said() -> bool:
            return self.world.clock_says(self.tickets[-1], target, kind, since)

        await self._soon(said, f"{target} {kind}")


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
