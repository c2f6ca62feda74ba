"""What holds for every notification: deterministic, bounded, complete, free of questions for secrets."""

from __future__ import annotations

import email
import ipaddress
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import policy

from hypothesis import given
from hypothesis import strategies as st

from services.notifier.domain.notifications import (
    acknowledgement,
    digest_due_at,
    latest_contacts,
    window_start,
)
from services.notifier.domain.outputs import customer_route, is_mail_address
from services.notifier.domain.retry import RetryPolicy, judge_http_status
from services.notifier.mail import message_of
from services.notifier.network import is_public
from shared.events import Customer, Disposition, Output, Point, TicketRouted
from shared.taxonomy import Category, Channel, Fact, Language, Queue
from tests.unit.notifier.examples import OUTPUTS, TEXTS, TRACE, routed_event
from tests.unit.notifier.test_texts import asks_for_a_secret

INSTANTS = st.integers(0, 2**41).map(lambda millis: datetime.fromtimestamp(millis / 1000, UTC))
DELAYS = st.lists(st.floats(0, 86400), min_size=1, max_size=12).map(tuple)
WORDS = st.text(st.characters(codec="utf-8"), max_size=60)


@st.composite
def routed(draw: st.DrawFn) -> TicketRouted:
    return routed_event(
        ticket_id=draw(st.uuids()),
        category=draw(st.sampled_from(Category)),
        queue=draw(st.sampled_from(Queue)),
        language=draw(st.sampled_from(Language)),
        channel=draw(st.sampled_from(Channel)),
        brand=draw(st.sampled_from([*OUTPUTS.brands, "unheard_of"])),
        missing=tuple(draw(st.lists(st.sampled_from(Fact), unique=True))),
        points=tuple(
            Point(category=category, start=start, end=start + 1, text="…")
            for category, start in draw(st.lists(st.tuples(st.sampled_from(Category), st.integers(0, 500)), max_size=6))
        ),
        customer=Customer(id=draw(st.sampled_from(["id-1", "a@b.example"]))),
        reply_to=draw(st.none() | WORDS),
    )


@given(routed())
def test_every_acknowledgement_asks_what_is_missing_and_no_secret(event: TicketRouted) -> None:
    made = acknowledgement(event, TEXTS, OUTPUTS, TRACE)
    assert made == acknowledgement(event, TEXTS, OUTPUTS, TRACE)
    assert made is not None
    assert made.route is not None
    for book in TEXTS.of(event.language):
        assert all((f"- {book.facts[fact]}" in made.text) == (fact in event.missing) for fact in Fact)
    assert not any(asks_for_a_secret(line) for line in made.text.replace("。", "\n").replace(". ", "\n").splitlines())
    assert set(made.data["points"]) == {
        category.value
        for category in (event.category, *(point.category for point in event.points))
        if category is not Category.OTHER
    }


@given(routed(), WORDS)
def test_a_mail_has_the_headers_we_gave_it_and_no_others(event: TicketRouted, subject: str) -> None:
    made = acknowledgement(event, TEXTS, OUTPUTS, TRACE)
    assert made is not None
    assert made.route is not None
    if made.route.output is not Output.MAIL:
        return
    wire = message_of(replace(made, subject=subject), OUTPUTS).as_bytes()
    mail = email.message_from_bytes(wire, policy=policy.default)
    assert sorted(set(mail.keys()) - {"Content-Type", "Content-Transfer-Encoding", "MIME-Version"}) == [
        "Auto-Submitted",
        "Date",
        "From",
        "Message-ID",
        "Subject",
        "To",
        "X-Auto-Response-Suppress",
    ]
    assert [address.addr_spec for address in mail["To"].addresses] == [made.route.recipient]


@given(st.sampled_from(Channel), st.none() | WORDS, st.none() | WORDS, st.text(min_size=1, max_size=30))
def test_mail_goes_only_to_mail_addresses(
    channel: Channel, reply_to: str | None, address: str | None, who: str
) -> None:
    route = customer_route(OUTPUTS, brand="upay", channel=channel, customer_id=who, email=address, reply_to=reply_to)
    assert route.recipient
    if route.output is Output.MAIL:
        assert channel in OUTPUTS.mail_channels
        assert is_mail_address(route.recipient)


@given(DELAYS, st.floats(0, 1), st.uuids(), INSTANTS, st.none() | st.floats(0, 10**9))
def test_waits_are_bounded_and_tries_end(
    delays: tuple[float, ...], jitter: float, notification_id: uuid.UUID, now: datetime, retry_after: float | None
) -> None:
    retries = RetryPolicy(delays, jitter, longest_retry_after_seconds=3600)
    for attempt in range(1, len(delays)):
        at = retries.next_try_at(notification_id, attempt, now, retry_after)
        assert at == retries.next_try_at(notification_id, attempt, now, retry_after)
        assert at is not None
        waited = (at - now).total_seconds()
        asked = min(retry_after or 0.0, 3600.0)
        least = max(delays[attempt], asked)
        most = max(delays[attempt] * (1 + jitter), asked)
        assert least - 1e-5 <= waited <= most + 1e-5  # datetimes count in microseconds
    assert retries.next_try_at(notification_id, len(delays), now, retry_after) is None


@given(st.integers(100, 599))
def test_only_2xx_is_success(status: int) -> None:
    assert (judge_http_status(status) == "delivered") == (status // 100 == 2)


@given(INSTANTS, st.integers(1, 86400))
def test_each_instant_lies_in_one_window(at: datetime, window_seconds: int) -> None:
    start = window_start(at, window_seconds)
    assert start <= at < digest_due_at(start, window_seconds)
    assert window_start(start, window_seconds) == start
    assert window_start(start - timedelta(microseconds=1), window_seconds) < start


@given(st.permutations(range(1, 6)))
def test_the_last_message_wins_in_any_order(order: list[int]) -> None:
    events = [
        routed_event(sequence=number, reply_to=f"address-{number}", disposition=Disposition.FOLLOWED_UP)
        for number in order
    ]
    (contact,) = latest_contacts(events).values()
    assert (contact.sequence, contact.reply_to) == (5, "address-5")


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_no_more_public_in_disguise(address: ipaddress.IPv4Address) -> None:
    nat64 = int(ipaddress.IPv6Address("64:ff9b::")) + int(address)
    for disguise in (f"::ffff:{address}", str(ipaddress.IPv6Address(nat64))):
        assert is_public(ipaddress.ip_address(disguise)) == is_public(address)
