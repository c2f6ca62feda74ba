"""The SMTP server as mail servers meet it: what it takes, what it refuses for now, what for ever."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiosmtplib
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from services.intake.channels.base import Answer
from services.intake.channels.email import EmailAdapter, Envelope
from services.intake.smtp import SmtpGateway
from shared.http import Problem, RateLimiter, too_many, unavailable
from tests.support.mailing import Accepting, email_adapter, mail
from tests.support.waiting import eventually

HOST = "127.0.0.1"
SERVICE = "service@upay.example"
SENDER = "li@mail.example"


@asynccontextmanager
async def serving(accept: Accepting, *adapters: EmailAdapter, **options: Any) -> AsyncIterator[SmtpGateway]:
    fields: dict[str, Any] = {"host": HOST, "port": 0, "limiter": RateLimiter(1000, 1000), "timeout_seconds": 5.0}
    gateway = SmtpGateway(adapters or (email_adapter(),), accept, **(fields | options))
    task = asyncio.create_task(gateway.run())
    try:
        await asyncio.wait_for(gateway.started.wait(), 5)
        yield gateway
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()


@asynccontextmanager
async def connected(gateway: SmtpGateway, **options: Any) -> AsyncIterator[aiosmtplib.SMTP]:
    client = aiosmtplib.SMTP(
        hostname=HOST, port=gateway.port, timeout=10, **({"start_tls": False, "use_tls": False} | options)
    )
    await client.connect()
    try:
        yield client
    finally:
        client.close()


async def refusal(gateway: SmtpGateway, raw: bytes, recipients: list[str] | None = None) -> tuple[int, str]:
    """Code and first words of the answer to a mail that is not taken."""
    async with connected(gateway) as client:
        with pytest.raises((aiosmtplib.SMTPResponseException, aiosmtplib.SMTPRecipientsRefused)) as refused:
            await client.sendmail(SENDER, recipients or [SERVICE], raw)
    error = refused.value
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        error = error.recipients[0]
    assert isinstance(error, aiosmtplib.SMTPResponseException)
    return error.code, error.message


async def test_a_mail_is_taken_once_its_message_is_stored() -> None:
    accept = Accepting()
    async with serving(accept) as gateway, connected(gateway) as client:
        _, answer = await client.sendmail(SENDER, [SERVICE], mail())
    assert answer.startswith("2.0.0")
    (message,) = accept.messages
    assert (message.brand, message.message_id, message.text) == ("upay", "1@mail.example", "充值没到账")


async def test_several_mails_in_one_connection_and_lines_that_begin_with_a_dot() -> None:
    accept = Accepting()
    async with serving(accept) as gateway, connected(gateway) as client:
        for number in (1, 2):
            await client.sendmail(SENDER, [SERVICE], mail(number, text="a\r\n.\r\n..b"))
    assert [message.text for message in accept.messages] == ["a\n.\n..b"] * 2


async def test_mail_goes_to_the_brand_whose_address_it_names_and_to_both_when_it_names_both() -> None:
    accept = Accepting()
    async with serving(accept, email_adapter(), email_adapter("topay")) as gateway, connected(gateway) as client:
        await client.sendmail(SENDER, ["Service+vip@Topay.example"], mail(1))
        await client.sendmail(SENDER, [SERVICE, "service@topay.example"], mail(2))
    assert [(message.brand, message.message_id[0]) for message in accept.messages] == [
        ("topay", "1"),
        ("upay", "2"),
        ("topay", "2"),
    ]


@pytest.mark.parametrize(
    "recipient", ["nobody@upay.example", "li@mail.example", "service@upay.example@mail.example", "service"]
)
async def test_never_an_open_relay(recipient: str) -> None:
    accept = Accepting()
    async with serving(accept) as gateway:
        code, _ = await refusal(gateway, mail(), [recipient])
    assert code in (550, 553)
    assert accept.asked == 0


async def test_who_tries_names_is_hung_up_on() -> None:
    async with serving(Accepting()) as gateway, connected(gateway) as client:
        await client.ehlo()
        await client.mail(SENDER)
        codes = []
        for number in range(11):
            with pytest.raises(aiosmtplib.SMTPRecipientRefused) as refused:
                await client.rcpt(f"name{number}@upay.example")
            codes.append(refused.value.code)
        with pytest.raises(aiosmtplib.SMTPServerDisconnected):
            await client.noop()
    assert codes == [550] * 10 + [421]


async def test_too_many_recipients_are_for_another_mail() -> None:
    async with serving(Accepting(), most_recipients=1) as gateway, connected(gateway) as client:
        await client.ehlo()
        await client.mail(SENDER)
        await client.rcpt(SERVICE)
        with pytest.raises(aiosmtplib.SMTPRecipientRefused) as refused:
            await client.rcpt(SERVICE)
    assert refused.value.code == 452


async def test_a_mail_that_is_too_big_is_refused_by_what_it_says_and_by_what_it_is() -> None:
    accept = Accepting()
    async with serving(accept, most_bytes=10_000) as gateway:
        said, _ = await refusal(gateway, mail(text="x" * 20_000))  # aiosmtplib says SIZE
        async with connected(gateway) as client:
            await client.helo()  # without extensions, so without SIZE
            await client.mail(SENDER)
            await client.rcpt(SERVICE)
            with pytest.raises(aiosmtplib.SMTPDataError) as refused:
                await client.data(mail(text="x\r\n" * 7_000))
    assert (said, refused.value.code) == (552, 552)
    assert accept.asked == 0


async def test_bytes_without_an_end_are_cut_off() -> None:
    async with serving(Accepting(), most_bytes=10_000) as gateway:
        reader, writer = await asyncio.open_connection(HOST, gateway.port)
        for line in (b"HELO a", b"MAIL FROM:<a@b.example>", b"RCPT TO:<service@upay.example>", b"DATA"):
            await reader.readline()
            writer.write(line + b"\r\n")
        await reader.readline()
        with pytest.raises(ConnectionError):
            await endless(writer)
        writer.close()


async def endless(writer: asyncio.StreamWriter) -> None:
    for _ in range(400):  # 40 MB
        writer.write(b"x" * 100_000)
        await writer.drain()
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    "error",
    [
        unavailable("Kafka does not answer"),
        TimeoutError(),
        ConnectionRefusedError(),
        InterfaceError("", {}, Exception()),
        DBAPIError("", {}, Exception()),
        PoolTimeoutError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_cannot_be_stored_now_stays_with_its_sender(error: Exception) -> None:
    accept = Accepting()
    accept.error = error
    async with serving(accept) as gateway:
        code, words = await refusal(gateway, mail())
        assert (code, words[:5]) == (451, "4.3.0")
        accept.error = None
        async with connected(gateway) as client:  # the sender tries again
            await client.sendmail(SENDER, [SERVICE], mail())
    assert accept.ids == ["1@mail.example"]


async def test_an_error_of_ours_keeps_the_mail_with_its_sender() -> None:
    accept = Accepting()
    accept.error = KeyError("a mistake")
    async with serving(accept) as gateway:
        assert (await refusal(gateway, mail()))[0] == 451


async def test_a_customer_who_is_too_fast_waits() -> None:
    accept = Accepting()
    accept.error = too_many(5)
    async with serving(accept) as gateway:
        code, words = await refusal(gateway, mail())
    assert (code, words[:5]) == (450, "4.7.0")


async def test_a_message_that_is_never_accepted_goes_back() -> None:
    accept = Accepting()
    accept.error = Problem(422, "Invalid request", "no")
    async with serving(accept) as gateway:
        assert (await refusal(gateway, mail()))[0] == 554


async def test_a_mail_that_cannot_be_read_goes_back_with_the_reason() -> None:
    accept = Accepting()
    nested = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(25))
    async with serving(accept) as gateway:
        code, words = await refusal(gateway, b"From: li@mail.example\r\n" + nested)
    assert (code, words) == (554, "5.6.0 the mail is nested deeper than 20")
    assert accept.asked == 0


async def test_bounces_are_taken_and_counted() -> None:
    accept = Accepting()
    async with serving(accept) as gateway, connected(gateway) as client:
        await client.sendmail("", [SERVICE], mail())
    assert (accept.messages, accept.ignored) == ([], ["bounce"])


async def test_a_client_that_sends_too_much_waits() -> None:
    accept = Accepting()
    async with serving(accept, limiter=RateLimiter(0.001, 1)) as gateway:
        async with connected(gateway) as client:
            await client.sendmail(SENDER, [SERVICE], mail())
        code, _ = await refusal(gateway, mail(2))
    assert code == 450
    assert accept.ids == ["1@mail.example"]


async def test_beyond_the_most_connections_there_is_no_room() -> None:
    async with serving(Accepting(), most_connections=1) as gateway:
        async with connected(gateway):
            with pytest.raises(aiosmtplib.SMTPConnectError, match="too many connections"):
                async with connected(gateway):
                    pass

        async def is_free() -> bool:
            return not gateway.open

        await eventually(is_free, 5)
        async with connected(gateway) as client:
            assert (await client.noop()).code == 250


async def test_a_client_that_says_nothing_is_hung_up_on() -> None:
    async with serving(Accepting(), timeout_seconds=0.2) as gateway:
        reader, writer = await asyncio.open_connection(HOST, gateway.port)
        assert (await reader.readline()).startswith(b"220")
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_a_mail_that_takes_too_long_to_read_is_tried_again() -> None:
    class Slow(EmailAdapter):
        def read_mail(self, raw: bytes, received_at: datetime, envelope: Envelope | None = None) -> Answer:
            time.sleep(0.5)
            return super().read_mail(raw, received_at, envelope)

    accept = Accepting()
    async with serving(accept, Slow("upay", email_adapter().config), parse_seconds=0.05) as gateway:
        assert (await refusal(gateway, mail()))[0] == 451
    assert accept.asked == 0


async def test_stopping_hangs_up_on_a_mail_that_is_not_stored_yet() -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    class Hanging(Accepting):
        async def __call__(self, *arguments: Any) -> None:
            begun.set()
            try:
                await asyncio.sleep(60)
            finally:
                cancelled.set()

    async with serving(Hanging()) as gateway:
        client = aiosmtplib.SMTP(hostname=HOST, port=gateway.port, timeout=10, start_tls=False)
        await client.connect()
        sending = asyncio.create_task(client.sendmail(SENDER, [SERVICE], mail()))
        await asyncio.wait_for(begun.wait(), 5)
    with pytest.raises(aiosmtplib.SMTPServerDisconnected):
        await sending
    assert cancelled.is_set()


async def test_nobody_can_log_in() -> None:
    async with serving(Accepting()) as gateway, connected(gateway) as client:
        await client.ehlo()
        assert not client.supports_extension("auth")  # see also `test_starttls`
        assert client.supports_extension("smtputf8")
        assert client.supports_extension("size")


async def talk(gateway: SmtpGateway, *said: bytes) -> list[bytes]:
    """The answers to what is said, the greeting first."""
    reader, writer = await asyncio.open_connection(HOST, gateway.port)
    answers = [await reader.readline()]
    for line in said:
        writer.write(line + b"\r\n")
        answers.append(await asyncio.wait_for(reader.readline(), 5))
    writer.close()
    return answers


@pytest.mark.parametrize("end", [b"\n.\r\n", b"\n.\n", b"\r.\r\n", b"\r\n.\n"])
async def test_a_mail_smuggled_in_another_is_text(end: bytes) -> None:
    accept = Accepting()
    smuggled = b"x" + end + b"MAIL FROM:<admin@upay.example>\r\nRCPT TO:<service@upay.example>\r\nDATA"
    begin = (b"HELO a", b"MAIL FROM:<a@b.example>", b"RCPT TO:<service@upay.example>", b"DATA")
    async with serving(accept) as gateway:
        answers = await talk(gateway, *begin, mail(1) + smuggled + b"\r\n.", b"NOOP")
    assert [answer[:3] for answer in answers[-3:]] == [b"354", b"250", b"250"]
    (message,) = accept.messages
    assert "MAIL FROM:<admin@upay.example>" in message.text


async def test_starttls(tmp_path: Path) -> None:
    server, trusting = tls_contexts(tmp_path)
    accept = Accepting()
    async with (
        serving(accept, tls=server) as gateway,
        connected(gateway, start_tls=True, tls_context=trusting) as client,
    ):
        await client.sendmail(SENDER, [SERVICE], mail())
        assert not client.supports_extension("auth")
        assert client.get_transport_info("sslcontext") is trusting
    assert accept.ids == ["1@mail.example"]


def tls_contexts(directory: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Of a server with a certificate of its own making, and of a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    chain, secret = directory / "chain.pem", directory / "key.pem"
    chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain, secret)
    client = ssl.create_default_context(cafile=str(chain))
    client.check_hostname = False
    return server, client
