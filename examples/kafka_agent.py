"""An agent's tool on Kafka: takes the tickets of one queue and writes what it does to `tickets.activity`.

Needs `pip install aiokafka`, nothing else. See docs/agents.md.

python examples/kafka_agent.py --bootstrap-servers 127.0.0.1:9092 --queue general
"""

import argparse
import asyncio
import json
import uuid
from datetime import UTC, datetime
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord

ROUTED = "switchyard.ticket.routed.v1"  # the ticket belongs in this queue
ACTIVITY = "switchyard.ticket.activity.v2"
ANSWERS = {
    "zh": "您好，我们已经收到您的问题，正在为您处理。",
    "en": "Hello, we have received your message and are looking into it.",
}


def event_type(record: ConsumerRecord) -> str:
    return next((value.decode() for name, value in record.headers if name == "ce_type"), "")


async def say(producer: AIOKafkaProducer, agent: str, routed: dict[str, Any], kind: str, **details: str) -> None:
    """Publish one activity. Its ids follow from what it answers, so that doing it again has no further effect."""
    activity_id = f"{agent}:{kind}:{routed['ticket_id']}:{routed['revision']}"
    activity = {
        "ticket_id": routed["ticket_id"],
        "activity_id": activity_id,
        "kind": kind,
        "agent": agent,
        "at": datetime.now(UTC).isoformat(),  # must carry an offset; of two activities the later wins
        "brand": routed["brand"],
        **details,
    }
    headers = {
        "ce_specversion": "1.0",
        "ce_id": str(uuid.uuid5(uuid.NAMESPACE_URL, activity_id)),
        "ce_source": f"examples/{agent}",
        "ce_type": ACTIVITY,
        "content-type": "application/json",
    }
    await producer.send_and_wait(
        "tickets.activity",
        json.dumps(activity, ensure_ascii=False).encode(),
        key=routed["ticket_id"].encode(),  # everything about a ticket stays in order
        headers=[(name, value.encode()) for name, value in headers.items()],
    )


async def handle(producer: AIOKafkaProducer, agent: str, routed: dict[str, Any]) -> None:
    """What a person or a model would do at more length."""
    await say(producer, agent, routed, "claimed", queue=routed["queue"])
    await say(producer, agent, routed, "replied", text=ANSWERS.get(routed["language"], ANSWERS["en"]))
    # Facts that are missing were asked for in the acknowledgement: the customer's next message brings the ticket back.
    await say(producer, agent, routed, "waiting_on_customer" if routed["missing"] else "resolved")


async def run(bootstrap_servers: str, queue: str, agent: str, most: int | None) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, acks="all", enable_idempotence=True)
    consumer = AIOKafkaConsumer(
        f"queues.{queue}",
        bootstrap_servers=bootstrap_servers,
        group_id=f"{agent}.{queue}",  # agents that share a group share the queue
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    done = 0
    async with producer, consumer:
        async for record in consumer:
            # The other type here, `switchyard.ticket.left.v1`, says: let go of it. This tool holds nothing for long.
            if event_type(record) == ROUTED:
                routed = json.loads(record.value)
                # A routing that follows from an agent's correction carries no new message of the customer.
                if not routed["trace"]["decided_by"].startswith("agent:"):
                    await handle(producer, agent, routed)
                    done += 1
                    print(f"{routed['priority']} {routed['category']:<22} {routed['ticket_id']}", flush=True)
            # Only now: what was taken and not finished is taken again after a crash.
            await consumer.commit()
            if done == most:
                return


def main() -> None:
    parser = argparse.ArgumentParser(description="Take the tickets of one queue from Kafka, answer and resolve them.")
    parser.add_argument("--bootstrap-servers", default="127.0.0.1:9092")
    parser.add_argument("--queue", default="general")
    parser.add_argument("--agent", default="kafka-agent", help="your id; it stands in the ticket's history")
    parser.add_argument("--most", type=int, help="stop after so many tickets")
    arguments = parser.parse_args()
    asyncio.run(run(arguments.bootstrap_servers, arguments.queue, arguments.agent, arguments.most))


if __name__ == "__main__":
    main()
