"""What of a customer's attachment may be shown to an agent. Pure; the files themselves never come here."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from shared.events import Attachment

_MOST_CHARACTERS: Final = 500
_SCHEMES: Final = frozenset({"https", "http", "mid", "cid"})
_PROVIDERS_OWN: Final = re.compile(r"[a-z][a-z0-9]{1,19}\+?media:[A-Za-z0-9_./=+-]{1,400}")
"""How an adapter writes a provider's id of a file that has no address, e.g. `telegram+media:AgAD...`."""
_RUNNABLE: Final = re.compile(
    r"""(?ix) \.(?:
    ade|adp|apk|app|appx|bat|chm|cmd|com|cpl|dll|dmg|exe|hta|htm|html|img|inf|ins|iso|jar|jnlp|js|jse|lnk|mde
    |msc|msi|msix|msp|mst|pif|ps1|reg|scr|sct|shtml|svg|sys|url|vb|vbe|vbs|vhd|vhdx|wsc|wsf|wsh|xhtml|xll
    )$"""
)
"""Endings of files that do something when they are opened, or show a page of the sender's in the agent's browser."""
_RUNNABLE_TYPE: Final = re.compile(
    r"""(?x)
    application/hta
    | application/java-archive
    | application/javascript
    | application/vnd\.android\.package-archive
    | application/x-msdos-program
    | application/x-msdownload
    | application/x-sh
    | application/xhtml\+xml
    | image/svg\+xml
    | text/html
    | text/javascript
    """
)
BLOCKED_TYPE: Final = "application/x-blocked"
_MEDIA_TYPE: Final = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")


def safe(attachment: Attachment) -> Attachment:
    """The same with a name that shows what it is, a media type that is one, and an address that is safe to follow.

    What an agent's machine would run keeps its name, so that he knows what the customer sent, and loses its address.
    """
    name = safe_name(attachment.name)
    media_type = attachment.media_type.partition(";")[0].strip().lower()
    if not _MEDIA_TYPE.fullmatch(media_type):
        media_type = "application/octet-stream"
    url = attachment.url if attachment.url and _is_followable(attachment.url) else None
    if _RUNNABLE_TYPE.fullmatch(media_type) or _RUNNABLE.search(name):
        media_type, url = BLOCKED_TYPE, None
    return attachment.model_copy(update={"name": name, "media_type": media_type, "url": url})


def safe_name(name: str) -> str:
    """The last part of a path, without characters that hide what a name ends in (RIGHT-TO-LEFT OVERRIDE, controls)."""
    last = re.split(r"[/\\]", name)[-1]
    seen = "".join(character for character in last if unicodedata.category(character) not in ("Cc", "Cf", "Co", "Cs"))
    # Windows drops dots and spaces at the end: "bill.exe." runs as "bill.exe".
    return " ".join(seen.split()).rstrip(". ")[:_MOST_CHARACTERS] or "unnamed"


def _is_followable(url: str) -> bool:
    scheme, colon, _ = url.partition(":")
    return bool(colon) and (scheme.lower() in _SCHEMES or _PROVIDERS_OWN.fullmatch(url) is not None)
