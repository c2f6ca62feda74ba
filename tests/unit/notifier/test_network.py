"""Webhooks stay out of one's own network, and go to exactly the address that was checked."""

from __future__ import annotations

import asyncio
import ipaddress
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from services.notifier.domain.notifications import Notification, acknowledgement
from services.notifier.domain.outputs import Endpoint, Route
from services.notifier.domain.retry import Verdict
from services.notifier.network import RequestRefused, checked_address, is_public
from services.notifier.settings import Settings
from services.notifier.webhook import WebhookSender
from shared.events import Output
from tests.unit.notifier.examples import KEY, OUTPUTS, TEXTS, TRACE, routed_event


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",  # the metadata service of most clouds
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "fec0::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a00:1",  # NAT64 of 10.0.0.1
        "2002:a00:1::",  # 6to4 of 10.0.0.1
        "2001:db8::1",
    ],
)
def test_addresses_that_are_not_somebody_elses(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"])
def test_addresses_that_are(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


async def address_of(*addresses: str, scheme: str = "https", allowed_hosts: Sequence[str] = ()) -> str:
    async def resolver(host: str, port: int) -> list[str]:
        assert (host, port) == ("gateway.example", 443)
        return list(addresses)

    return await checked_address(scheme, "gateway.example", 443, allowed_hosts=allowed_hosts, resolver=resolver)


async def test_a_public_host_is_taken_and_one_private_address_refuses_all() -> None:
    assert await address_of("8.8.8.8", "8.8.4.4") == "8.8.8.8"
    with pytest.raises(RequestRefused, match="private network"):
        await address_of("8.8.8.8", "10.0.0.1")
    with pytest.raises(RequestRefused, match="not https"):
        await address_of("8.8.8.8", scheme="http")
    assert await address_of("10.0.0.1", scheme="http", allowed_hosts=["gateway.example"]) == "10.0.0.1"
    with pytest.raises(OSError, match="no address"):
        await address_of()


# --- the sender, on a real socket ------------------------------------------------------------------------------------


@dataclass
class Server:
    answer: bytes = b"HTTP/1.1 204 No Content\r\n\r\n"
    heads: list[str] = field(default_factory=list)
    port: int = 0

    @asynccontextmanager
    async def listening(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
        connections: set[asyncio.StreamWriter] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.add(writer)
            try:
                self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
                writer.write(self.answer)
                await writer.drain()
                await reader.read()
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            for writer in connections:
                writer.close()
            server.close()


def notification() -> Notification:
    made = acknowledgement(routed_event(), TEXTS, OUTPUTS, TRACE)
    assert made is not None
    return replace(made, route=Route(Output.WEBHOOK, "test", "customer-1"))


def sender(
    host: str, port: int, addresses: Sequence[str], scheme: str = "http", **settings: object
) -> tuple[WebhookSender, list[str]]:
    asked: list[str] = []

    async def resolver(host: str, port: int) -> list[str]:
        asked.append(host)
        return list(addresses)

    endpoint = Endpoint.model_validate({"url": f"{scheme}://{host}:{port}/hook", "secrets": [KEY]})
    fields = {"notifier_webhook_allowed_hosts": (host,), "notifier_delivery_timeout_seconds": 1.0} | settings
    return WebhookSender(Settings.model_validate(fields), {"test": endpoint}, resolver), asked


async def test_connects_to_the_checked_address_under_the_hosts_name() -> None:
    async with Server().listening() as server:
        # Nothing but our resolver knows this name: a second look-up elsewhere could not have found the server.
        webhooks, asked = sender("gateway.test", server.port, ["127.0.0.1"])
        tried = await webhooks.send(notification())
        await webhooks.close()
    assert (tried.verdict, tried.detail) == (Verdict.DELIVERED, "HTTP 204")
    assert asked == ["gateway.test"]
    assert f"host: gateway.test:{server.port}\r\n" in server.heads[0].lower()
    assert "POST /hook HTTP/1.1" in server.heads[0]


async def test_a_private_address_gets_no_request() -> None:
    async with Server().listening() as server:
        webhooks, _ = sender("gateway.test", server.port, ["127.0.0.1"], notifier_webhook_allowed_hosts=("other.test",))
        tried = await webhooks.send(notification())
        await webhooks.close()
    assert tried.verdict is Verdict.TRY_AGAIN
    assert tried.detail.startswith("refused: ")
    assert server.heads == []


async def test_a_redirect_is_not_followed() -> None:
    async with Server().listening() as inner:
        outer = Server(
            f"HTTP/1.1 307 Go\r\nLocation: http://127.0.0.1:{inner.port}/\r\nContent-Length: 0\r\n\r\n".encode()
        )
        async with outer.listening():
            webhooks, _ = sender("gateway.test", outer.port, ["127.0.0.1"])
            tried = await webhooks.send(notification())
            await webhooks.close()
    assert (tried.verdict, tried.detail) == (Verdict.TRY_AGAIN, "HTTP 307")
    assert inner.heads == []


async def test_a_long_answer_is_not_read_to_its_end() -> None:
    # It announces 10 GB and sends 1 MB: who waited for the rest would run into the time-out and fail.
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n"
    async with Server(head + b"x" * 1_000_000).listening() as server:
        webhooks, _ = sender("gateway.test", server.port, ["127.0.0.1"])
        tried = await webhooks.send(notification())
        await webhooks.close()
    assert tried.verdict is Verdict.DELIVERED


async def test_silence_and_nobody_there_are_tried_again() -> None:
    async with Server(b"").listening() as server:
        webhooks, _ = sender("gateway.test", server.port, ["127.0.0.1"], notifier_delivery_timeout_seconds=0.2)
        tried = await webhooks.send(notification())
        assert (tried.verdict, tried.detail) == (Verdict.TRY_AGAIN, "no answer within 0.2 s")
        await webhooks.close()
    tried = await webhooks.send(notification())  # the server has gone; the sender still works after `close`
    assert (tried.verdict, tried.detail) == (Verdict.TRY_AGAIN, "no answer: ConnectError")
    await webhooks.close()


# --- TLS -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificate and key of gateway.test in one file, signed by itself."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed: no certificate can be made")
    path = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", "/CN=gateway.test", "-addext", "subjectAltName=DNS:gateway.test", "-days", "2"),
            *("-keyout", str(path / "key.pem"), "-out", str(path / "certificate.pem")),
        ],
        check=True,
        capture_output=True,
    )
    (path / "both.pem").write_bytes((path / "certificate.pem").read_bytes() + (path / "key.pem").read_bytes())
    return path / "both.pem"


@pytest.mark.parametrize(
    ("host", "verdict"), [("gateway.test", Verdict.DELIVERED), ("elsewhere.test", Verdict.TRY_AGAIN)]
)
async def test_the_certificate_must_be_the_hosts_not_the_addresss(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, host: str, verdict: Verdict
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    async with Server().listening(context) as server:
        webhooks, _ = sender(host, server.port, ["127.0.0.1"], scheme="https")
        tried = await webhooks.send(notification())
        await webhooks.close()
    assert tried.verdict is verdict
    assert len(server.heads) == (verdict is Verdict.DELIVERED)
