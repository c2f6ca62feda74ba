"""Publish one customer's message to `channel.messages`, as a channel does. Needs `pip install aiokafka`, nothing else.

python examples/send_kafka.py --bootstrap-servers 127.0.0.1:9092 --text "充值没到账，钱已经扣了"
"""

import argparse
import asyncio
import json
import uuid
from datetime import UTC, datetime

from aiokafka import AIOKafkaProducer


async def send(bootstrap_servers: str, brand: str, channel: str, customer: str, text: str) -> None:
    message_id = str(uuid.uuid4())  # the channel's own id: sent again with the same id, it counts once
    message = {
        "brand": brand,
        "channel": channel,
        "message_id": message_id,
        "customer": {"id": customer},
        "text": text,
        "sent_at": datetime.now(UTC).isoformat(),  # must carry an offset
    }
    headers = {
        "ce_specversion": "1.0",
        "ce_id": message_id,
        "ce_source": f"{brand}/{channel}",
        "ce_type": "switchyard.channel.message.v2",
        "content-type": "application/json",
    }
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, acks="all", enable_idempotence=True)
    await producer.start()
    try:
        sent = await producer.send_and_wait(
            "channel.messages",
            json.dumps(message, ensure_ascii=False).encode(),
            key=f"{brand}/{channel}/{customer}".encode(),  # keeps one customer's messages in order
            headers=[(name, value.encode()) for name, value in headers.items()],
        )
    finally:
        await producer.stop()
    print(f"sent {message_id} to {sent.topic}[{sent.partition}]@{sent.offset}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Publish one customer's message to Switchyard.")
    parser.add_argument("--bootstrap-servers", default="127.0.0.1:9092")
    parser.add_argument("--brand", default="upay_wallet")
    parser.add_argument("--channel", default="app_chat")
    parser.add_argument("--customer", default="example-customer")
    parser.add_argument("--text", required=True)
    arguments = parser.parse_args()
    asyncio.run(
        send(arguments.bootstrap_servers, arguments.brand, arguments.channel, arguments.customer, arguments.text)
    )


if __name__ == "__main__":
    main()
