"""Delivers a notification as a signed webhook (Standard Webhooks 1.0)."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import httpx
from standardwebhooks import Webhook

from services.notifier.domain.notifications import Notification, payload
from services.notifier.domain.outputs import Endpoint
from services.notifier.domain.retry import Tried, Verdict, judge_http_status
from services.notifier.network import RequestRefused, Resolve, checked_address, resolve
from services.notifier.settings import Settings
from shared.retry_after import retry_after_seconds
from shared.tls import client_context

_ANSWER_MOST_BYTES: Final = 64 * 1024
_PORTS: Final = {"http": 80, "https": 443}


def body_of(notification: Notification) -> str:
    return json.dumps(payload(notification), ensure_ascii=False, separators=(",", ":"))


def signed_headers(endpoint: Endpoint, notification_id: uuid.UUID, at: datetime, body: str) -> dict[str, str]:
    """`webhook-id` is the notification's id at every try, so that a receiver drops repetitions by it."""
    signatures = [
        Webhook(secret.get_secret_value()).sign(str(notification_id), at, body) for secret in endpoint.secrets
    ]
    return {
        "webhook-id": str(notification_id),
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


class WebhookSender:
    """One connection pool per endpoint: a connection whose certificate was checked for one host serves no other."""

    def __init__(self, settings: Settings, endpoints: Mapping[str, Endpoint], resolver: Resolve = resolve) -> None:
        self._timeout_seconds = settings.notifier_delivery_timeout_seconds
        self._allowed_hosts = frozenset(settings.notifier_webhook_allowed_hosts)
        self._endpoints = endpoints
        self._resolver = resolver
        self._tls = client_context(settings)
        self._limits = httpx.Limits(
            max_connections=None, max_keepalive_connections=settings.notifier_deliveries_per_endpoint
        )
        self._clients: dict[str, httpx.AsyncClient] = {}

    async def send(self, notification: Notification) -> Tried:
        """One try. Never raises for what the receiver or the network does."""
        if notification.route is None:
            raise ValueError(f"notification {notification.notification_id} has no route")
        name = notification.route.endpoint
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._post(name, self._endpoints[name], notification)
        except TimeoutError:
            return Tried(Verdict.TRY_AGAIN, f"no answer within {self._timeout_seconds:g} s")
        except RequestRefused as refused:
            return Tried(Verdict.TRY_AGAIN, f"refused: {refused}")
        except (httpx.HTTPError, OSError) as error:
            return Tried(Verdict.TRY_AGAIN, f"no answer: {type(error).__name__}")

    async def _post(self, name: str, endpoint: Endpoint, notification: Notification) -> Tried:
        url = httpx.URL(endpoint.url)
        port = url.port or _PORTS[url.scheme]
        address = await checked_address(
            url.scheme, url.host, port, allowed_hosts=self._allowed_hosts, resolver=self._resolver
        )
        body = body_of(notification)
        now = datetime.now(UTC)
        request = self._client(name).build_request(
            "POST",
            url.copy_with(host=address),
            content=body.encode(),
            headers={
                "Host": url.netloc.decode(),
                "Content-Type": "application/json",
                "User-Agent": "Switchyard-Notifier/1",
                "traceparent": notification.traceparent,
                **signed_headers(endpoint, notification.notification_id, now, body),
            },
            extensions={"sni_hostname": url.host},
        )
        answer = await self._client(name).send(request, stream=True, follow_redirects=False)
        try:
            await _skim(answer)
        finally:
            await answer.aclose()
        verdict = judge_http_status(answer.status_code)
        after = retry_after_seconds(answer.headers.get("retry-after"), now) if verdict is Verdict.TRY_AGAIN else None
        return Tried(verdict, f"HTTP {answer.status_code}", after)

    def _client(self, name: str) -> httpx.AsyncClient:
        if name not in self._clients:
            # trust_env off: a proxy from the environment would resolve the name again, unchecked.
            self._clients[name] = httpx.AsyncClient(
                verify=self._tls, limits=self._limits, timeout=self._timeout_seconds, trust_env=False
            )
        return self._clients[name]

    async def close(self) -> None:
        """Let go of all connections; a later `send` makes new ones."""
        while self._clients:
            _, client = self._clients.popitem()
            await client.aclose()


async def _skim(answer: httpx.Response) -> None:
    """Read a short answer to its end, so that the connection can serve again; of a long one no more than the limit."""
    seen_bytes = 0
    async for chunk in answer.aiter_raw():
        seen_bytes += len(chunk)
        if seen_bytes > _ANSWER_MOST_BYTES:
            return
