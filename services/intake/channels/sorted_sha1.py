"""The signature that WeChat devised and Weibo took over: SHA-1 over a secret and what stands in the address, sorted.

It does not cover the body: who has seen one signed address can send anything with it, until its timestamp is stale.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import timedelta
from typing import Final

from services.intake.channels.base import Answer, ChannelRequest, Refused
from services.intake.channels.fields import Malformed

FRESH: Final = timedelta(minutes=10)
_TIMESTAMP: Final = re.compile(r"[0-9]{10}|[0-9]{13}")
"""Seconds since 1970 (WeChat), or milliseconds (seen of Weibo)."""


def sorted_sha1(*parts: str) -> str:
    return hashlib.sha1("".join(sorted(parts)).encode("utf-8", "replace")).hexdigest()  # noqa: S324 - as documented


def is_signature(given: str, *parts: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), sorted_sha1(*parts).encode())


def verify(request: ChannelRequest, secret: str) -> None:
    """Raises Refused: the address is not signed with `secret`, or was signed too long ago."""
    timestamp = request.query.get("timestamp", "")
    if not is_signature(request.query.get("signature", ""), secret, timestamp, request.query.get("nonce", "")):
        raise Refused(401, "signature", "the `signature` of the address is missing or wrong: check the secret")
    if not _TIMESTAMP.fullmatch(timestamp):
        raise Malformed("the `timestamp` of the address is no time")
    seconds = int(timestamp) / (1000 if len(timestamp) == 13 else 1)
    if abs(request.received_at.timestamp() - seconds) > FRESH.total_seconds():
        raise Refused(401, "stale", "the `timestamp` of the address is more than 10 minutes off: check the clock")


def handshake(request: ChannelRequest) -> Answer:
    """The answer to a verified GET, by which the provider makes sure that the address is ours."""
    echo = request.query.get("echostr", "")
    if not echo:
        raise Malformed("the address has no `echostr`")
    return Answer(body=echo)
