"""Serves an ASGI application on a port of this machine, for tests that need a real server at the other end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import uvicorn

from deploy.processes import HOST, free_port


@asynccontextmanager
async def serving(app: Any, *, lifespan: Literal["auto", "off"] = "auto") -> AsyncIterator[str]:
    """The URL of `app`, without a slash at its end, while it is served. `lifespan`: of its background work."""
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(app, host=HOST, port=port, log_config=None, access_log=False, lifespan=lifespan)
    )
    task = asyncio.create_task(server._serve())  # not `serve`: that takes Ctrl-C for itself
    try:
        while not server.started:  # noqa: ASYNC110 - uvicorn offers a flag, no event
            await asyncio.sleep(0.01)
        yield f"http://{HOST}:{port}"
    finally:
        server.should_exit = True
        await task
