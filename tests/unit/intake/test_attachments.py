"""What of an attachment an agent is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.intake.attachments import BLOCKED_TYPE, safe, safe_name
from shared.events import Attachment


@pytest.mark.parametrize(
    ("given_name", "shown"),
    [
        ("截图.png", "截图.png"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\bill.pdf", "bill.pdf"),
        ("invoice\u202efdp.exe", "invoicefdp.exe"),
        ("a\tb\n.png", "ab.png"),
        ("bill.exe. .", "bill.exe"),
        ("  ", "unnamed"),
        ("\u200b", "unnamed"),
    ],
)
def test_a_name_shows_what_it_ends_in(given_name: str, shown: str) -> None:
    assert safe_name(given_name) == shown


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("bill.pdf.exe", "application/pdf"),
        ("photo.JPG.js", "image/jpeg"),
        ("wallet.apk", "application/octet-stream"),
        ("receipt", "text/html; charset=utf-8"),
        ("logo.png", "image/svg+xml"),
        ("\u202egnp.scr", "image/png"),
    ],
)
def test_what_would_run_is_named_and_leads_nowhere(name: str, media_type: str) -> None:
    shown = safe(Attachment(name=name, media_type=media_type, url="https://files.example.com/1"))
    assert (shown.media_type, shown.url) == (BLOCKED_TYPE, None)
    assert shown.name == safe_name(name)


@pytest.mark.parametrize(
    "url",
    ["https://files.example.com/1.png", "mid:abc@example.com/2", "telegram+media:AgACAgUAAx0", "wechatmedia:a_b-c"],
)
def test_an_address_that_is_safe_to_follow_stays(url: str) -> None:
    assert safe(Attachment(name="1.png", media_type="image/png", url=url)).url == url


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", "/relative", ""])
def test_an_address_that_is_not_goes(url: str) -> None:
    assert safe(Attachment(name="1.png", media_type="image/png", url=url)).url is None


def test_a_media_type_that_is_none_becomes_the_general_one() -> None:
    assert safe(Attachment(name="x", media_type="<b>png</b>")).media_type == "application/octet-stream"


@given(st.builds(Attachment, name=st.text(max_size=500), media_type=st.text(max_size=100), url=st.text(max_size=100)))
def test_doing_it_twice_changes_nothing_more(attachment: Attachment) -> None:
    once = safe(attachment)
    assert safe(once) == once
    assert once.name == once.name.strip()
    assert not set("/\\\u202e") & set(once.name)
