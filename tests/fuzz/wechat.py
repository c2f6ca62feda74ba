"""WeChat's requests: `python -m tests.fuzz.wechat -atheris_runs=100000`.

Each is signed, so that what comes after the signature is reached: in clear, encrypted, in compatible mode, and with
anything in place of what should be encrypted.
"""

from __future__ import annotations

from datetime import UTC, datetime

import atheris

from tests.channels import cases
from tests.fuzz.harness import fuzz
from tests.support.providers import wechat as provider

with atheris.instrument_imports(include=["services.intake.channels", "defusedxml", "xml"]):
    from services.intake.channels.base import ChannelRequest, Refused
    from services.intake.channels.wechat import WeChat, WeChatConfig

TIMESTAMP = 1795147200
NOW = datetime.fromtimestamp(TIMESTAMP, UTC)
ADAPTER = WeChat("upay", WeChatConfig.model_validate(provider.CONFIG))
WITHOUT_KEY = WeChat("upay", WeChatConfig.model_validate(provider.CONFIG | {"encoding_aes_key": None}))
WAYS = 5


def request(way: int, content: bytes) -> ChannelRequest:
    query, body = provider.query(TIMESTAMP), content
    if way == 1:
        query, body = provider.encrypted(provider.framed(content), TIMESTAMP)
    elif way == 2:
        query, body = provider.encrypted(content, TIMESTAMP)
    elif way == 3:
        query["encrypt_type"] = "aes"
    elif way == 4:
        query, body = provider.sealed_request(content.decode("ascii", "replace").replace("]", ""), TIMESTAMP)
    return ChannelRequest("POST", query, {}, body, NOW)


def test(data: bytes) -> None:
    """The first byte chooses the way, the others are what comes by it."""
    if not data:
        return
    asked = request(data[0] % WAYS, data[1:])
    for adapter in (ADAPTER, WITHOUT_KEY):
        try:
            answer = adapter.receive(asked)
        except Refused:
            continue
        assert (answer.status, answer.body) == (200, "success")
        assert len(answer.messages) + len(answer.ignored) == 1
        for message in answer.messages:
            message.model_dump_json()  # what comes next; halves of surrogate pairs would break it


def seeds() -> list[bytes]:
    bodies = [named.case.request.built().body for named in cases.load("wechat")]
    return [bytes([way]) + body for way in range(WAYS) for body in bodies]


if __name__ == "__main__":
    fuzz("wechat", test, seeds())
