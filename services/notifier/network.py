"""Keeps webhooks out of one's own network (SSRF): a host is resolved once, and the checked address is the one used."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Host and port to addresses. Raises OSError when the name is not known."""

_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


class RequestRefused(Exception):
    """The URL leads where a webhook may not go; NOTIFIER_WEBHOOK_ALLOWED_HOSTS makes exceptions."""


async def resolve(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def is_public(address: Address) -> bool:
    """Whether this is somebody else's machine. An IPv6 address that wraps an IPv4 one is judged by what it wraps."""
    if isinstance(address, ipaddress.IPv6Address):
        wrapped = address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
        if address in _NAT64:
            wrapped = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if wrapped:
            return is_public(wrapped)
        if address.is_site_local:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved and not address.is_unspecified


async def checked_address(
    scheme: str, host: str, port: int, *, allowed_hosts: Iterable[str], resolver: Resolve = resolve
) -> str:
    """The address to connect to. Connect to exactly this: asking for the name again may give another (DNS rebinding).

    Raises RequestRefused, or OSError when the name cannot be resolved. One bad address among several refuses all: an
    honest receiver has none in a private network.
    """
    allowed = host in allowed_hosts
    if scheme != "https" and not allowed:
        raise RequestRefused("the URL is not https, and its host is not allowed")
    addresses = await resolver(host, port)
    if not addresses:
        raise OSError("the host has no address")
    if not allowed and not all(is_public(ipaddress.ip_address(address.partition("%")[0])) for address in addresses):
        raise RequestRefused("the host is in a private network, and not allowed")
    return addresses[0]
