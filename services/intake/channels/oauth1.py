"""Signing a request as OAuth 1.0a wants it (RFC 5849, HMAC-SHA1)."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Credentials:
    """Of an application (consumer) and of the account that has let it act for it (token)."""

    consumer_key: str
    consumer_secret: str
    token: str
    token_secret: str


def authorization(
    credentials: Credentials, method: str, url: str, *, nonce: str, timestamp: int, parameters: Mapping[str, str]
) -> str:
    """The `Authorization` header. `url` is without a query; `parameters` are those of the query and of a form.

    A body that is no form (JSON) is not signed (section 3.4.1.3.1). `timestamp` is in seconds since 1970.
    """
    protocol = {
        "oauth_consumer_key": credentials.consumer_key,
        "oauth_nonce": nonce,
        "oauth_signature_method": "HMAC-SHA1",
        "oauth_timestamp": str(timestamp),
        "oauth_token": credentials.token,
        "oauth_version": "1.0",
    }
    signed = signature(
        method,
        url,
        (*protocol.items(), *parameters.items()),
        credentials.consumer_secret,
        credentials.token_secret,
    )
    fields = sorted((protocol | {"oauth_signature": signed}).items())
    return "OAuth " + ", ".join(f'{_encoded(name)}="{_encoded(value)}"' for name, value in fields)


def signature(
    method: str, url: str, parameters: Iterable[tuple[str, str]], consumer_secret: str, token_secret: str
) -> str:
    """Section 3.4.2: the base string (3.4.1) under both secrets, in base64."""
    encoded = sorted((_encoded(name), _encoded(value)) for name, value in parameters)
    normalized = "&".join(f"{name}={value}" for name, value in encoded)
    base_string = "&".join(map(_encoded, (method.upper(), _base_url(url), normalized)))
    key = f"{_encoded(consumer_secret)}&{_encoded(token_secret)}"
    return base64.b64encode(hmac.new(key.encode(), base_string.encode(), hashlib.sha1).digest()).decode()


def _base_url(url: str) -> str:
    """Section 3.4.1.2: scheme and host in lower case, without a port that is the scheme's own."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    port = "" if parts.port in (None, _DEFAULT_PORTS.get(parts.scheme)) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}{parts.path or '/'}"


def _encoded(value: str) -> str:
    """Section 3.6: all but letters, digits and `-._~` as upper-case `%XX` of their UTF-8."""
    return quote(value, safe="-._~")
