"""Show what Switchyard could not process of a producer's records, and why. Needs `pip install aiokafka`, nothing else.

python examples/dead_letters.py --bootstrap-servers 127.0.0.1:9092 --key upay_wallet/ --once

Reads `dead.letters` from its beginning; with --once it ends at what was its end, else it goes on. Exit status 1 when it
has shown any.
"""

import argparse
import asyncio
import json
import sys
from typing import Any

from aiokafka import AIOKafkaConsumer

TOPIC = "dead.letters"
TYPE = b"switchyard.dead.letter.v1"


async def show(bootstrap_servers: str, topic: str, key: str, once: bool) -> int:
    consumer = AIOKafkaConsumer(TOPIC, bootstrap_servers=bootstrap_servers, auto_offset_reset="earliest")
    await consumer.start()
    try:
        places = consumer.assignment()  # of a consumer without a group: all of the topic
        if not places:
            print(f"there is no topic {TOPIC} on {bootstrap_servers}", file=sys.stderr)
            return 2
        ends = await consumer.end_offsets(places)
        shown = 0
        while True:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    if dict(record.headers).get("ce_type") != TYPE:
                        continue  # what operators did about one
                    letter = json.loads(record.value or b"{}")
                    if letter["topic"] == topic and (letter["record_key"] or "").startswith(key):
                        print(line_of(letter), flush=True)
                        shown += 1
            if once and all([await consumer.position(place) >= ends[place] for place in places]):
                return 1 if shown else 0
    finally:
        await consumer.stop()


def line_of(letter: dict[str, Any]) -> str:
    """Where the record is, and what is wrong with it: `channel.messages[3]@17  invalid  customer: Field required`."""
    place = f"{letter['topic']}[{letter['partition']}]@{letter['offset']}"
    return f"{place}  {letter['record_key'] or '-'}  {letter['reason']}  {letter['detail']}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Show what Switchyard could not process, and why.")
    parser.add_argument("--bootstrap-servers", default="127.0.0.1:9092")
    parser.add_argument("--topic", default="channel.messages", help="of the records (channel.messages)")
    parser.add_argument("--key", default="", help="only records whose key begins so, e.g. a brand: upay_wallet/")
    parser.add_argument("--once", action="store_true", help="end at what is the end now")
    arguments = parser.parse_args()
    try:
        return asyncio.run(show(arguments.bootstrap_servers, arguments.topic, arguments.key, arguments.once))
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
