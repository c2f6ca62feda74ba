"""The stories of all brands, played through the five services: what customers write, agents do, and comes of it."""

from __future__ import annotations

import json
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from prometheus_client.parser import text_string_to_metric_families

from shared import topics
from shared.cloudevents import trace_of
from shared.database import SERVICES
from shared.events import (
    ChannelMessage,
    NotificationKind,
    NotificationOutcome,
    NotificationStatus,
    TicketActivity,
    TicketMessage,
    TicketRouted,
)
from shared.events.channel import Customer
from shared.taxonomy import Channel
from tests.scenarios.play import World, play_all, running, scenarios
from tests.scenarios.schema import MessageStep
from tests.support.collector import CollectedSpan, Collector, collecting
from tests.support.waiting import eventually

TENANT: Final = uuid.uuid4().hex
"""The collector's secret, and the operator's."""
UNSAMPLED: Final = uuid.uuid4().hex
"""A trace of which whoever began it said that nobody shall record it."""
CARD: Final = "4111 1111 1111 1111"
_LEAST_CHARACTERS: Final = 6
"""A shorter line of what somebody wrote may be found in an id."""
_STORIES = [f"{scenario.brand}/{story.name}" for scenario in scenarios() for story in scenario.stories]


@pytest.fixture(scope="module")
async def collector() -> AsyncIterator[Collector]:
    async with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
async def world(run_directory: Path, collector: Collector) -> AsyncIterator[World]:
    """Everything is traced, and logged from DEBUG on."""
    from tests.conftest import _broker

    settings = {
        "TRACING_OTLP_ENDPOINT": collector.url,
        "TRACING_OTLP_HEADERS": f"x-tenant={TENANT}",
        "LOG_LEVEL": "DEBUG",
        "LOG_FORMAT": "json",
        "OPERATIONS_TOKEN": TENANT,
    }
    directory = run_directory / "scenarios"
    async with running(directory, _broker(directory / "broker"), settings) as world:
        yield world


@pytest.fixture(scope="module")
async def played(world: World) -> dict[str, BaseException | None]:
    return await play_all(world)


# --- one message, from the channel to the agent's answer. Before the stories: the desk's queues are empty yet ---------


def written(mark: str) -> ChannelMessage:
    return ChannelMessage(
        brand="upay_wallet",
        channel=Channel.APP_CHAT,
        message_id=mark,
        customer=Customer(id=f"traced-{mark}"),
        text=f"充值没到账 {mark}，卡号是 {CARD}",
        sent_at=datetime.now(UTC),
    )


async def answered(world: World, message: ChannelMessage, reply: str) -> uuid.UUID:
    """Have an agent answer the message at the desk, once it was acknowledged; its ticket, when the answer is there."""

    async def accepted() -> TicketMessage | None:
        return next((item for item in world.all(TicketMessage) if item.message_id == message.message_id), None)

    async def delivered(kind: NotificationKind) -> bool:
        return any(
            item.kind is kind and item.status is NotificationStatus.DELIVERED
            for item in world.all(NotificationOutcome, ticket)
        )

    came = await eventually(accepted, 60)
    assert came is not None
    ticket = came.ticket_id
    await eventually(lambda: delivered(NotificationKind.ACKNOWLEDGEMENT), 60)
    (routed,) = world.all(TicketRouted, ticket)

    async def claimed() -> bool:
        answer = await at_desk(world, f"/queues/{routed.queue}/claim")
        return answer is not None and answer["ticket_id"] == str(ticket)

    await eventually(claimed, 60)
    await at_desk(world, f"/tickets/{ticket}/reply", {"text": reply})
    await eventually(lambda: delivered(NotificationKind.REPLY), 60)
    assert reply in await world.answers(message.brand, message.channel, message.customer)
    await at_desk(world, f"/tickets/{ticket}/resolve")
    return ticket


async def at_desk(world: World, path: str, body: dict[str, str] | None = None) -> Any:
    answer = await world.http.post(
        f"{world.stack.url('desk')}/v1{path}",
        json=body,
        headers={"Authorization": f"Bearer {world.credentials.agent}"},
    )
    assert answer.is_success, answer.text
    return answer.json() if answer.content else None


def one(spans: list[CollectedSpan], service: str, name: str) -> CollectedSpan:
    (found,) = (span for span in spans if (span.service, span.name) == (service, name))
    return found


async def whole_trace(collector: Collector, trace_id: str, queue: str, *, known: str = "") -> list[CollectedSpan]:
    """Every span of a message that was acknowledged and answered, once all of them are there."""
    wanted = {
        "intake: send tickets.messages",
        "classifier: process tickets.messages",
        "classifier: classify",
        f"classifier: send queues.{queue}",
        f"sla_timer: process queues.{queue}",
        "sla_timer: send sla.events",
        "desk: process tickets.messages",
        f"notifier: process queues.{queue}",
        "notifier: deliver acknowledgement",
        "intake: POST /v1/replies/{brand}",
        "intake: send reply by app_chat",
        "desk: agent claimed",
        "desk: agent replied",
        "desk: send tickets.activity",
        "notifier: process tickets.activity",
        "notifier: deliver reply",
        "notifier: send notifications.outcomes",
        "desk: process notifications.outcomes",
    }

    async def there() -> bool:
        missing = wanted - {str(span) for span in collector.of_trace(trace_id)}
        assert not missing, f"missing: {sorted(missing)}"
        orphans = collector.orphans(trace_id, known=known)
        assert not orphans, f"no parent: {orphans}"
        return True

    await eventually(there, 60)
    return collector.of_trace(trace_id)


async def test_a_message_of_a_channel_is_one_trace_to_the_agents_answer(world: World, collector: Collector) -> None:
    trace_id, channels_span = uuid.uuid4().hex, uuid.uuid4().hex[:16]
    message = written(uuid.uuid4().hex)
    await world.publish(topics.CHANNEL_MESSAGES, message, f"00-{trace_id}-{channels_span}-01")
    ticket = await answered(world, message, f"钱已经到账了 {message.message_id}")
    (routed,) = world.all(TicketRouted, ticket)
    spans = await whole_trace(collector, trace_id, routed.queue, known=channels_span)

    by_id = {span.span_id: span for span in spans}
    first = one(spans, "intake", "process channel.messages")
    assert (first.parent_id, first.kind) == (channels_span, "consumer")
    assert [span for span in spans if span.parent_id == channels_span] == [first]
    published = one(spans, "intake", "send tickets.messages")
    assert (by_id[published.parent_id], published.kind) == (first, "producer")
    for service in ("classifier", "sla_timer", "notifier", "desk"):
        assert by_id[one(spans, service, "process tickets.messages").parent_id] == published
    classified = one(spans, "classifier", "classify")
    assert by_id[classified.parent_id] == one(spans, "classifier", "process tickets.messages")
    replied = one(spans, "desk", "agent replied")
    assert by_id[replied.parent_id] == one(spans, "desk", "process tickets.messages")
    ((request_trace, request_span),) = replied.links
    (request,) = (span for span in collector.of_trace(request_trace) if span.span_id == request_span)
    assert (str(request), request.kind) == ("desk: POST /v1/tickets/{ticket_id}/reply", "server")
    for kind in ("acknowledgement", "reply"):
        delivery = one(spans, "notifier", f"deliver {kind}")
        (gateway,) = (span for span in spans if span.parent_id == delivery.span_id and span.kind == "server")
        (handed_on,) = (span for span in spans if span.parent_id == gateway.span_id)
        assert str(handed_on) == "intake: send reply by app_chat"
    assert not any(span.failed for span in spans)

    assert {span.attributes.get("switchyard.ticket.id") for span in spans} <= {str(ticket), None}
    assert first.attributes["switchyard.ticket.id"] == str(ticket)
    assert {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "channel.messages",
        "messaging.consumer.group.name": "intake.channel.messages",
        "switchyard.brand": "upay_wallet",
        "switchyard.channel": "app_chat",
    }.items() <= first.attributes.items()
    assert {"messaging.destination.partition.id", "messaging.kafka.offset"} <= first.attributes.keys()
    assert collector.headers["x-tenant"] == TENANT


async def test_a_message_over_http_is_one_trace_that_begins_with_its_request(
    world: World, collector: Collector
) -> None:
    message, unseen = written(uuid.uuid4().hex), written(uuid.uuid4().hex)
    url, headers = (
        f"{world.stack.url('intake')}/v1/messages",
        {"Authorization": f"Bearer {world.credentials.channel}"},
    )
    untraced = {**headers, "traceparent": f"00-{UNSAMPLED}-{'1' * 16}-00"}
    for item, with_headers in ((unseen, untraced), (message, headers)):
        body = item.model_dump(mode="json", exclude_defaults=True)
        answer = await world.http.post(url, json=body, headers=with_headers)
        assert answer.status_code == 202, answer.text
        await answered(world, item, f"已经处理 {item.message_id}")
    ticket = answer.json()["ticket_id"]
    (root,) = (
        span
        for span in collector.spans
        if span.name == "accept message" and span.attributes["switchyard.ticket.id"] == ticket
    )
    (routed,) = world.all(TicketRouted, uuid.UUID(ticket))
    spans = await whole_trace(collector, root.trace_id, routed.queue)
    request = one(spans, "intake", "POST /v1/messages")
    assert (request.parent_id, request.kind, root.parent_id) == ("", "server", request.span_id)
    assert request.attributes["http.response.status_code"] == 202
    # Whoever sent it had decided that it is not recorded; no service thought better of it.
    assert collector.of_trace(UNSAMPLED) == []


async def test_messages_of_one_request_have_traces_of_their_own(world: World, collector: Collector) -> None:
    messages = [written(uuid.uuid4().hex) for _ in range(2)]
    trace_id, senders_span = uuid.uuid4().hex, uuid.uuid4().hex[:16]
    answer = await world.http.post(
        f"{world.stack.url('intake')}/v1/messages",
        json=[item.model_dump(mode="json", exclude_defaults=True) for item in messages],
        headers={
            "Authorization": f"Bearer {world.credentials.channel}",
            "traceparent": f"00-{trace_id}-{senders_span}-01",
        },
    )
    assert answer.status_code == 202, answer.text
    own = [trace_of(item)[3:35] for item in messages]

    async def collected() -> bool:
        for trace in own:
            names = {str(span) for span in collector.of_trace(trace)}
            assert {"intake: accept message", "notifier: deliver acknowledgement"} <= names, names
            assert not collector.orphans(trace)
        return bool(collector.of_trace(trace_id))

    await eventually(collected, 60)
    request = one(collector.of_trace(trace_id), "intake", "POST /v1/messages")
    assert request.parent_id == senders_span
    for trace in own:
        accepted = one(collector.of_trace(trace), "intake", "accept message")
        assert (accepted.parent_id, accepted.links) == ("", ((trace_id, request.span_id),))


# --- the stories ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("story", _STORIES)
async def test_story(story: str, played: dict[str, BaseException | None]) -> None:
    error = played[story]
    if error is not None:
        raise error


async def test_no_secret_of_any_story_is_found_anywhere(world: World, played: dict[str, BaseException | None]) -> None:
    steps = [step for scenario in scenarios() for story in scenario.stories for step in story.steps]
    assert sum(len(step.expect.cut) for step in steps if isinstance(step, MessageStep)) >= 5
    assert played
    assert await world.leaks() == []


def lines_of(*texts: str | None) -> set[str]:
    return {line for text in texts if text for line in text.splitlines() if len(line) >= _LEAST_CHARACTERS}


async def test_nobodys_words_are_traced_or_logged(
    world: World, collector: Collector, played: dict[str, BaseException | None]
) -> None:
    """Of all that customers and agents wrote, secrets and all, by every channel, at DEBUG."""
    assert played
    words = lines_of(CARD)
    for message in world.all(TicketMessage):
        words |= lines_of(message.text, message.subject)
    for activity in world.all(TicketActivity):
        words |= lines_of(activity.text)
    for scenario in scenarios():
        for story in scenario.stories:
            for step in story.steps:
                if isinstance(step, MessageStep):
                    words |= lines_of(step.message.text, step.message.subject, *step.expect.cut)
    tokens = (world.credentials.agent, world.credentials.channel, world.credentials.gateway_secret, TENANT)
    words |= {*tokens, *world.outside.environment.values()}
    assert len(words) > 100
    traced = bytes(collector.raw)
    assert len(collector.spans) > 1000
    assert [item for item in words if item.encode() in traced] == []
    for service in SERVICES:
        logged = world.stack.log(service).read_text("utf-8")
        assert [item for item in words if item in logged] == [], service


async def test_the_log_tells_of_a_ticket_by_its_id_and_its_trace(
    world: World, collector: Collector, played: dict[str, BaseException | None]
) -> None:
    assert played
    named: set[tuple[str, str]] = set()
    for service in SERVICES:
        entries = [json.loads(line) for line in world.stack.log(service).read_text("utf-8").splitlines()]
        assert {entry["service"] for entry in entries} == {service}
        of_tickets = [entry for entry in entries if "ticket_id" in entry]
        assert of_tickets
        named |= {(entry["trace_id"], entry["span_id"]) for entry in of_tickets if "trace_id" in entry}
        assert {uuid.UUID(entry["ticket_id"]) for entry in of_tickets} <= {
            event.ticket_id for event in world.all(TicketMessage)
        }

    async def all_told() -> bool:
        """Spans come a little after their log lines."""
        missing = named - {(span.trace_id, span.span_id) for span in collector.spans}
        assert {trace_id for trace_id, _ in missing} <= {UNSAMPLED}, sorted(missing)[:3]
        return True

    assert named
    await eventually(all_told, timeout_seconds=60)


async def test_an_operator_changes_the_level_of_the_log_and_it_is_counted(world: World) -> None:
    url = world.stack.url("classifier")
    place = f"{url}/operations/log-level"
    operator = {"Authorization": f"Bearer {TENANT}"}
    assert (await world.http.put(place, json={"level": "ERROR"})).status_code == 401
    assert (await world.http.put(place, json={"level": "ERROR"}, headers={"X-API-Key": "wrong"})).status_code == 401
    answer = await world.http.put(place, json={"level": "INFO", "minutes": 0.01}, headers=operator)
    assert answer.status_code == 200, answer.text
    assert {item["level"] for item in answer.json()["changed"]} == {"INFO"}

    async def restored() -> bool:
        told = (await world.http.get(place, headers=operator)).json()
        assert told == {"configured": "DEBUG", "changed": []}
        return True

    await eventually(restored, 30)
    exposed = (await world.http.get(f"{url}/metrics")).text
    counted = {line.split()[0]: float(line.split()[1]) for line in exposed.splitlines() if line and line[0] != "#"}
    assert counted['switchyard_log_records_total{level="WARNING",service="classifier"}'] >= 2
    assert counted['switchyard_log_records_total{level="DEBUG",service="classifier"}'] > 0
    assert counted['switchyard_spans_total{outcome="exported",service="classifier"}'] > 0
    assert counted['switchyard_spans_total{outcome="not_taken",service="classifier"}'] == 0


async def exposed(world: World, service: str) -> dict[str, Counter[tuple[str, ...]]]:
    """The samples of a service by name, then by the values of their labels in the order of these."""
    text = (await world.http.get(f"{world.stack.url(service)}/metrics")).text
    found: dict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found[sample.name][labels] += sample.value  # type: ignore[assignment]
    return found


async def test_what_prometheus_is_told_is_what_the_topics_say(
    world: World, played: dict[str, BaseException | None]
) -> None:
    """Counts, and ages to the millisecond, of all that the stories made."""
    assert played
    causes = {message.event_id for message in world.all(TicketMessage) if message.deletes is None}
    routed = {event.event_id: event for event in world.all(TicketRouted) if event.cause_id in causes}.values()
    by_labels = Counter((e.brand, e.category, e.language, e.priority, e.queue) for e in routed)
    by_channel = Counter((e.brand, e.channel, e.priority) for e in routed)
    ages = sum(max(0.0, (event.decided_at - event.sent_at).total_seconds()) for event in routed)
    delivered = Counter(
        (event.kind, event.output)
        for event in {event.event_id: event for event in world.all(NotificationOutcome)}.values()
        if event.status is NotificationStatus.DELIVERED
    )
    assert len(by_labels) > 30
    assert len(delivered) > 3

    async def agree() -> bool:
        classifier = await exposed(world, "classifier")
        assert classifier["switchyard_decisions_total"] == by_labels
        assert classifier["switchyard_routed_age_seconds_count"] == by_channel
        assert classifier["switchyard_routed_age_seconds_sum"].total() == pytest.approx(ages, abs=0.1)
        notifier = await exposed(world, "notifier")
        assert {by: n for by, n in notifier["switchyard_notification_age_seconds_count"].items() if n} == delivered
        desk = await exposed(world, "desk")
        claims = desk["switchyard_claims_total"].total()
        assert claims >= 1
        assert desk["switchyard_claim_wait_seconds_count"].total() == claims
        for service in SERVICES:
            told = await exposed(world, service)
            taken: Counter[str] = Counter()
            for (group, _), records in told["switchyard_records_consumed_total"].items():
                taken[group] += records
            assert {group: n for (group,), n in told["switchyard_record_age_seconds_count"].items() if n} == +taken
        return True

    await eventually(agree, 30)
