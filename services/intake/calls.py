"""Asks providers' APIs: every adapter's way out."""

from __future__ import annotations

import asyncio
from typing import Final

import httpx

from services.intake.channels.base import NotSent, ProviderAnswer, ProviderRequest

_ANSWER_MOST_BYTES: Final = 1024 * 1024


class Caller:
    """Answers `services.intake.channels.base.Call`. One connection pool for all providers; close it at the end.

    Addresses come from brands' files, which the operator writes: so nothing is checked about where they lead. Redirects
    are not followed, and a proxy of the environment is not used: tokens go to the host that the file names.
    """

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._client = httpx.AsyncClient(timeout=timeout_seconds, follow_redirects=False, trust_env=False)

    async def __call__(self, request: ProviderRequest) -> ProviderAnswer:
        """Raises NotSent, to be tried again, when there is no answer within the time."""
        built = self._client.build_request(
            request.method,
            request.url,
            headers={"User-Agent": "Switchyard-Intake/1", **request.headers},
            params=dict(request.query) or None,
            json=request.json,
            data=None if request.form is None else dict(request.form),
            content=request.body,
        )
        try:
            async with asyncio.timeout(self._timeout_seconds):
                answer = await self._client.send(built, stream=True)
                try:
                    body = await _read(answer)
                finally:
                    await answer.aclose()
        except TimeoutError:
            raise NotSent(f"no answer within {self._timeout_seconds:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise NotSent(f"no answer: {type(error).__name__}") from None
        return ProviderAnswer(answer.status_code, {key.lower(): value for key, value in answer.headers.items()}, body)

    async def close(self) -> None:
        await self._client.aclose()


async def _read(answer: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in answer.aiter_bytes():
        body += chunk
        if len(body) > _ANSWER_MOST_BYTES:
            raise NotSent(f"the answer is longer than {_ANSWER_MOST_BYTES} bytes")
    return bytes(body)
