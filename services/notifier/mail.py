"""Delivers a notification as a mail."""

from __future__ import annotations

import asyncio
import re
import ssl
from email.headerregistry import Address, BaseHeader, HeaderRegistry, UnstructuredHeader
from email.message import EmailMessage
from email.policy import SMTP, Policy
from email.utils import format_datetime
from typing import Final

import aiosmtplib

from services.notifier.domain.notifications import Kind, Notification
from services.notifier.domain.outputs import Outputs
from services.notifier.domain.retry import Tried, Verdict, judge_smtp_code
from services.notifier.settings import Settings
from shared.taxonomy import Language


class _MessageIds(UnstructuredHeader, BaseHeader):
    """Message-IDs on one line: the standard library writes those that are longer than a line as encoded words, which no
    mail program takes for ids.
    """

    def fold(self, *, policy: Policy) -> str:
        return f"{self.name}: {self}{policy.linesep}"


_HEADERS: Final = HeaderRegistry()
for _name in ("in-reply-to", "references"):
    _HEADERS.map_to_type(_name, _MessageIds)

# Lines of 7 bits: every server takes them, with or without 8BITMIME.
_POLICY: Final = SMTP.clone(cte_type="7bit", header_factory=_HEADERS)
_ENHANCED_CODE: Final = re.compile(r"\b[245]\.\d{1,3}\.\d{1,3}\b")
_OURS_TO_MEND: Final = (
    aiosmtplib.SMTPAuthenticationError,
    aiosmtplib.SMTPConnectResponseError,
    aiosmtplib.SMTPHeloError,
    aiosmtplib.SMTPSenderRefused,
)
"""Refusals that are about our settings and not about this mail: tried again, also when they are called permanent."""


def message_of(notification: Notification, outputs: Outputs) -> EmailMessage:
    """The mail, the same at every try: its Message-ID is derived, so that a mail sent twice can be told."""
    if notification.route is None or notification.brand is None:
        raise ValueError(f"notification {notification.notification_id} has no route")
    brand = outputs.brand(notification.brand)
    name = brand.name.zh if notification.language is Language.ZH else brand.name.en
    message = EmailMessage(policy=_POLICY)
    host = brand.mail_from.partition("@")[2]
    message["Message-ID"] = f"<{_local_id(notification)}@{host}>"
    if answered := notification.data.get("in_reply_to"):
        message["In-Reply-To"] = message["References"] = f"<{answered}>"
    message["Date"] = format_datetime(notification.caused_at)
    message["From"] = Address(display_name=_one_line(name), addr_spec=brand.mail_from)
    message["To"] = Address(addr_spec=notification.route.recipient)
    message["Subject"] = _one_line(notification.subject)
    if notification.kind is not Kind.REPLY:  # RFC 3834: what no person wrote says so, and is not answered by machines
        acknowledges = notification.kind is Kind.ACKNOWLEDGEMENT
        message["Auto-Submitted"] = "auto-replied" if acknowledges else "auto-generated"
        message["X-Auto-Response-Suppress"] = "All"
    message.set_content(notification.text)
    return message


def _local_id(notification: Notification) -> str:
    """What a customer's answer brings back in its References: intake finds the ticket by it, however old it is. A
    reminder has no ticket in it: what a lead answers is no message of the customer.
    """
    if notification.kind in (Kind.ACKNOWLEDGEMENT, Kind.REPLY):
        return f"{notification.ticket_id}.{notification.notification_id}"
    return str(notification.notification_id)


def _one_line(value: str) -> str:
    return " ".join(value.split())


class MailSender:
    def __init__(self, settings: Settings, outputs: Outputs) -> None:
        self._settings = settings
        self._outputs = outputs
        self._tls = ssl.create_default_context() if settings.notifier_smtp_security != "none" else None

    async def send(self, notification: Notification) -> Tried:
        """One try. Never raises for what the server or the network does."""
        settings = self._settings
        timeout_seconds = settings.notifier_delivery_timeout_seconds
        password = settings.notifier_smtp_password
        try:
            async with asyncio.timeout(timeout_seconds):
                await aiosmtplib.send(
                    message_of(notification, self._outputs),
                    hostname=settings.notifier_smtp_host,
                    port=settings.notifier_smtp_port,
                    username=settings.notifier_smtp_username,
                    password=password.get_secret_value() if password else None,
                    use_tls=settings.notifier_smtp_security == "tls",
                    start_tls=settings.notifier_smtp_security == "starttls",
                    tls_context=self._tls,
                    timeout=timeout_seconds,
                )
        except TimeoutError:  # aiosmtplib's own time-out is one, too
            return Tried(Verdict.TRY_AGAIN, f"no answer within {timeout_seconds:g} s")
        except aiosmtplib.SMTPRecipientsRefused as refused:
            return _refused(refused.recipients[0])
        except aiosmtplib.SMTPResponseException as refused:
            return _refused(refused)
        except (aiosmtplib.SMTPException, OSError) as error:
            return Tried(Verdict.TRY_AGAIN, f"no answer: {type(error).__name__}")
        return Tried(Verdict.DELIVERED, "accepted by the mail server")


def _refused(refused: aiosmtplib.SMTPResponseException) -> Tried:
    """The codes only: a server's words may quote the address or the mail."""
    verdict = Verdict.TRY_AGAIN if isinstance(refused, _OURS_TO_MEND) else judge_smtp_code(refused.code)
    enhanced = _ENHANCED_CODE.search(refused.message)
    return Tried(verdict, f"SMTP {refused.code}{f' {enhanced[0]}' if enhanced else ''}")
