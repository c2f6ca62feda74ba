"""When a delivery is tried again, and when it is given up."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

STANDARD_DELAYS_SECONDS: Final = (
    0.0,
    5.0,
    5 * 60.0,
    30 * 60.0,
    2 * 3600.0,
    5 * 3600.0,
    10 * 3600.0,
    14 * 3600.0,
    20 * 3600.0,
    24 * 3600.0,
)
"""Standard Webhooks 1.0: the wait before each try, counted from the failure of the try before; three days in all."""

GONE: Final = 410
UNPROCESSABLE: Final = 422


class Verdict(StrEnum):
    """What a single try says about the next."""

    DELIVERED = "delivered"
    TRY_AGAIN = "try_again"
    HOPELESS = "hopeless"  # the receiver said that this notification will never be taken
    ENDPOINT_GONE = "endpoint_gone"  # the receiver said that nothing will ever be taken there


@dataclass(frozen=True, slots=True)
class Tried:
    """One try. `detail` is the receiver's answer or the error, never message text."""

    verdict: Verdict
    detail: str
    retry_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`delays_seconds[n]` is the wait before try n + 1; there are as many tries as delays.

    Jitter only ever lengthens a wait, by up to `jitter_share` of it. A receiver's Retry-After lengthens it too, but to
    no more than `longest_retry_after_seconds`: nobody may park a notification for ever.
    """

    delays_seconds: tuple[float, ...] = STANDARD_DELAYS_SECONDS
    jitter_share: float = 0.1
    longest_retry_after_seconds: float = 24 * 3600.0

    def next_try_at(
        self, notification_id: uuid.UUID, attempt: int, now: datetime, retry_after_seconds: float | None = None
    ) -> datetime | None:
        """When to try again after try number `attempt` (from 1) failed at `now`; none when it was the last."""
        if attempt >= len(self.delays_seconds):
            return None
        wait_seconds = self.delays_seconds[attempt]
        wait_seconds *= 1 + self.jitter_share * _share(notification_id, attempt)
        if retry_after_seconds is not None:
            wait_seconds = max(wait_seconds, min(retry_after_seconds, self.longest_retry_after_seconds))
        return now + timedelta(seconds=wait_seconds)


def _share(notification_id: uuid.UUID, attempt: int) -> float:
    """In [0, 1), the same on every replica, so that what a test or an operator computes is what happens."""
    digest = hashlib.blake2b(notification_id.bytes + attempt.to_bytes(4), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is recorded after a try: `next_try_at` is set exactly when another follows."""

    delivered: bool
    detail: str
    next_try_at: datetime | None = None
    disables_endpoint: bool = False

    @property
    def given_up(self) -> bool:
        return not self.delivered and self.next_try_at is None


def conclude(tried: Tried, policy: RetryPolicy, notification_id: uuid.UUID, attempt: int, now: datetime) -> Outcome:
    """What follows from try number `attempt` (from 1) that ended at `now`."""
    match tried.verdict:
        case Verdict.DELIVERED:
            return Outcome(delivered=True, detail=tried.detail)
        case Verdict.HOPELESS:
            return Outcome(delivered=False, detail=tried.detail)
        case Verdict.ENDPOINT_GONE:
            return Outcome(delivered=False, detail=tried.detail, disables_endpoint=True)
        case Verdict.TRY_AGAIN:
            again = policy.next_try_at(notification_id, attempt, now, tried.retry_after_seconds)
            detail = tried.detail if again else f"{tried.detail}; given up after {attempt} tries"
            return Outcome(delivered=False, detail=detail, next_try_at=again)


def judge_http_status(status: int) -> Verdict:
    """Standard Webhooks: only 2xx is success, 410 means that the endpoint is gone. Everything else is tried again.

    4xx too: a wrong secret or a path lost in a deployment is mended within the three days, and then the notification is
    wanted after all. But who answers 422 has read this one, and says that it can never be delivered: the customer has
    blocked the brand, or the provider's time for answers is over.
    """
    if 200 <= status < 300:
        return Verdict.DELIVERED
    if status == UNPROCESSABLE:
        return Verdict.HOPELESS
    return Verdict.ENDPOINT_GONE if status == GONE else Verdict.TRY_AGAIN


def judge_smtp_code(code: int) -> Verdict:
    """RFC 5321, 4.2.1: 5yz is permanent, 4yz transient."""
    return Verdict.HOPELESS if 500 <= code < 600 else Verdict.TRY_AGAIN
