"""An agent's tool on the desk's API: claims the next ticket, answers it, ticks off its points, resolves it. See
docs/agents.md.

Needs `pip install httpx`, nothing else. The token comes from the environment: nobody reads it in the list of processes.

DESK_TOKEN=... python examples/desk_agent.py --url http://127.0.0.1:8005 --queue payments
"""

import argparse
import os
import sys
import time
import uuid
from typing import Any

import httpx

ANSWERS = {
    "zh": "您好，我们已经收到您的问题，正在为您处理。",
    "en": "Hello, we have received your message and are looking into it.",
}
TRIES = 6


class Desk:
    """The API, with the two things that every client needs: a key per request, and patience."""

    def __init__(self, url: str, token: str) -> None:
        self._client = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=10)

    def send(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        """Tried again, with the same Idempotency-Key, when the desk is away or asks to slow down: done once."""
        key = str(uuid.uuid4())
        for attempt in range(TRIES):
            try:
                response = self._client.request(method, path, json=body, headers={"Idempotency-Key": key})
            except httpx.TransportError:
                if attempt == TRIES - 1:
                    raise
                time.sleep(2**attempt / 4)
                continue
            if response.status_code not in (429, 503) or attempt == TRIES - 1:
                return response
            time.sleep(float(response.headers.get("Retry-After", 1)))
        raise AssertionError("the last try returns or raises")

    def work_on_next(self, queue: str) -> str | None:
        """Claim, answer and resolve the next ticket, its points ticked off. None when nothing waits."""
        claimed = self.send("POST", f"/v1/queues/{queue}/claim")
        if claimed.status_code == 204:
            return None
        ticket = claimed.raise_for_status().json()
        path = f"/v1/tickets/{ticket['ticket_id']}"
        answer = ANSWERS.get(ticket["language"], ANSWERS["en"])
        answered = [point["point_id"] for point in ticket["points"] if point["done_at"] is None]
        steps: list[tuple[str, str, dict[str, Any]]] = [
            ("POST", f"{path}/reply", {"text": answer}),
            *(("PUT", f"{path}/points/{point}", {"done": True}) for point in answered),
            ("POST", f"{path}/{'wait' if missing_of(ticket) else 'resolve'}", {}),
        ]
        for method, where, body in steps:
            response = self.send(method, where, body)
            if response.status_code == 409:  # taken back, or a lead was faster: not ours any more
                return f"{ticket['ticket_id']}: {response.json()['detail']}"
            response.raise_for_status()
        points = f"{len(answered)} point{'' if len(answered) == 1 else 's'}"
        return f"{ticket['priority']} {ticket['category']:<22} {points:<9} {ticket['ticket_id']}"


def missing_of(ticket: dict[str, Any]) -> list[str]:
    """The facts that the customer was asked for. A ticket that only another tool has told of has no decision yet."""
    return list(ticket["decision"]["missing"]) if ticket["decision"] else []


def main() -> int:
    parser = argparse.ArgumentParser(description="Claim, answer and resolve tickets through the desk's API.")
    parser.add_argument("--url", default="http://127.0.0.1:8005")
    parser.add_argument("--queue", default="general")
    parser.add_argument("--most", type=int, help="stop after so many tickets")
    parser.add_argument("--once", action="store_true", help="stop when the queue is empty")
    parser.add_argument("--every", type=float, default=2.0, help="seconds between looks at an empty queue")
    arguments = parser.parse_args()
    token = os.environ.get("DESK_TOKEN", "")
    if not token:
        print("set DESK_TOKEN to your token", file=sys.stderr)
        return 2
    desk = Desk(arguments.url, token)
    done = 0
    while done != arguments.most:
        said = desk.work_on_next(arguments.queue)
        if said is not None:
            done += 1
            print(said, flush=True)
        elif arguments.once:
            break
        else:
            time.sleep(arguments.every)
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except httpx.HTTPStatusError as error:
        print(f"the desk answered {error.response.status_code}: {error.response.text}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(0) from None
