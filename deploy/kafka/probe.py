"""Whether a broker serves, as a client sees it."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from shared.admin import connection_options
from shared.settings import CommonSettings

_ANSWER_TIMEOUT_SECONDS: Final = 5.0


def answers(bootstrap_servers: str, settings: CommonSettings | None = None) -> bool:
    """Whether an admin client is served: an open port is not enough, a broker also has to know itself as alive.

    `settings`: how to sign in; without them in plaintext.
    Synchronous, and usable inside a running event loop: it asks from a loop in a thread of its own.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, _answers(bootstrap_servers, settings or CommonSettings())).result()


async def _answers(bootstrap_servers: str, settings: CommonSettings) -> bool:
    options = {**connection_options(settings), "bootstrap_servers": bootstrap_servers}
    client = AIOKafkaAdminClient(request_timeout_ms=2000, **options)
    aiokafka_log = logging.getLogger("aiokafka")
    disabled, aiokafka_log.disabled = aiokafka_log.disabled, True  # a refused connection is an answer here, no fault
    try:
        async with asyncio.timeout(_ANSWER_TIMEOUT_SECONDS):
            await client.start()
            cluster = await client.describe_cluster()
            return bool(cluster["brokers"])
    except (KafkaError, OSError, TimeoutError):
        return False
    finally:
        aiokafka_log.disabled = disabled
        await client.close()
