"""The page where the queues are watched: three files of our own, no other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Response

_DIRECTORY: Final = Path(__file__).parent / "static"
_FILES: Final = {
    "/": ("queues.html", "text/html; charset=utf-8"),
    "/static/queues.css": ("queues.css", "text/css; charset=utf-8"),
    "/static/queues.js": ("queues.js", "text/javascript; charset=utf-8"),
    "/static/icon.svg": ("icon.svg", "image/svg+xml"),
}


def build_page() -> APIRouter:
    """`/` and what it loads. Public: it shows nothing until a token has been entered."""
    router = APIRouter(include_in_schema=False)
    for route, (name, media_type) in _FILES.items():
        router.add_api_route(route, _serving((_DIRECTORY / name).read_bytes(), media_type), methods=["GET"])
    return router


def _serving(content: bytes, media_type: str) -> Callable[[], Awaitable[Response]]:
    async def serve() -> Response:
        return Response(content, media_type=media_type)

    return serve
