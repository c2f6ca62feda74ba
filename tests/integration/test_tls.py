"""HTTPS of a service as it is started: what it refuses, whom it convinces, and a certificate that is renewed."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from pydantic import ValidationError

from deploy.kafka.certificates import Authority
from deploy.processes import HOST, REPOSITORY, Program, free_port
from services.desk.agents import Agent, Role
from services.desk.reports import ReportQuery, Reports
from services.desk.settings import Settings as DeskSettings
from shared.http import Problem
from shared.settings import CommonSettings
from shared.tls import ServerCertificate, authorities_end_at, client_context, ends_at
from shared.yaml_files import ConfigError
from tests.support.waiting import eventually

NAME = "classifier"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def port(authority: Authority, run_directory: Path) -> Iterator[int]:
    """A service without Kafka and database: its HTTP is there all the same."""
    port = free_port()
    both = authority.issue(NAME, address=HOST)
    program = Program(NAME, run_directory / "tls")
    environment = {
        "DATABASE_URL": f"postgresql://nobody@{HOST}:{free_port()}/nothing",
        "KAFKA_BOOTSTRAP_SERVERS": f"{HOST}:{free_port()}",
        "HTTP_PORT": str(port),
        "HTTP_TLS_CERTFILE": str(both),
        "HTTP_TLS_KEYFILE": str(both),
        "KAFKA_SSL_CAFILE": str(authority.certificate),
    }
    program.start([sys.executable, "-m", f"services.{NAME}"], environment=environment, working_directory=REPOSITORY)
    program.wait_until(lambda: _lives(port, authority), 90)
    yield port
    assert program.stop() == 0


def _trusting(authority: Authority) -> ssl.SSLContext:
    return client_context(CommonSettings(http_ca_file=authority.certificate))


def _lives(port: int, authority: Authority) -> bool:
    try:
        httpx.get(f"https://{HOST}:{port}/livez", verify=_trusting(authority), trust_env=False, timeout=10)
    except httpx.TransportError:
        return False
    return True


async def test_https_is_spoken_and_nothing_else(port: int, authority: Authority) -> None:
    async with httpx.AsyncClient(verify=_trusting(authority), trust_env=False, timeout=30) as client:
        answer = await client.get(f"https://{HOST}:{port}/livez")
        metrics = await client.get(f"https://{HOST}:{port}/metrics")
    assert answer.status_code == 200
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    for certificate in ("http", "kafka_ca"):
        series = f'switchyard_certificate_expiry_timestamp_seconds{{certificate="{certificate}",service="{NAME}"}}'
        assert series in metrics.text
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await client.get(f"https://{HOST}:{port}/livez")
        with pytest.raises(httpx.TransportError):
            await client.get(f"http://{HOST}:{port}/livez")


async def test_old_versions_of_tls_are_refused(port: int, authority: Authority) -> None:
    context = ssl.create_default_context(cafile=authority.certificate)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # else it would not even try
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        await asyncio.open_connection(HOST, port, ssl=context)


async def test_a_renewed_certificate_is_shown_without_a_restart(port: int, authority: Authority) -> None:
    before = await _serial(port, authority)
    renewed = _read(authority.issue(NAME, address=HOST)).serial_number
    assert renewed != before
    await eventually(lambda: _shows(port, authority, renewed), 60, 0.5)


def _read(file: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificates(file.read_bytes())[0]


async def _shows(port: int, authority: Authority, serial: int) -> bool:
    return await _serial(port, authority) == serial


async def _serial(port: int, authority: Authority) -> int:
    _, writer = await asyncio.open_connection(HOST, port, ssl=_trusting(authority))
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(shown).serial_number


async def test_the_desk_trusts_a_private_authority_if_it_is_told_to(port: int, authority: Authority) -> None:
    async def refused(**trust: Path) -> str:
        settings = DeskSettings(desk_sla_timer_url=f"https://{HOST}:{port}", desk_sla_timer_token="t", **trust)  # type: ignore[arg-type]
        query = ReportQuery.model_validate({"from": "2026-11-01", "to": "2026-11-02"})
        lead = Agent(id="lead", role=Role.LEAD, token_env="T", queues="all", brands="all")
        with pytest.raises(Problem) as problem:
            await Reports(settings).answer(lead, query)
        return problem.value.detail

    assert "cannot be reached" in await refused()
    assert "answered 404" in await refused(http_ca_file=authority.certificate)


def test_half_a_certificate_is_named() -> None:
    with pytest.raises(ValidationError, match="set both HTTP_TLS_CERTFILE and HTTP_TLS_KEYFILE, or neither"):
        CommonSettings(http_tls_certfile=Path("a.pem"))
    assert CommonSettings(http_tls_certfile="", http_tls_keyfile="").http_tls_certfile is None


def test_what_cannot_be_used_is_named_at_the_start(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    one, another = authority.issue("one", address=HOST), authority.issue("another", address=HOST)
    of_another, not_pem = _without_key(another), tmp_path / "text.pem"
    not_pem.write_text("no PEM")
    for certificate, key in ((of_another, one), (not_pem, one), (tmp_path / "none.pem", one)):
        with pytest.raises(ConfigError, match=certificate.name):
            ServerCertificate(certificate, key)
    locked = tmp_path / "locked.pem"
    encrypted = load_pem_private_key(one.read_bytes(), None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    locked.write_bytes(encrypted)
    with pytest.raises(ConfigError, match="is encrypted"):
        ServerCertificate(one, locked)
    with pytest.raises(ConfigError, match="HTTP_CA_FILE"):
        client_context(CommonSettings(http_ca_file=not_pem))


def test_a_renewal_that_cannot_be_used_leaves_the_old_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority = Authority(tmp_path)
    certificate = tmp_path / "certificate.pem"
    key = authority.issue("one", address=HOST)
    certificate.write_bytes(_without_key(key).read_bytes())
    shown = ServerCertificate(certificate, key)
    ends = shown.ends_at
    another = authority.issue("another", address=HOST)
    certificate.write_bytes(_without_key(another).read_bytes())  # its key is yet to come
    shown.look()
    assert shown.ends_at == ends
    assert "the old one stays" in caplog.text
    key.write_bytes(another.read_bytes())
    shown.look()
    assert shown.ends_at == ends_at(another)
    key.unlink()
    shown.look()  # a link that is being turned


def test_of_authorities_the_last_end_counts_and_of_a_chain_the_first(tmp_path: Path) -> None:
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    both = tmp_path / "both.pem"
    both.write_bytes(new.certificate.read_bytes() + old.certificate.read_bytes())
    ends = [_read(item.certificate).not_valid_after_utc for item in (old, new)]
    assert authorities_end_at(both) == max(ends)
    assert ends_at(both) == ends[1]


def _without_key(both: Path) -> Path:
    path = both.with_suffix(".crt")
    path.write_bytes(_read(both).public_bytes(Encoding.PEM))
    return path
