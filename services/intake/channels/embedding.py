"""Pages of ours in frames of brands' sites: which sites may, and what browsers are told about it. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator

_ORIGIN: Final = re.compile(r"https?://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?")
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?")


def _is_origin(value: str) -> str:
    if not _ORIGIN.fullmatch(value):
        raise ValueError("write an origin as browsers do, in lower case and without a path: https://shop.example")
    return value


Origin = Annotated[str, AfterValidator(_is_origin)]
"""Scheme, host and port of a site, e.g. `https://shop.example`: safe to stand in a Content-Security-Policy."""


def framed_policy(origins: Sequence[str], *directives: str) -> str:
    """A Content-Security-Policy of a page that these origins, and ours, may show in a frame.

    A browser that knows `frame-ancestors` ignores the `X-Frame-Options: DENY` that all answers carry (CSP level 2); one
    that does not shows the page in no frame, which is safe.
    """
    ancestors = " ".join(("'self'", *origins))
    return "; ".join(("default-src 'none'", *directives, "base-uri 'none'", f"frame-ancestors {ancestors}"))


def host_of(header: str) -> str:
    """The Host header, or nothing where it holds what a host cannot."""
    return header if _HOST.fullmatch(header) else ""


def may_connect(origin: str | None, host: str, origins: Sequence[str]) -> bool:
    """Whether a script of `origin` may use what browsers guard by no other means (WebSockets). `host` is our own.

    Programs that are no browsers send no origin; what they may do, their token says.
    """
    return origin is None or origin in origins or (bool(host) and urlsplit(origin).netloc.lower() == host.lower())
