"""The demo's agents: they claim each queue's next ticket through the desk's API, answer it, and mostly resolve it."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import httpx

from shared.taxonomy import Queue

_ANSWERS: Final = {
    "zh": "您好，已为您核实，问题正在处理，稍后会有结果通知您。如有变化请直接回复本消息。",
    "en": "Hello, we have checked this for you and are working on it. You will hear from us shortly; just reply here.",
}
_WAITS_ON_CUSTOMER_EVERY: Final = 6
_RELEASES_EVERY: Final = 25
_LEAVES_EVERY: Final = 4  # every so many tickets of the least urgent queues stay unanswered, so that promises break


class Agents:
    """`done` counts what they did, by kind."""

    def __init__(self, desk_url: str, token: str) -> None:
        self.done: Counter[str] = Counter()
        self._client = httpx.AsyncClient(
            base_url=f"{desk_url}/v1", headers={"Authorization": f"Bearer {token}"}, timeout=20, trust_env=False
        )
        self._number = 0

    async def work(self, closing_time: asyncio.Event, *, at_once: int = 4) -> None:
        """`at_once` agents go round the queues until `closing_time`; each finishes the ticket at hand."""
        async with self._client:
            await asyncio.gather(*(self._agent(index, closing_time) for index in range(at_once)))

    async def _agent(self, index: int, closing_time: asyncio.Event) -> None:
        queues = list(Queue)
        # Each begins elsewhere, the first with security.
        queues = queues[index * 2 :] + queues[: index * 2]
        while not closing_time.is_set():
            claimed = False
            for queue in queues:
                if not closing_time.is_set():
                    claimed = await self._serve(queue) or claimed
            if not claimed:
                await asyncio.sleep(0.2)

    async def _serve(self, queue: Queue) -> bool:
        answer = await self._post(f"/queues/{queue.value}/claim")
        if answer.status_code == httpx.codes.NO_CONTENT:
            return False
        ticket: dict[str, Any] = answer.json()
        self.done["claimed"] += 1
        self._number += 1
        place = f"/tickets/{ticket['ticket_id']}"
        text = _ANSWERS["zh" if ticket.get("language") == "zh" else "en"]
        if queue in (Queue.GENERAL, Queue.PROMOTIONS) and self._number % _LEAVES_EVERY == 0:
            self.done["left unanswered"] += 1
            return True
        if self._number % _RELEASES_EVERY == 0 and self.done["released"] < 5:
            await self._post(f"{place}/release", {"note": "needs somebody who speaks the customer's language"})
            self.done["released"] += 1
            return True
        await self._post(f"{place}/reply", {"text": text})
        self.done["replied"] += 1
        for point in ticket["points"]:
            await self._send("PUT", f"{place}/points/{point['point_id']}", {"done": True})
            self.done["points ticked off"] += 1
        if self._number % _WAITS_ON_CUSTOMER_EVERY == 0:
            await self._post(f"{place}/wait")
            self.done["waiting on customer"] += 1
        else:
            await self._post(f"{place}/resolve")
            self.done["resolved"] += 1
        return True

    async def _post(self, path: str, body: dict[str, str] | None = None) -> httpx.Response:
        return await self._send("POST", path, body)

    async def _send(self, method: str, path: str, body: Mapping[str, object] | None = None) -> httpx.Response:
        # The same key when the answer was lost on the way: the act is done once.
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        for attempt in range(5):
            try:
                answer = await self._client.request(method, path, json=body or {}, headers=headers)
            except httpx.TransportError:
                await asyncio.sleep(0.2 * 2**attempt)
                continue
            if answer.status_code not in (429, 503):
                # 409: a customer's message or another agent was quicker; the ticket is where it should be.
                if answer.is_error and answer.status_code != httpx.codes.CONFLICT:
                    raise RuntimeError(f"the desk answered {answer.status_code} to {path}: {answer.text[:300]}")
                return answer
            await asyncio.sleep(min(2.0, float(answer.headers.get("Retry-After", "1"))))
        raise RuntimeError(f"the desk does not answer {path}")
