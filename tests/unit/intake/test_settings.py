"""What intake's settings refuse, by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from services.intake.settings import Settings
from shared.yaml_files import ConfigError


def test_half_a_certificate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="both INTAKE_SMTP_TLS_CERTIFICATE and INTAKE_SMTP_TLS_KEY"):
        Settings(intake_smtp_tls_certificate=tmp_path / "certificate.pem")


@pytest.mark.parametrize("content", [None, "no PEM"], ids=["missing", "not PEM"])
def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "certificate.pem"
    if content is not None:
        file.write_text(content)
    settings = Settings(intake_smtp_tls_certificate=file, intake_smtp_tls_key=file)
    with pytest.raises(ConfigError, match="INTAKE_SMTP_TLS_CERTIFICATE"):
        assert settings.smtp_tls


def test_without_a_certificate_there_is_no_starttls() -> None:
    assert Settings().smtp_tls is None


def test_both_secrets_of_replies_count_while_one_is_changed() -> None:
    given = Settings(intake_replies_secret="new", intake_replies_secret_previous="")
    assert [secret.get_secret_value() for secret in given.replies_secrets] == ["new"]
