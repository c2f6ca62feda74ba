"""TLS of our own HTTP: the certificate that a service shows, whom its clients trust, and when what it uses ends."""

from __future__ import annotations

import logging
import ssl
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from shared.settings import CommonSettings
from shared.yaml_files import ConfigError

logger = logging.getLogger(__name__)

LOOK_EVERY_SECONDS: Final = 10.0
"""How often the files of a certificate are looked at: so soon a renewed one is shown."""

HSTS: Final = ("Strict-Transport-Security", "max-age=31536000")
"""Of this host only: what else an installation has below its name is not ours to speak for."""


class ServerCertificate:
    """Certificate and key in two PEM files (or one), and the context that shows them. Raises ConfigError when they
    cannot be used.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = certificate, key
        self._seen = self._stamp()
        self.context = self._loaded(self._new_context())
        self.ends_at = ends_at(certificate)

    def look(self) -> None:
        """Show the files' certificate from the next connection on, if they have changed. What cannot be used is told
        in the log, and the old one stays; it is looked at again, as a renewal writes one file after the other.
        """
        try:
            stamp = self._stamp()
            if stamp == self._seen:
                return
            self._loaded(self._new_context())  # half a pair must not get into the context that is in use
            self._loaded(self.context)
            self.ends_at = ends_at(self._files[0])
        except ConfigError as error:
            logger.error("the certificate that was renewed cannot be used, the old one stays: %s", error)
            return
        self._seen = stamp
        logger.info("the certificate of HTTP was renewed, it ends at %s", self.ends_at)

    def _stamp(self) -> tuple[tuple[int, int, int], ...]:
        # By the target of links: Kubernetes renews a secret by turning one.
        try:
            found = [path.stat() for path in self._files]
        except OSError as error:
            raise ConfigError(f"{error.filename}: cannot be read: {error.strerror}") from None
        return tuple((status.st_ino, status.st_mtime_ns, status.st_size) for status in found)

    @staticmethod
    def _new_context() -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        return context

    def _loaded(self, context: ssl.SSLContext) -> ssl.SSLContext:
        certificate, key = self._files
        try:
            # A key with a password would be asked for at the terminal.
            context.load_cert_chain(certificate, key, password=_no_password)
        except _PasswordAsked:
            raise ConfigError(f"HTTP_TLS_KEYFILE {key}: is encrypted; give it without a password") from None
        except OSError as error:  # of ssl, too: no PEM, or the key of another certificate
            raise ConfigError(
                f"HTTP_TLS_CERTFILE {certificate}, HTTP_TLS_KEYFILE {key}: {error.strerror or error}"
            ) from None
        return context


class _PasswordAsked(Exception):
    pass


def _no_password() -> str:
    raise _PasswordAsked


def server_certificate(settings: CommonSettings) -> ServerCertificate | None:
    """None when the settings name none: then HTTP is plain. Raises ConfigError."""
    if settings.http_tls_certfile is None or settings.http_tls_keyfile is None:
        return None
    return ServerCertificate(settings.http_tls_certfile, settings.http_tls_keyfile)


def client_context(settings: CommonSettings) -> ssl.SSLContext:
    """For HTTPS to others: the system's authorities, and HTTP_CA_FILE's. Raises ConfigError."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.http_ca_file is not None:
        try:
            context.load_verify_locations(settings.http_ca_file)
        except OSError as error:
            raise ConfigError(f"HTTP_CA_FILE {settings.http_ca_file}: {error.strerror or error}") from None
    return context


def ends_at(file: Path) -> datetime:
    """When the first certificate of a PEM file ends: a server's own, with its chain behind it. Raises ConfigError."""
    return _certificates(file)[0].not_valid_after_utc


def authorities_end_at(file: Path) -> datetime:
    """When the last of a PEM file's authorities ends: while an authority is replaced, a file holds both."""
    return max(certificate.not_valid_after_utc for certificate in _certificates(file))


def _certificates(file: Path) -> list[x509.Certificate]:
    """At least one. Raises ConfigError."""
    try:
        return x509.load_pem_x509_certificates(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise ConfigError(f"{file}: holds no certificate in PEM") from None
