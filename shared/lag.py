"""How far a consumer is behind, asked of the broker.

What the last fetch said is no measure: while a consumer is held up, it fetches nothing, and the topic grows unseen.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from aiokafka.errors import IllegalStateError

from shared import metrics
from shared.delivery import Subscription
from shared.measuring import Gone, Reading

_ANSWER_MOST_SECONDS: Final = 10.0


class Lag:
    """Of one subscription, in this process."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        # Each group's series are its own: another subscription's reading must not take them away.
        self._gauge = Reading(metrics.CONSUMER_LAG, Gone.REMOVED)

    async def measure(self) -> None:
        """Set the gauge for the partitions of now, and no others. Nothing to do is progress too.

        Raises KafkaError or TimeoutError when the broker does not answer; what was known then stays.
        """
        subscription = self._subscription
        lag = await self._records()
        self._gauge.show({(subscription.group, *partition): records for partition, records in lag.items()})
        if not any(lag.values()) and subscription.consumer() and not subscription.busy:
            subscription.progress_at = time.monotonic()
            metrics.LOOP_PROGRESS.labels(subscription.group).set_to_current_time()

    async def _records(self) -> dict[tuple[str, str], int]:
        """Records written and not yet handled, by topic and partition (what is in hand counts)."""
        subscription = self._subscription
        consumer = subscription.consumer()
        partitions = sorted(consumer.assignment()) if consumer else []
        if not partitions:
            return {}
        async with asyncio.timeout(_ANSWER_MOST_SECONDS):
            ends = await consumer.end_offsets(partitions)
            lag = {}
            for partition in partitions:
                try:
                    at = await consumer.position(partition)
                except IllegalStateError:  # taken away while we asked
                    continue
                in_hand = subscription.in_hand.get(partition, 0)
                lag[partition.topic, str(partition.partition)] = max(0, ends[partition] - at) + in_hand
        return lag
