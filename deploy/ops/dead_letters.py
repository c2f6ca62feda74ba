"""`dead-letters list|show|replay|discard`: what could not be processed, and what is done about it."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaProducer

from deploy.ops import letters
from deploy.ops.console import (
    REFUSED,
    Refused,
    Unusable,
    add_changing,
    add_command,
    add_json,
    add_verbs,
    confirm,
    operator,
    point_in_time,
    say,
    table,
    tell,
)
from deploy.ops.letters import REPLAY_OF, Filter, Letter
from shared.admin import connection_options
from shared.cloudevents import Outgoing, trace_of
from shared.database import SERVICES
from shared.events import DeadLetter, DeadLetterAction, DeadLetterHandled, DeadLetterReason
from shared.settings import CommonSettings
from shared.topics import BY_NAME, DEAD_LETTERS

_AT_ONCE: Final = 200
_SHOWN: Final = 50
_MAX_REQUEST_BYTES: Final = 4 * 1024 * 1024
_PUBLISH_SECONDS: Final = 60.0


def register(nouns: argparse._SubParsersAction[Any]) -> None:
    verbs = add_verbs(nouns, "dead-letters", help="look at, replay and discard what could not be processed")
    listing = add_command(
        verbs,
        "list",
        help="open dead letters, the latest last",
        says="Dead letters that nobody has replayed or discarded, and how many there are of each reason. No "
        "customer's words are shown. `as it was` says whether `replay` can publish the record exactly as it "
        "was.",
        examples="dead-letters list\ndead-letters list --reason handler_failed --since 2h\n"
        "dead-letters list --topic channel.messages --handled --json",
    )
    _add_filter(listing)
    listing.add_argument("--handled", action="store_true", help="also those that were replayed or discarded")
    listing.add_argument("--limit", type=int, default=_SHOWN, metavar="N", help=f"show the latest N ({_SHOWN}); 0: all")
    add_json(listing)
    listing.set_defaults(run=_list)

    showing = add_command(
        verbs,
        "show",
        help="one dead letter, without the customer's words unless asked",
        says="All that is known of a dead letter. The record's body holds what a customer wrote (secrets cut): "
        "it is shown only with --value.",
        examples="dead-letters show 3f2a9c11\ndead-letters show 3f2a9c11 --value",
    )
    showing.add_argument("id", help="its id, or the beginning of it")
    showing.add_argument("--value", action="store_true", help="also show the record's body and key")
    showing.set_defaults(run=_show)

    replaying = add_command(
        verbs,
        "replay",
        help="publish the original records once more, to the topics they came from",
        says="Publish the records of open dead letters to the topic and partition they came from, with their key "
        "and headers. Ids are the same: whoever had taken a record in already drops it as a duplicate. A "
        "record that fails again becomes a new dead letter. Mend the cause first (deploy the fix).\n\n"
        "Records that are not kept as they were (secrets cut, cut short, not UTF-8) are left out and named. "
        "--force publishes what is kept: on channel.messages that loses nothing when the secret stood in "
        "the text, since intake would have cut it too. --value-file publishes that file instead, for a "
        "single dead letter.",
        examples="dead-letters replay --reason handler_failed --dry-run\n"
        "dead-letters replay --service classifier --since 2h\n"
        "dead-letters replay --id 3f2a9c11 --value-file mended.json --why 'sent_at had no offset'",
    )
    _add_filter(replaying)
    replaying.add_argument("--every", action="store_true", help="all open ones; needed when no filter is given")
    replaying.add_argument("--limit", type=int, metavar="N", help="only the oldest N: try a few first")
    replaying.add_argument("--force", action="store_true", help="also those that are not kept as they were")
    replaying.add_argument("--value-file", type=Path, metavar="FILE", help="publish this instead (of a single one)")
    replaying.add_argument("--why", default="replayed by an operator", help="kept with who did it and when")
    add_changing(replaying)
    replaying.set_defaults(run=_replay)

    discarding = add_command(
        verbs,
        "discard",
        help="close dead letters about which nothing is to be done",
        says="Mark open dead letters as done with: they are listed no more. Nothing is deleted before the "
        "topic's retention; who discarded them, when and why is kept on dead.letters.",
        examples="dead-letters discard --id 3f2a9c11 --why 'a test of the channel'\n"
        "dead-letters discard --reason malformed --topic channel.messages --why 'scanner, see ticket 812'",
    )
    _add_filter(discarding)
    discarding.add_argument("--every", action="store_true", help="all open ones; needed when no filter is given")
    discarding.add_argument("--why", required=True, help="the reason, kept with who did it and when")
    add_changing(discarding)
    discarding.set_defaults(run=_discard)


def _add_filter(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--id", action="append", default=[], help="an id or the beginning of one; may be repeated")
    parser.add_argument("--reason", action="append", default=[], choices=[item.value for item in DeadLetterReason])
    parser.add_argument("--service", action="append", default=[], choices=SERVICES, help="that could not process it")
    parser.add_argument("--topic", action="append", default=[], metavar="TOPIC", help="that the record came from")
    parser.add_argument("--key", help="of the record: the beginning of it, e.g. a brand: upay_wallet/")
    parser.add_argument(
        "--since", type=point_in_time, metavar="TIME", help="failed since: 2h, 3d, or 2026-11-26T12:00:00+08:00"
    )
    parser.add_argument("--until", type=point_in_time, metavar="TIME", help="failed before")


def _filter(chosen: argparse.Namespace) -> Filter:
    unknown = sorted(set(chosen.topic) - set(BY_NAME))
    if unknown:
        raise Unusable(f"no topic {', '.join(unknown)}; there are {', '.join(sorted(BY_NAME))}")
    return Filter(
        reasons=frozenset(chosen.reason),
        services=frozenset(chosen.service),
        topics=frozenset(chosen.topic),
        ids=tuple(item.lower() for item in chosen.id),
        key=chosen.key,
        since=chosen.since,
        until=chosen.until,
    )


def _filter_for_change(chosen: argparse.Namespace) -> Filter:
    wanted = _filter(chosen)
    if wanted.is_empty and not chosen.every:
        raise Unusable("say which: give a filter, or --every for all that are open")
    return wanted


# --- list, show ------------------------------------------------------------------------------------------------------


async def _list(chosen: argparse.Namespace) -> int:
    found = await letters.find(CommonSettings(), _filter(chosen), handled=chosen.handled)
    shown = found.letters[-chosen.limit :] if chosen.limit else found.letters
    if chosen.json:
        for letter in shown:
            tell(_as_json(letter))
    elif shown:
        head = ("id", "failed", "service", "record", "reason", "as it was", "detail")
        print(table(head, [_row(letter) for letter in shown]))
    say(_counted(found.letters, len(shown)))
    if found.unread:
        say(f"{found.unread} records of {DEAD_LETTERS.name} are no dead letters: somebody else writes there")
    return 0


def _row(letter: Letter) -> tuple[object, ...]:
    return (
        str(letter.letter_id)[:8],
        f"{letter.failed_at:%m-%d %H:%M:%S}",
        letter.service,
        letter.record,
        letter.reason.value,
        letter.handled.value if letter.handled else ("no" if letter.flaws else "yes"),
        ("(replayed before) " if letter.replay_of else "") + letter.detail,
    )


def _as_json(letter: Letter) -> dict[str, Any]:
    return {
        "id": str(letter.letter_id),
        "failed_at": letter.failed_at.isoformat(),
        "service": letter.service,
        "group": letter.group,
        "reason": letter.reason.value,
        "detail": letter.detail,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "characters": letter.size,
        "not_as_it_was": list(letter.flaws),
        "handled": letter.handled and letter.handled.value,
        "replay_of": letter.replay_of,
    }


def _counted(found: Sequence[Letter], shown: int) -> str:
    open_ones = [letter for letter in found if letter.handled is None]
    if not found:
        return "no dead letters are open"
    by_reason = Counter(f"{letter.service} {letter.reason.value}" for letter in open_ones)
    named = ", ".join(f"{count} {name}" for name, count in by_reason.most_common())
    return (
        f"{len(open_ones)} open"
        + (f": {named}" if named else "")
        + (f"; the latest {shown} are shown" * (shown < len(found)))
    )


async def _show(chosen: argparse.Namespace) -> int:
    settings = CommonSettings()
    letter = await _single(settings, Filter(ids=(chosen.id.lower(),)), handled=True)
    async for _, whole in letters.with_values(settings, [letter]):
        content = _as_json(letter) | {
            "detail": whole.detail,
            "recorded_at": whole.recorded_at.isoformat(),
            "headers": whole.headers,
            "traceback": whole.traceback,
        }
        if chosen.value:
            content |= {"record_key": whole.record_key, "value": whole.value}
        print(json.dumps(content, ensure_ascii=False, indent=2))
        if not chosen.value:
            say(f"the record's body ({letter.size} characters) is shown with --value")
    return 0


async def _single(settings: CommonSettings, wanted: Filter, *, handled: bool = False) -> Letter:
    found = (await letters.find(settings, wanted, handled=handled)).letters
    if len(found) == 1:
        return found[0]
    if not found:
        raise Refused("there is no such dead letter" + ("" if handled else ", or it was handled already"))
    raise Refused(f"{len(found)} dead letters fit: give more of the id, e.g. {found[0].letter_id}")


# --- replay, discard -------------------------------------------------------------------------------------------------


async def _replay(chosen: argparse.Namespace) -> int:
    settings = CommonSettings()
    wanted = _filter_for_change(chosen)
    edited = None if chosen.value_file is None else _file(chosen.value_file)
    if edited is not None:
        possible, flawed = [await _single(settings, wanted)], []
    else:
        found = (await letters.find(settings, wanted)).letters
        possible = [letter for letter in found if chosen.force or not letter.flaws]
        flawed = [letter for letter in found if letter.flaws and not chosen.force]
    if chosen.limit is not None:
        possible = possible[: chosen.limit]
    _say_flawed(flawed)
    if not possible:
        say("nothing to replay" if not flawed else "nothing can be replayed as it was")
        return REFUSED if flawed else 0
    by_topic = Counter(letter.topic for letter in possible)
    say("replay " + ", ".join(f"{count} to {topic}" for topic, count in by_topic.most_common()))
    again = sum(letter.replay_of is not None for letter in possible)
    if again:
        say(f"{again} of them were replayed before and failed again: has the cause been mended?")
    if not confirm(chosen, f"publish {len(possible)} records once more"):
        return 0
    count = await _publish_again(settings, possible, edited, chosen.why)
    say(f"replayed {len(possible)} dead letters ({count} records); what fails again is listed anew")
    return REFUSED if flawed else 0


def _file(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        json.loads(content)
    except OSError as error:
        raise Unusable(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise Unusable(f"{path} is not JSON: {error}") from None
    return content


def _say_flawed(flawed: Sequence[Letter]) -> None:
    if not flawed:
        return
    by_flaw: defaultdict[str, list[str]] = defaultdict(list)
    for letter in flawed:
        by_flaw["; ".join(letter.flaws)].append(str(letter.letter_id)[:8])
    for why, ids in by_flaw.items():
        named = ", ".join(ids[:10]) + (f" and {len(ids) - 10} more" if len(ids) > 10 else "")
        say(f"left out, {why}: {named}; --force publishes what is kept, --value-file what you mend")


async def _publish_again(settings: CommonSettings, chosen: Sequence[Letter], edited: bytes | None, why: str) -> int:
    """Publish each record once, however many letters name it, then keep that they were replayed. Returns the records.

    A crash in between leaves them open: replayed once more, they are duplicates.
    """
    producer = _producer(settings)
    await producer.start()
    try:
        published: set[str] = set()
        pending: list[tuple[Letter, DeadLetter]] = []
        partitions: dict[str, set[int]] = {}
        for letter in chosen:
            if letter.topic not in partitions:
                partitions[letter.topic] = set(await producer.partitions_for(letter.topic))

        async def flush() -> None:
            # In the order of the original log: within a key, what came first goes first.
            pending.sort(key=lambda pair: (pair[0].topic, pair[0].partition, pair[0].offset))
            once: dict[str, tuple[Letter, DeadLetter]] = {}
            for letter, whole in pending:
                if letter.record not in published:
                    once.setdefault(letter.record, (letter, whole))
            await _acknowledged(
                [
                    await producer.send(
                        letter.topic,
                        edited if edited is not None else whole.value.encode(),
                        key=None if whole.record_key is None else whole.record_key.encode(),
                        # Its own partition, not one by key: its producer may have had another way to choose.
                        partition=letter.partition if letter.partition in partitions[letter.topic] else None,
                        headers=_headers(letter, whole),
                    )
                    for letter, whole in once.values()
                ]
            )
            published.update(once)
            await _mark(producer, [letter for letter, _ in pending], DeadLetterAction.REPLAYED, why, edited is not None)
            pending.clear()

        async for pair in letters.with_values(settings, chosen):
            pending.append(pair)
            if len(pending) >= _AT_ONCE:
                await flush()
        await flush()
        return len(published)
    finally:
        await producer.stop()


def _headers(letter: Letter, whole: DeadLetter) -> list[tuple[str, bytes]]:
    kept = [(name, value.encode()) for name, value in whole.headers.items() if name != REPLAY_OF]
    return [*kept, (REPLAY_OF, str(letter.letter_id).encode())]


async def _discard(chosen: argparse.Namespace) -> int:
    settings = CommonSettings()
    found = (await letters.find(settings, _filter_for_change(chosen))).letters
    if not found:
        say("nothing to discard")
        return 0
    say(_counted(found, len(found)))
    if not confirm(chosen, f"discard {len(found)} dead letters"):
        return 0
    producer = _producer(settings)
    await producer.start()
    try:
        for start in range(0, len(found), _AT_ONCE):
            await _mark(producer, found[start : start + _AT_ONCE], DeadLetterAction.DISCARDED, chosen.why, edited=False)
    finally:
        await producer.stop()
    say(f"discarded {len(found)} dead letters")
    return 0


def _producer(settings: CommonSettings) -> AIOKafkaProducer:
    return AIOKafkaProducer(
        **connection_options(settings),
        client_id="switchyard-ops",
        acks="all",
        enable_idempotence=settings.kafka_idempotence,
        max_request_size=_MAX_REQUEST_BYTES,
    )


async def _mark(
    producer: AIOKafkaProducer, done: Sequence[Letter], action: DeadLetterAction, why: str, edited: bool
) -> None:
    """Keep on dead.letters what was done about these, beside each letter."""
    now = datetime.now(UTC)
    events = [
        DeadLetterHandled(
            letter_id=letter.letter_id,
            letter_key=letter.key,
            action=action,
            by=operator(),
            why=why,
            edited=edited,
            at=now,
        )
        for letter in done
    ]
    outgoing = [
        (letter, Outgoing(DEAD_LETTERS.name, event, trace_of(event)))
        for letter, event in zip(done, events, strict=True)
    ]
    await _acknowledged(
        [
            await producer.send(
                item.topic,
                item.body(),
                key=item.key.encode(),
                partition=letter.place[0],
                headers=[(name, value.encode()) for name, value in item.headers("ops").items()],
            )
            for letter, item in outgoing
        ]
    )


async def _acknowledged(sent: Iterable[Any]) -> None:
    async with asyncio.timeout(_PUBLISH_SECONDS):
        await asyncio.gather(*sent)
