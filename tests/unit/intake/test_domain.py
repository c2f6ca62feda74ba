"""Which ticket a message joins. Follow-up window 24 h, reopen window 72 h; times in hours after T0."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from services.intake.domain import (
    Ticket,
    accepted,
    apply_activities,
    conversation_id_of,
    thread,
    wrong_sent_at,
)
from shared.events import (
    ActivityKind,
    Attachment,
    ChannelMessage,
    Customer,
    Disposition,
    TicketActivity,
    TicketMessage,
)
from shared.events.channel import MAX_TEXT_CHARACTERS
from shared.events.tickets import ticket_id_of
from shared.taxonomy import Channel
from tests.unit.intake.samples import T0, WINDOWS, at, message

OPENED, FOLLOWED_UP, REOPENED = Disposition.OPENED, Disposition.FOLLOWED_UP, Disposition.REOPENED


class Conversation:
    """One conversation, its tickets kept between batches as the database keeps them."""

    def __init__(self) -> None:
        self.tickets: dict[object, Ticket] = {}
        self.names: dict[object, str] = {}

    def say(self, *messages: ChannelMessage) -> list[tuple[str, str, Disposition, int]]:
        """(message, id of the message that opened its ticket, disposition, sequence) for each, as they were placed."""
        threaded = thread(messages, self.tickets.values(), WINDOWS)
        self.tickets |= {ticket.ticket_id: ticket for ticket in threaded.changed}
        for placed in threaded.placements:
            self.names.setdefault(placed.ticket.ticket_id, placed.message.message_id)
        return [
            (
                placed.message.message_id,
                self.names[placed.ticket.ticket_id],
                placed.disposition,
                placed.ticket.message_count,
            )
            for placed in threaded.placements
        ]

    def act(self, kind: ActivityKind, hours: float, opened_by: str = "a") -> None:
        activity = act(kind, hours, opened_by)
        self.tickets |= {ticket.ticket_id: ticket for ticket in apply_activities([activity], self.tickets.values())}

    def ticket(self, opened_by: str) -> Ticket:
        return self.tickets[ticket_id_of("upay", "app_chat", opened_by)]

    @property
    def open(self) -> list[str]:
        return [self.names[ticket.ticket_id] for ticket in self.tickets.values() if ticket.is_open]


def act(kind: ActivityKind, hours: float, opened_by: str = "a") -> TicketActivity:
    return TicketActivity(
        ticket_id=ticket_id_of("upay", "app_chat", opened_by),
        activity_id=f"{kind}-{hours}",
        kind=kind,
        agent="mei",
        at=at(hours),
        merged_into=uuid.UUID(int=1) if kind is ActivityKind.MERGED else None,
    )


def test_a_burst_is_one_ticket_in_the_order_it_was_sent() -> None:
    conversation = Conversation()
    assert conversation.say(message("c", 0.002), message("a", 0), message("b", 0.001)) == [
        ("a", "a", OPENED, 1),
        ("b", "a", FOLLOWED_UP, 2),
        ("c", "a", FOLLOWED_UP, 3),
    ]
    assert conversation.open == ["a"]
    assert conversation.ticket("a").linked_ticket_id is None


def test_the_window_runs_from_the_last_message_and_includes_its_end() -> None:
    conversation = Conversation()
    conversation.say(message("a", 0), message("b", 23))
    assert conversation.say(message("c", 47)) == [("c", "a", FOLLOWED_UP, 3)]  # 24 h after b


def test_silence_longer_than_the_window_ends_the_ticket_and_links_the_next() -> None:
    conversation = Conversation()
    assert conversation.say(message("a", 0), message("b", 24.001)) == [("a", "a", OPENED, 1), ("b", "b", OPENED, 1)]
    assert conversation.open == ["b"]
    assert conversation.ticket("b").linked_ticket_id == conversation.ticket("a").ticket_id


def test_a_late_message_joins_the_open_ticket_from_before_its_beginning() -> None:
    conversation = Conversation()
    conversation.say(message("a", 0))
    assert conversation.say(message("b", -24)) == [("b", "a", FOLLOWED_UP, 2)]
    assert conversation.say(message("c", -48)) == [("c", "a", FOLLOWED_UP, 3)]  # near to b
    assert conversation.ticket("a").opened_at == T0  # of the message that opened it, though others were sent before


def test_a_late_burst_makes_one_ticket_of_its_own_and_leaves_the_open_one() -> None:
    conversation = Conversation()
    conversation.say(message("a", 100))
    assert conversation.say(message("old-1", 0)) == [("old-1", "old-1", OPENED, 1)]
    assert conversation.open == ["a"]
    assert conversation.say(message("old-2", 0.001), message("b", 101)) == [
        ("old-2", "old-1", FOLLOWED_UP, 2),
        ("b", "a", FOLLOWED_UP, 2),
    ]
    assert conversation.open == ["a"]
    assert conversation.ticket("old-1").linked_ticket_id is None


def test_a_late_message_that_is_near_to_two_tickets_joins_the_open_one() -> None:
    conversation = Conversation()
    conversation.say(message("a", 0), message("b", 30))
    assert conversation.say(message("c", 15)) == [("c", "b", FOLLOWED_UP, 2)]


def test_within_the_reopen_window_a_message_reopens_and_its_end_is_included() -> None:
    conversation = Conversation()
    conversation.say(message("a", 0))
    conversation.act(ActivityKind.RESOLVED, 10)
    assert conversation.open == []
    assert conversation.say(message("b", 82), message("c", 83)) == [("b", "a", REOPENED, 2), ("c", "a", FOLLOWED_UP, 3)]
    assert conversation.open == ["a"]
    assert conversation.ticket("a").resolved_at is None


def test_after_the_reopen_window_a_linked_ticket_opens() -> None:
    conversation = Conversation()
    conversation.say(message("a", 0))
    conversation.act(ActivityKind.RESOLVED, 10)
    assert conversation.say(message("b", 82.001)) == [("b", "b", OPENED, 1)]
    assert conversation.ticket("b").linked_ticket_id == conversation.ticket("a").ticket_id


def test_a_message_that_was_sent_before_the_resolution_but_came_after_reopens() -> None:
    conversation = Conversation()
    conversation.say(message("a", 0))
    conversation.act(ActivityKind.RESOLVED, 10)
    assert conversation.say(message("b", 5)) == [("b", "a", REOPENED, 2)]


def test_a_courtesy_joins_a_resolved_ticket_and_leaves_it_resolved() -> None:
    conversation = Conversation()
    conversation.say(message("a", 0))
    conversation.act(ActivityKind.RESOLVED, 10)
    assert conversation.say(message("b", 11, text="好的，谢谢！")) == [("b", "a", FOLLOWED_UP, 2)]
    assert conversation.open == []
    assert conversation.ticket("a").resolved_at == at(10)
    assert conversation.say(message("c", 82, text="bye")) == [("c", "a", FOLLOWED_UP, 3)]  # the window includes its end
    assert conversation.ticket("a").resolved_at == at(10)


@pytest.mark.parametrize("order", [("thanks", "but"), ("but", "thanks")])
def test_thanks_and_then_a_but_reopen_one_ticket_in_whatever_order_they_arrive(order: tuple[str, str]) -> None:
    conversation = Conversation()
    conversation.say(message("a", 0))
    conversation.act(ActivityKind.RESOLVED, 10)
    burst = {"thanks": message("thanks", 11, text="谢谢"), "but": message("but", 11.001, text="但是还没到账")}
    placed = dict(conversation.say(burst[name])[0][0:3:2] for name in order)
    assert placed == {"thanks": FOLLOWED_UP, "but": REOPENED}
    assert conversation.open == ["a"]
    assert conversation.ticket("a").resolved_at is None


@pytest.mark.parametrize(
    "fields",
    [
        {"text": "谢谢", "attachments": (Attachment(name="still-missing.png", url="https://files.example/1"),)},
        {"text": "谢谢", "subject": "退款没到"},
        {"text": "谢谢？"},
        {"text": ""},
    ],
)
def test_what_may_be_more_than_a_courtesy_reopens(fields: dict[str, Any]) -> None:
    conversation = Conversation()
    conversation.say(message("a", 0))
    conversation.act(ActivityKind.RESOLVED, 10)
    assert conversation.say(message("b", 11, **fields)) == [("b", "a", REOPENED, 2)]


def test_what_follows_a_courtesy_at_the_end_of_the_reopen_window_is_one_ticket_with_it() -> None:
    conversation = Conversation()
    conversation.say(message("a", 0))
    conversation.act(ActivityKind.RESOLVED, 10)
    conversation.say(message("b", 81.999, text="谢谢"))
    assert conversation.say(message("c", 82.001)) == [("c", "a", REOPENED, 3)]  # 0.002 h after b
    conversation.act(ActivityKind.RESOLVED, 83)
    assert conversation.say(message("d", 155.001)) == [("d", "d", OPENED, 1)]  # 72 h after the resolution, c before it


def test_a_courtesy_after_the_reopen_window_opens_a_ticket() -> None:
    conversation = Conversation()
    conversation.say(message("a", 0))
    conversation.act(ActivityKind.RESOLVED, 10)
    assert conversation.say(message("b", 82.001, text="谢谢")) == [("b", "b", OPENED, 1)]


def test_a_courtesy_to_a_resolved_ticket_leaves_another_open() -> None:
    conversation = Conversation()
    conversation.say(message("a", 0), message("b", 30))
    conversation.act(ActivityKind.RESOLVED, 31, "a")
    assert conversation.say(message("c", 60, text="谢谢")) == [("c", "a", FOLLOWED_UP, 2)]  # b: 30 h of silence
    assert conversation.open == ["b"]
    assert conversation.say(message("d", 60.001)) == [("d", "a", REOPENED, 3)]
    assert conversation.open == ["a"]


def test_a_merged_ticket_ends_like_a_resolved_one_and_its_customer_is_still_heard() -> None:
    conversation = Conversation()
    conversation.say(message("a", 0))
    conversation.act(ActivityKind.MERGED, 10)
    assert (conversation.open, conversation.ticket("a").resolved_at) == ([], at(10))
    conversation.act(ActivityKind.RESOLVED, 9)  # overtaken by the merge
    assert conversation.ticket("a").resolved_at == at(10)
    assert conversation.say(message("b", 11, text="谢谢")) == [("b", "a", FOLLOWED_UP, 2)]
    assert conversation.say(message("c", 12)) == [("c", "a", REOPENED, 3)]


def test_after_a_merge_within_a_conversation_messages_join_the_surviving_ticket() -> None:
    conversation = Conversation()
    conversation.say(message("a", 0), message("b", 25))
    conversation.act(ActivityKind.MERGED, 26, "a")
    assert conversation.say(message("c", 27)) == [("c", "b", FOLLOWED_UP, 2)]
    conversation.act(ActivityKind.MERGED, 28, "b")  # somewhere else
    assert conversation.say(message("d", 29)) == [("d", "b", REOPENED, 3)]


def test_repeated_and_overtaken_activities_change_nothing() -> None:
    conversation = Conversation()
    conversation.say(message("a", 0))
    conversation.act(ActivityKind.RESOLVED, 10)
    conversation.say(message("b", 11))
    conversation.act(ActivityKind.RESOLVED, 10)  # the same event once more, after the message has reopened the ticket
    assert conversation.open == ["a"]
    conversation.act(ActivityKind.RESOLVED, 12)
    conversation.act(ActivityKind.REOPENED, 11.5)  # came late: the ticket was resolved after it
    assert conversation.open == []
    conversation.act(ActivityKind.REOPENED, 13)
    assert conversation.open == ["a"]
    assert conversation.ticket("a").resolved_at is None


def test_activities_of_one_batch_count_in_the_order_they_happened() -> None:
    ticket = thread([message("a")], [], WINDOWS).changed[0]
    backwards = [act(ActivityKind.REOPENED, 3), act(ActivityKind.RESOLVED, 2), act(ActivityKind.CLAIMED, 1)]
    (changed,) = apply_activities(backwards, [ticket])
    assert (changed.is_open, changed.resolved_at, changed.activity_at) == (True, None, at(3))


def test_an_agent_who_reopens_keeps_the_ticket_open_for_the_customer() -> None:
    conversation = Conversation()
    conversation.say(message("a", 0))
    conversation.act(ActivityKind.RESOLVED, 10)
    conversation.act(ActivityKind.REOPENED, 100)
    assert conversation.say(message("b", 123)) == [("b", "a", FOLLOWED_UP, 2)]  # 123 h after a, 23 h after the agent


def test_an_agent_may_reopen_an_old_ticket_but_messages_go_to_the_open_one() -> None:
    conversation = Conversation()
    conversation.say(message("a", 0))
    conversation.act(ActivityKind.RESOLVED, 1)
    conversation.say(message("b", 100))
    conversation.act(ActivityKind.REOPENED, 101)
    assert conversation.open == ["b"]
    assert conversation.say(message("c", 102)) == [("c", "b", FOLLOWED_UP, 2)]


def test_an_activity_of_an_unknown_ticket_changes_nothing() -> None:
    assert apply_activities([act(ActivityKind.RESOLVED, 1, "unknown")], []) == ()


@pytest.mark.parametrize(
    "other",
    [
        message(brand="topay"),
        message(channel=Channel.EMAIL),
        message(customer=Customer(id="c-2")),
        message(conversation_id="thread-1"),
    ],
)
def test_brand_channel_customer_and_thread_make_a_conversation(other: ChannelMessage) -> None:
    assert conversation_id_of(other) != conversation_id_of(message())


def test_what_a_message_says_does_not_make_another_conversation() -> None:
    same = message("m-2", 99, text="别的", customer=Customer(id="c-1", name="李", vip=True), subject="x")
    assert conversation_id_of(same) == conversation_id_of(message())


def accept(given: ChannelMessage) -> TicketMessage:
    return accepted(thread([given], [], WINDOWS).placements[0], at(1))


def test_secrets_are_cut_from_all_that_the_customer_wrote_and_counted() -> None:
    event = accept(
        message(
            text="密码是abc123，卡 4111 1111 1111 1111",
            subject="my PIN is 1234",
            customer=Customer(id="c-1", name="Li 4111111111111111", phone="+8613812345678", email="li@example.com"),
            attachments=(Attachment(name="cvv 123.png", url="https://files.example/1"),),
            reply_to="li@example.com",
        )
    )
    assert event.text == "密码是[password]，卡 [card]"
    assert event.subject == "my PIN is [pin]"
    assert event.customer.name == "Li [card]"
    assert event.attachments[0].name == "cvv [cvv].png"
    assert [(item.kind, item.count) for item in event.redactions] == [
        ("card", 2),
        ("cvv", 1),
        ("password", 1),
        ("pin", 1),
    ]
    assert (event.customer.phone, event.customer.email, event.reply_to) == (
        "+8613812345678",
        "li@example.com",
        "li@example.com",
    )


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://files.example/1?t=1732500000002&s=a%2Fb+c", "https://files.example/1?t=1732500000002&s=a%2Fb+c"),
        ("https://files.example/%E5%9B%BE.png", "https://files.example/%E5%9B%BE.png"),
        ("https://files.example/cvv%20123.png", "https://files.example/cvv%20[cvv].png"),
        (
            "https://files.example/abc123是我的密码.png",
            "https://files.example/[password]%E6%98%AF%E6%88%91%E7%9A%84%E5%AF%86%E7%A0%81.png",
        ),
        ("https://files.example/4111111111111111/1.png", "https://files.example/[card]/1.png"),
    ],
)
def test_a_file_s_address_stays_unless_it_tells_a_secret(url: str, expected: str) -> None:
    assert accept(message(attachments=(Attachment(name="1.png", url=url),))).attachments[0].url == expected


def test_a_text_that_grows_by_its_tokens_still_fits() -> None:
    event = accept(message(text=("验证码1234，" * 3000)[:MAX_TEXT_CHARACTERS], subject=("pin 1234 " * 60)[:500]))
    assert len(event.text) == MAX_TEXT_CHARACTERS
    assert "1234" not in event.text + (event.subject or "")


def test_an_event_read_back_is_the_same_to_the_byte() -> None:
    zone = timezone(timedelta(hours=8))
    event = accept(message(sent_at=datetime(2026, 3, 2, 17, 0, 0, 123456, zone), text="你好 \u2028 😀", subject=""))
    assert TicketMessage.model_validate_json(event.model_dump_json()).model_dump_json() == event.model_dump_json()


@pytest.mark.parametrize(
    ("sent_at", "oldest", "wrong"),
    [
        (at(0), None, None),
        (at(-24 * 400), None, None),
        (at(24 * 400), timedelta(days=1), None),  # the future is the timers' matter
        (at(-24), timedelta(days=1), None),
        (at(-24.1), timedelta(days=1), "is more than 1 days ago"),
        (datetime.max.replace(tzinfo=UTC), None, "must lie between 1980 and 2200"),
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=14))), None, "must lie between 1980 and 2200"),
    ],
)
def test_which_times_are_accepted(sent_at: datetime, oldest: timedelta | None, wrong: str | None) -> None:
    why_not = wrong_sent_at(sent_at, T0, oldest)
    assert why_not is None if wrong is None else why_not is not None and why_not.startswith(wrong)


def test_every_accepted_time_can_be_reckoned_with() -> None:
    limits: Sequence[datetime] = (datetime(1980, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC))
    conversation = Conversation()
    for name, limit in zip("ab", limits, strict=True):
        assert wrong_sent_at(limit, T0, None) is None
        conversation.say(message(name, sent_at=limit))
    assert conversation.say(message("c", 0)) == [("c", "c", OPENED, 1)]


def test_what_would_run_on_an_agents_machine_is_named_and_leads_nowhere_whichever_way_it_came() -> None:
    sent = Attachment(name="bill.pdf.exe", media_type="application/pdf", url="https://files.example/1")
    (shown,) = accept(message(attachments=(sent,))).attachments
    assert (shown.name, shown.media_type, shown.url) == ("bill.pdf.exe", "application/x-blocked", None)
