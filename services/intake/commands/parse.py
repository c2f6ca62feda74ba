"""`python -m services.intake parse`: what would become of a provider's request, as JSON, for people and tests.

Nothing is stored or published. Secrets are cut out of the texts that are printed, as out of those that are stored.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

import yaml

from services.intake.attachments import safe
from services.intake.brands import AnyAdapter, build
from services.intake.channels.base import Answer, ChannelRequest, Refused
from services.intake.channels.registry import ADAPTERS
from services.intake.gateway import problem_of
from shared.brands import BRANDS_DIRECTORY, brand_paths
from shared.events import ChannelMessage
from shared.redaction import redact
from shared.yaml_files import ConfigError

_STANDARD_INPUT: Final = "-"
UNUSABLE: Final = 2
"""Exit status of a command that could not be carried out. One that says "refused" has been: 0."""


class Unusable(Exception):
    """The command line, or a file that it names, cannot be used: which, and why."""


def run(chosen: argparse.Namespace) -> int:
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    try:
        if chosen.provider not in ADAPTERS:
            raise Unusable(f"no provider {chosen.provider}; there are {', '.join(sorted(ADAPTERS))}")
        adapter = _adapter(chosen.provider, chosen.config, chosen.brand)
        request = _request(chosen)
    except (Unusable, ConfigError) as error:
        print(error, file=sys.stderr)
        return UNUSABLE
    print(json.dumps(outcome(adapter, request), ensure_ascii=False, indent=2))
    return 0


def outcome(adapter: AnyAdapter, request: ChannelRequest) -> dict[str, Any]:
    """What would happen: status and body of the answer, the messages, and what is ignored or why it is refused."""
    try:
        answer = adapter.receive(request)
    except Refused as refused:
        problem = problem_of(refused).response()
        return {
            "status": refused.status,
            "media_type": problem.media_type,
            "body": bytes(problem.body).decode(),
            "messages": [],
            "ignored": [],
            "refused": {"reason": refused.reason, "detail": refused.detail},
        }
    return _told(answer)


def _told(answer: Answer) -> dict[str, Any]:
    return {
        "status": answer.status,
        "media_type": answer.media_type,
        "body": answer.body,
        "messages": [_as_stored(message) for message in answer.messages],
        "ignored": list(answer.ignored),
    }


def _as_stored(message: ChannelMessage) -> dict[str, Any]:
    safe_ones = tuple(map(safe, message.attachments))
    content: dict[str, Any] = json.loads(message.model_copy(update={"attachments": safe_ones}).model_dump_json())
    for holder, names in (
        (content, ("text", "subject")),
        (content["customer"], ("name",)),
        *((attachment, ("name", "url")) for attachment in content["attachments"]),
    ):
        for name in names:
            if holder[name]:
                holder[name] = redact(holder[name]).text
    return content


def _adapter(provider: str, config: str | None, brand: str | None) -> AnyAdapter:
    channel = ADAPTERS[provider].channel
    paths = [Path(config)] if config else brand_paths(BRANDS_DIRECTORY)
    for path in paths:
        content = _mapping(path)
        section: Any = content
        if "channels" in content:
            channels = content["channels"]
            part = channels.get(channel.value) if isinstance(channels, dict) else None
            section = part.get("adapter") if isinstance(part, dict) else None
        if not isinstance(section, dict) or section.get("provider", provider) != provider:
            continue
        named = content.get("brand") if "channels" in content else None
        if brand is not None and named not in (None, brand):
            continue
        return build(brand or named or "brand", channel, {**section, "provider": provider}, os.environ, path)
    where = config or BRANDS_DIRECTORY
    raise Unusable(f"{where}: there is no adapter of {provider}{f' of brand {brand}' if brand else ''}")


def _mapping(path: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Unusable(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Unusable(f"{path} is not UTF-8") from None
    except yaml.YAMLError as error:
        raise Unusable(f"{path} is not YAML: {error}") from None
    if not isinstance(content, dict):
        raise Unusable(f"{path} must hold a mapping: a brand's file, or the fields of an adapter")
    return content


def _request(chosen: argparse.Namespace) -> ChannelRequest:
    if chosen.file and chosen.body:
        raise Unusable("give the body once: as FILE or with --body")
    query: dict[str, str] = {}
    for name, value in parse_qsl(chosen.query.removeprefix("?"), keep_blank_values=True):
        query.setdefault(name, value)
    return ChannelRequest(
        method=chosen.method.upper(),
        query=query,
        headers=_headers(chosen.headers),
        body=_body(chosen.file or chosen.body),
        received_at=_time(chosen.received_at),
        url=chosen.url,
    )


def _headers(path: str | None) -> dict[str, str]:
    if path is None:
        return {}
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise Unusable(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise Unusable(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise Unusable(f"{path} must hold a JSON object of names and values of headers")
    return {name.lower(): value for name, value in content.items()}


def _body(path: str | None) -> bytes:
    if path is None:
        return b""
    if path == _STANDARD_INPUT:
        return sys.stdin.buffer.read()
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise Unusable(f"cannot read {path}: {error.strerror}") from None


def _time(given: str | None) -> datetime:
    if given is None:
        return datetime.now(UTC)
    try:
        time = datetime.fromisoformat(given)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise Unusable(f"--received-at {given}: write a time with an offset, e.g. 2026-11-26T12:00:00+08:00")
    return time
