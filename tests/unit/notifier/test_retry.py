"""When a delivery is tried again, and when it is given up."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from services.notifier.domain.retry import (
    STANDARD_DELAYS_SECONDS,
    RetryPolicy,
    Tried,
    Verdict,
    conclude,
    judge_http_status,
    judge_smtp_code,
)
from services.notifier.settings import Settings
from shared.retry_after import retry_after_seconds

NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
ID = uuid.UUID(int=1)
EXACT = RetryPolicy(jitter_share=0.0)


def test_the_standards_schedule() -> None:
    waits = []
    for attempt in range(1, 10):
        at = EXACT.next_try_at(ID, attempt, NOW)
        assert at is not None
        waits.append((at - NOW).total_seconds())
    # 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h
    assert waits == [5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400]
    assert EXACT.next_try_at(ID, 10, NOW) is None
    assert RetryPolicy().delays_seconds == STANDARD_DELAYS_SECONDS == Settings().notifier_retry_delays_seconds


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, Verdict.DELIVERED),
        (204, Verdict.DELIVERED),
        (302, Verdict.TRY_AGAIN),
        (400, Verdict.TRY_AGAIN),
        (401, Verdict.TRY_AGAIN),
        (404, Verdict.TRY_AGAIN),
        (410, Verdict.ENDPOINT_GONE),
        (422, Verdict.HOPELESS),
        (429, Verdict.TRY_AGAIN),
        (503, Verdict.TRY_AGAIN),
    ],
)
def test_what_a_status_says(status: int, verdict: Verdict) -> None:
    assert judge_http_status(status) is verdict


@pytest.mark.parametrize(
    ("code", "verdict"), [(421, Verdict.TRY_AGAIN), (550, Verdict.HOPELESS), (554, Verdict.HOPELESS)]
)
def test_what_a_mail_servers_code_says(code: int, verdict: Verdict) -> None:
    assert judge_smtp_code(code) is verdict


def test_conclusions() -> None:
    delivered = conclude(Tried(Verdict.DELIVERED, "HTTP 204"), EXACT, ID, 1, NOW)
    assert (delivered.delivered, delivered.given_up, delivered.next_try_at) == (True, False, None)
    failed = conclude(Tried(Verdict.TRY_AGAIN, "HTTP 500"), EXACT, ID, 1, NOW)
    assert (failed.delivered, failed.given_up, failed.next_try_at) == (False, False, NOW + timedelta(seconds=5))
    last = conclude(Tried(Verdict.TRY_AGAIN, "HTTP 500"), EXACT, ID, 10, NOW)
    assert (last.given_up, last.detail) == (True, "HTTP 500; given up after 10 tries")
    gone = conclude(Tried(Verdict.ENDPOINT_GONE, "HTTP 410"), EXACT, ID, 1, NOW)
    assert (gone.given_up, gone.disables_endpoint) == (True, True)
    hopeless = conclude(Tried(Verdict.HOPELESS, "SMTP 550"), EXACT, ID, 1, NOW)
    assert (hopeless.given_up, hopeless.disables_endpoint) == (True, False)


def test_retry_after_lengthens_a_wait_and_is_bounded() -> None:
    def waits(retry_after: float) -> float:
        at = EXACT.next_try_at(ID, 1, NOW, retry_after)
        assert at is not None
        return (at - NOW).total_seconds()

    assert (waits(1), waits(60), waits(10**9)) == (5, 60, 86400)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("120", 120.0),
        ("Mon, 23 Nov 2026 08:01:00 GMT", 60.0),
        ("Mon, 23 Nov 2026 07:00:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("1" * 5000, 111111111.0),
    ],
)
def test_retry_after_header(value: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(value, NOW) == seconds


def test_settings_fit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFIER_RETRY_DELAYS_SECONDS", "0, 0.5,2")
    monkeypatch.setenv("NOTIFIER_WEBHOOK_ALLOWED_HOSTS", "127.0.0.1,gateway")
    settings = Settings()
    assert settings.retry_policy.delays_seconds == (0.0, 0.5, 2.0)
    assert settings.notifier_webhook_allowed_hosts == ("127.0.0.1", "gateway")
    monkeypatch.setenv("NOTIFIER_SMTP_USERNAME", "")
    assert Settings().notifier_smtp_username is None
    with pytest.raises(ValueError, match="at least twice notifier_delivery_timeout_seconds"):
        Settings(notifier_lease_seconds=20, notifier_delivery_timeout_seconds=15)
    with pytest.raises(ValueError, match="set both notifier_smtp_username and"):
        Settings(notifier_smtp_username="mailer")
    with pytest.raises(ValueError, match="at least 1 item"):
        Settings(notifier_retry_delays_seconds=())
