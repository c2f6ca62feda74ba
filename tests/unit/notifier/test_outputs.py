"""Where a notification goes, and how `notifications.yaml` is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.notifier.config import load_outputs
from services.notifier.domain.outputs import (
    customer_route,
    escalation_routes,
    is_automatic_sender,
    is_mail_address,
    lead_routes,
)
from shared.brands import BRANDS_DIRECTORY
from shared.events import EscalationLevel, Output
from shared.taxonomy import Channel, Queue
from shared.yaml_files import ConfigError
from tests.support.brands import write_brand
from tests.unit.notifier.examples import CONFIG_FILE, ENVIRONMENT, KEY, OUTPUTS, outputs_with

LEAD, HEAD, ON_CALL_LEVEL = EscalationLevel


@pytest.mark.parametrize(
    ("channel", "reply_to", "email", "customer_id", "expected"),
    [
        (Channel.EMAIL, "a@b.example", None, "c@d.example", (Output.MAIL, "mail", "a@b.example")),
        (Channel.EMAIL, None, None, "c@d.example", (Output.MAIL, "mail", "c@d.example")),
        (Channel.WEB_FORM, None, "e@f.example", "x", (Output.MAIL, "mail", "e@f.example")),
        (Channel.WEB_FORM, None, None, "x", (Output.WEBHOOK, "upay", "x")),
        (Channel.WEB_FORM, "a@b.example\r\nBcc: all@b.example", None, "x", (Output.WEBHOOK, "upay", None)),
        (Channel.WECHAT, "openid-1", "e@f.example", "x", (Output.WEBHOOK, "upay", "openid-1")),
        (Channel.PHONE, None, None, "+8613800000000", (Output.WEBHOOK, "upay", "+8613800000000")),
    ],
)
def test_a_customer_is_answered_where_he_wrote(
    channel: Channel,
    reply_to: str | None,
    email: str | None,
    customer_id: str,
    expected: tuple[Output, str, str | None],
) -> None:
    route = customer_route(
        OUTPUTS, brand="upay", channel=channel, customer_id=customer_id, email=email, reply_to=reply_to
    )
    assert (route.output, route.endpoint) == expected[:2]
    assert route.recipient == (expected[2] or reply_to)


def test_an_unknown_brand_has_a_gateway_and_leads() -> None:
    route = customer_route(OUTPUTS, brand="brand_new", channel=Channel.X, customer_id="x")
    assert route.endpoint == "other_brands"
    assert [way.recipient for _, way in lead_routes(OUTPUTS, brand="brand_new", queue=Queue.SECURITY)] == [
        "service_lead"
    ]


def test_leads_are_those_of_the_queue() -> None:
    def told(queue: Queue | None) -> list[str]:
        return [way.recipient for _, way in lead_routes(OUTPUTS, brand="upay", queue=queue)]

    assert told(Queue.PAYMENTS) == ["money_lead"]
    assert told(Queue.COMPLAINTS) == ["service_lead", "money_lead"]
    assert told(Queue.TECHNICAL) == told(None) == ["service_lead"]


LEADS: dict[str, tuple[str, ...]] = {"default": ("service_lead",), "payments": ("money_lead",), "technical": ()}
HEADS: dict[str, tuple[str, ...]] = {"default": ("service_head",), "payments": ("service_head", "international_head")}
ON_CALL: dict[str, tuple[str, ...]] = {"default": ("on_call_rota",), "payments": ()}


@pytest.mark.parametrize(
    ("level", "queue", "heads", "on_call", "called", "told"),
    [
        (LEAD, Queue.PAYMENTS, HEADS, ON_CALL, LEAD, ["money_lead"]),
        (HEAD, Queue.PAYMENTS, HEADS, ON_CALL, HEAD, ["service_head", "international_head"]),
        (HEAD, Queue.GENERAL, HEADS, ON_CALL, HEAD, ["service_head"]),
        (HEAD, None, HEADS, ON_CALL, HEAD, ["service_head"]),
        (ON_CALL_LEVEL, Queue.GENERAL, HEADS, ON_CALL, ON_CALL_LEVEL, ["on_call_rota"]),
        # Nobody is on call for payments: the heads are called; without heads, the lead.
        (ON_CALL_LEVEL, Queue.PAYMENTS, HEADS, ON_CALL, HEAD, ["service_head", "international_head"]),
        (ON_CALL_LEVEL, Queue.GENERAL, HEADS, {}, HEAD, ["service_head"]),
        (ON_CALL_LEVEL, Queue.PAYMENTS, {}, {}, LEAD, ["money_lead"]),
        (HEAD, Queue.PAYMENTS, {}, ON_CALL, LEAD, ["money_lead"]),
        # Nobody wants reminders of technical faults; an escalation still ends with somebody.
        (LEAD, Queue.TECHNICAL, HEADS, ON_CALL, LEAD, ["service_lead"]),
        (HEAD, Queue.TECHNICAL, {}, {}, LEAD, ["service_lead"]),
    ],
)
def test_an_escalation_never_goes_nowhere(
    level: EscalationLevel,
    queue: Queue | None,
    heads: dict[str, tuple[str, ...]],
    on_call: dict[str, tuple[str, ...]],
    called: EscalationLevel,
    told: list[str],
) -> None:
    outputs = outputs_with({"leads": LEADS, "heads": heads, "on_call": on_call})
    really, ways = escalation_routes(outputs, brand="upay", queue=queue, level=level)
    assert (really, [way.recipient for _, way in ways]) == (called, told)


def test_who_is_reached_in_two_ways_is_called_both_ways() -> None:
    outputs = load_outputs(
        CONFIG_FILE, BRANDS_DIRECTORY, ENVIRONMENT | {"NOTIFIER_ON_CALL_MAIL": "rota@people.example"}
    )
    _, ways = escalation_routes(outputs, brand="topay", queue=Queue.GENERAL, level=ON_CALL_LEVEL)
    assert [(way.output, way.recipient) for _, way in ways] == [
        (Output.WEBHOOK, "on_call_rota"),
        (Output.MAIL, "rota@people.example"),
    ]


@pytest.mark.parametrize(
    ("address", "is_one"),
    [
        ("someone@mail.example", True),
        ("first.last+tag@sub.mail.example", True),
        ("no-at.example", False),
        ("two@@mail.example", False),
        ("name@host", False),
        ("a b@mail.example", False),
        ("a@mail.example\n", False),
        ("<a@mail.example>", False),
        ("a@mail.example,b@mail.example", False),
        ("a" * 65 + "@mail.example", False),
        (None, False),
    ],
)
def test_mail_addresses(address: str | None, is_one: bool) -> None:
    assert is_mail_address(address) is is_one


def test_automatic_senders() -> None:
    assert all(map(is_automatic_sender, ("MAILER-DAEMON@mx.example", "no-reply@x.example", "bounces+id=7@x.example")))
    assert not any(map(is_automatic_sender, ("norepl@x.example", "customer@noreply.example")))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("url: ${NOTIFIER_LEADS_URL}", "url: ftp://x", r"endpoints\.leads\.url: .*not an http or https URL"),
        ("url: ${NOTIFIER_LEADS_URL}", "url: https://u:p@x/", r"endpoints\.leads\.url: .*must not carry a user"),
        (
            "${NOTIFIER_LEADS_SECRET}",
            "${NOT_THERE}",
            r"endpoints\.leads\.secrets\.0: set the environment variable NOT_THERE",
        ),
        ("${NOTIFIER_LEADS_SECRET}", "not-base64!", r"endpoints\.leads\.secrets\.0: .*is not base64"),
        ("${NOTIFIER_LEADS_SECRET}", "c2hvcnQ=", r"endpoints\.leads\.secrets\.0: .*must be 24 to 64 bytes"),
        ("timezone: Asia/Shanghai", "timezone: Asia/Nowhere", r"people\.service_lead\.timezone: .*IANA time zone"),
        ("language: en", "language: fr", r"people\.international_lead\.language"),
        (
            "gateways: {default: other_brands}",
            "gateways: {default: typo}",
            r"default_brand\.gateways\.default: no endpoint",
        ),
        ("default: [service_lead]", "default: [nobody]", r"default_brand\.leads\.default\.0: no person nobody"),
        ("default: [service_lead]", "default: []", r"default_brand\.leads\.default: name somebody"),
        ("default_brand:", "brands: {}\ndefault_brand:", r"brands: each brand has a file of its own"),
        ("endpoint: leads\n    mail", "endpoint: typo\n    mail", r"people\.on_call_rota\.endpoint: no endpoint typo"),
        ("mail_channels: [email, web_form]", "mail_channels: [fax]", r"mail_channels"),
        ("mail_channels:", "mail_chanels:", r"mail_chanels: Extra inputs"),
        ("  other_brands:\n", "  mail:\n", r"the name is taken"),
    ],
)
def test_a_wrong_file_is_refused_by_file_and_field(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "notifications.yaml"
    words = CONFIG_FILE.read_text(encoding="utf-8")
    assert old in words
    path.write_text(words.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as raised:
        load_outputs(path, BRANDS_DIRECTORY, ENVIRONMENT)
    assert str(path) in str(raised.value)
    assert not any(value in str(raised.value) for value in (KEY, "c2hvcnQ=", "not-base64!"))


@pytest.mark.parametrize(
    ("changes", "field", "what"),
    [
        ({"gateways": {"default": "typo"}}, "gateways.default", "no endpoint typo"),
        ({"gateways": {"x": "other_brands"}}, "gateways", "needs a `default`"),
        ({"leads": {"default": ["service_lead", "nobody"]}}, "leads.default.1", "no person nobody"),
        ({"leads": {"default": []}}, "leads.default", "name somebody: escalations end here"),
        ({"heads": {"default": ["nobody"]}}, "heads.default.0", "no person nobody"),
        ({"heads": {"security": ["service_head"]}}, "heads", "needs a `default`"),
        ({"heads": {"defualt": ["service_head"]}}, "heads.defualt", "Input should be"),
        ({"on_call": {"default": ["nobody"]}}, "on_call.default.0", "no person nobody"),
        ({"mail_from": "service"}, "mail_from", "is not an e-mail address"),
        ({"texts": {"fr": {"closing": "Salut"}}}, "texts.fr", "Input should be"),
        ({"texts": {"zh": {"closing_line": "再见"}}}, "texts.zh.closing_line", "Extra inputs"),
        ({"texts": {"zh": {"questions": "请提供密码"}}}, "texts.zh.questions", "Extra inputs"),
        ({"texts": {"zh": {"received": "{queue}"}}}, "texts.zh.received", "known are brand, reference"),
        ({"texts": {"zh": {"categories": {"toys": {}}}}}, "texts.zh.categories.toys", "Input should be"),
        ({"texts": {"zh": {"categories": {"refund": {"steps": ["one"]}}}}}, "categories.refund.steps", "at least 2"),
    ],
)
def test_a_wrong_brand_is_refused_with_its_own_line(
    tmp_path: Path, changes: dict[str, Any], field: str, what: str
) -> None:
    path = write_brand(tmp_path, **changes) / "some_brand.yaml"
    with pytest.raises(ConfigError) as raised:
        load_outputs(CONFIG_FILE, tmp_path, ENVIRONMENT)
    told = str(raised.value).splitlines()[-1]
    assert field in told
    assert what in told
    number = int(told.removeprefix(f"{path}:").split(":")[0])
    lines = path.read_text(encoding="utf-8").splitlines()
    sections = [line.partition(":")[0] for line in lines[:number] if not line.startswith(" ")]
    assert sections[-1:] == list(changes)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read: No such file"):
        load_outputs(tmp_path / "nowhere.yaml", BRANDS_DIRECTORY, ENVIRONMENT)


def test_secrets_come_from_the_environment_and_do_not_show() -> None:
    both = load_outputs(
        CONFIG_FILE, BRANDS_DIRECTORY, ENVIRONMENT | {"NOTIFIER_GATEWAY_SECRET_PREVIOUS": KEY[::-1].lstrip("=") + "=="}
    )
    assert len(OUTPUTS.endpoints["upay"].secrets) == 1  # an empty optional reference is no secret
    assert len(both.endpoints["upay"].secrets) == 2
    assert KEY not in repr(OUTPUTS)
    assert KEY not in CONFIG_FILE.read_text(encoding="utf-8")
