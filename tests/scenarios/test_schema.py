"""All scenario files load, and a fault in one is named so that its writer finds it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.brands import BRANDS_DIRECTORY, load_brands
from shared.taxonomy import Priority
from tests.scenarios.schema import Act, AgentStep, MessageStep, Outcome, ScenarioError, Via, load

HERE = Path(__file__).parent
FILES = sorted(HERE.glob("*.yaml"))
START = datetime(2026, 11, 18, 12, 0, tzinfo=UTC)

Document = dict[str, Any]


def document() -> Document:
    return {
        "brand": "upay",
        "about": "a brand",
        "stories": [
            {
                "name": "one",
                "about": "a story",
                "channel": "app_chat",
                "customer": {"id": "c-1"},
                "steps": [
                    {"message": {"text": "card 4111", "id": "first"}, "expect": {"outcome": "opened"}},
                    {"after": "30s", "agent": {"act": "reply", "text": "hello"}},
                ],
            }
        ],
    }


def steps_of(content: Document) -> list[Document]:
    steps: list[Document] = content["stories"][0]["steps"]
    return steps


def written(content: Document, tmp_path: Path) -> Path:
    path = tmp_path / "upay.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def test_each_brand_has_its_file() -> None:
    assert [path.stem for path in FILES] == ["topay", "tp_wallet", "u_wallet", "u_wallet_app", "upay", "upay_wallet"]


GUIDES = {
    # What each brand's guide names: its channels, and what its customers come with.
    "upay_wallet": (
        {"app_chat", "web_form", "phone", "email", "wechat", "weibo"},
        {"top_up", "missing_funds", "account_security", "promotions"},
    ),
    "u_wallet": (
        {"phone", "app_chat", "email", "wechat", "weibo"},
        {
            *("account_security", "account_access", "payment_failed", "balance_statement", "refund", "how_to"),
            *("dispute", "fees_limits", "app_technical", "complaint"),
        },
    ),
    "upay": (
        {"app_chat", "phone", "email", "wechat", "weibo", "facebook", "x"},
        {"how_to", "account_security", "payment_failed", "complaint", "account_access", "app_technical"},
    ),
    "u_wallet_app": (
        {"app_chat", "phone", "email", "wechat", "weibo", "facebook", "x", "whatsapp", "telegram"},
        {"payment_failed", "account_access", "top_up", "withdrawal", "account_security"},
    ),
    "topay": (
        {"app_chat", "web_form", "email", "phone", "x", "facebook", "wechat"},
        {"account_access", "payment_failed", "missing_funds", "account_security", "feedback"},
    ),
    "tp_wallet": (
        {"app_chat", "web_form", "email", "telegram", "phone"},
        {"account_security", "top_up", "missing_funds"},
    ),
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_tells_what_its_guide_names(path: Path) -> None:
    """Every channel, and every kind of problem, in a story of its own that is sure of its category."""
    stories = load(path).stories
    channels, categories = GUIDES[path.stem]
    opening = [step.expect for story in stories for step in story.steps[:1] if isinstance(step, MessageStep)]
    assert {story.channel for story in stories} == channels
    assert categories <= {expect.category[0] for expect in opening if len(expect.category) == 1}
    assert 8 <= len(stories) <= 14


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_channel_of_the_brand_has_a_story(path: Path) -> None:
    """An acknowledgement has reached a customer of each."""
    stories = load(path).stories
    acknowledged = {
        story.channel
        for story in stories
        for step in story.steps
        if isinstance(step, MessageStep) and step.expect.acknowledged_in
    }
    assert acknowledged == set(load_brands(BRANDS_DIRECTORY)[path.stem].channels)


def test_together_they_meet_every_outcome_and_most_acts() -> None:
    steps = [step for path in FILES for story in load(path).stories for step in story.steps]
    assert {step.expect.outcome for step in steps if isinstance(step, MessageStep)} == set(Outcome)
    acts = {step.agent.act for step in steps if isinstance(step, AgentStep)}
    assert acts == set(Act) - {Act.REOPEN}  # customers reopen; see `reopened`


def test_a_good_file_loads(tmp_path: Path) -> None:
    scenario = load(written(document(), tmp_path))
    (story,) = scenario.stories
    assert story.tickets == 1
    assert story.duration() == timedelta(seconds=30)
    assert [at for at, _ in story.timed(START)] == [START, START + timedelta(seconds=30)]
    assert story.via is Via.CHANNEL


def test_one_category_may_stand_without_a_list(tmp_path: Path) -> None:
    content = document()
    steps_of(content)[0]["expect"] |= {"category": "refund", "queue": "refunds", "no_less_urgent_than": "P3"}
    step = load(written(content, tmp_path)).stories[0].steps[0]
    assert step.expect.category == ("refund",)
    assert step.expect.no_less_urgent_than is Priority.P3


@pytest.mark.parametrize(
    ("step", "change", "fault"),
    [
        (0, {"outcome": "opend"}, "stories.one.steps.1.expect.outcome: Input should be 'opened'"),
        (0, {"catgory": "refund"}, "stories.one.steps.1.expect.catgory: Extra inputs are not permitted"),
        (0, {"category": "refund", "queue": "payments"}, "this category goes to refunds"),
        (0, {"priority": "P1", "no_less_urgent_than": "P2"}, "give `priority` or bounds, not both"),
        (0, {"no_less_urgent_than": "P1", "no_more_urgent_than": "P3"}, "no priority is both"),
        (0, {"asked": ["amount"], "not_asked": ["amount"]}, "amount cannot be both asked and not asked"),
        (0, {"cut": ["4242"]}, "`cut` names '4242', which does not stand in the message"),
        (0, {"outcome": "followed_up"}, "step 1: there is no open ticket to follow up"),
        (0, {"outcome": "reopened"}, "step 1: there is no resolved ticket to reopen"),
        (0, {"linked": True}, "step 1: there is no earlier ticket to be linked with"),
        (0, {"outcome": "followed_up", "acknowledged_in": "en"}, "are of a message that opens a ticket"),
        (0, {"promised": {"answer": {"calendar": "always", "seconds": 60}}}, "steps.1.expect.promised.answer"),
        (0, {"promised": {"resolution": {"seconds": 60}}}, "steps.1.expect.promised.resolution.calendar"),
        (0, {"outcome": "duplicate", "priority": "P1"}, "a duplicate has no effect: leave out priority"),
        (0, {"outcome": "duplicate"}, "step 1: a duplicate, and only a duplicate, has the `id` of an earlier message"),
    ],
)
def test_a_fault_in_an_expectation_is_named(tmp_path: Path, step: int, change: Document, fault: str) -> None:
    content = document()
    steps_of(content)[step]["expect"] |= change
    with pytest.raises(ScenarioError) as raised:
        load(written(content, tmp_path))
    assert fault in str(raised.value)
    assert str(raised.value).startswith("upay.yaml is no scenario")


@pytest.mark.parametrize(
    ("step", "fault"),
    [
        (
            {"after": "5 minutes", "agent": {"act": "claim"}},
            "stories.one.steps.3.after: Value error, '5 minutes' is no",
        ),
        ({"after": 5, "agent": {"act": "claim"}}, "steps.3.after: Value error, must be a number with a unit"),
        ({"agent": {"act": "reply"}}, "a reply needs `text`"),
        ({"agent": {"act": "correct"}}, "give one or more with `correct` only"),
        ({"agent": {"act": "claim", "queue": "access"}}, "give one or more with `correct` only"),
        ({"agent": {"act": "reopen"}}, "step 3: the ticket is open, it cannot be reopened"),
        ({"agent": {"act": "claim"}, "expect": {"delivered": True}}, "`delivered` is of a reply"),
        ({"agent": {"act": "claim"}, "expect": {"met": ["answer"]}}, "stories.one.steps.3.expect.met.1: Input should"),
        ({"expect": {"outcome": "opened"}}, "stories.one.steps.3: a step is either a `message` or an `agent` act"),
        ({"message": {}, "agent": {"act": "claim"}}, "stories.one.steps.3: a step is either"),
        ({"message": {"txt": "?"}, "expect": {"outcome": "followed_up"}}, "steps.3.message.txt: Extra inputs"),
        ({"message": {"id": "first"}, "expect": {"outcome": "followed_up"}}, "step 3: a duplicate, and only"),
    ],
)
def test_a_fault_in_a_step_is_named(tmp_path: Path, step: Document, fault: str) -> None:
    content = document()
    steps_of(content).append(step)
    with pytest.raises(ScenarioError) as raised:
        load(written(content, tmp_path))
    assert fault in str(raised.value)


def test_after_resolve_a_message_cannot_follow_up(tmp_path: Path) -> None:
    content = document()
    steps_of(content).append({"agent": {"act": "resolve"}})
    steps_of(content).append({"message": {"text": "?"}, "expect": {"outcome": "followed_up"}})
    with pytest.raises(ScenarioError, match="step 4: there is no open ticket to follow up"):
        load(written(content, tmp_path))
    steps_of(content)[3]["expect"]["outcome"] = "reopened"
    assert load(written(content, tmp_path)).stories[0].tickets == 1


def test_an_agent_needs_a_ticket(tmp_path: Path) -> None:
    content = document()
    steps_of(content).reverse()
    with pytest.raises(ScenarioError, match="step 1: an agent acts before there is a ticket"):
        load(written(content, tmp_path))


@pytest.mark.parametrize("same", ["name", "customer"])
def test_stories_do_not_touch_each_other(tmp_path: Path, same: str) -> None:
    content = document()
    other = document()["stories"][0] | {"name": "two", "customer": {"id": "c-2"}}
    other[same] = content["stories"][0][same]
    content["stories"].append(other)
    with pytest.raises(ScenarioError, match="more than one story has this"):
        load(written(content, tmp_path))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"channel": "telegram", "via": "kafka"}, "an answer on telegram needs what only its provider's message tells"),
        ({"channel": "email"}, "customer.id: on email it is his mail address"),
    ],
)
def test_a_story_whose_customer_cannot_be_answered_is_refused(tmp_path: Path, change: Document, fault: str) -> None:
    content = document()
    content["stories"][0] |= change
    with pytest.raises(ScenarioError) as raised:
        load(written(content, tmp_path))
    assert fault in str(raised.value)


def test_a_misspelt_field_of_the_customer_is_named(tmp_path: Path) -> None:
    content = document()
    content["stories"][0]["customer"]["vipp"] = True
    with pytest.raises(ScenarioError, match=r"stories\.one\.customer\.vipp: Extra inputs are not permitted"):
        load(written(content, tmp_path))


def test_a_file_is_named_after_its_brand(tmp_path: Path) -> None:
    path = tmp_path / "topay.yaml"
    path.write_text(yaml.safe_dump(document()), encoding="utf-8")
    with pytest.raises(ScenarioError, match=r"name the file upay\.yaml"):
        load(path)


@pytest.mark.parametrize(("text", "fault"), [("a: [", "is no YAML"), ("", "the file: Input should be")])
def test_what_is_no_scenario_at_all_is_refused(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "upay.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ScenarioError, match=fault):
        load(path)
