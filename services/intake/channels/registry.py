"""All adapters, by the name of their provider."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final

from services.intake.channels.app_chat import AppChat
from services.intake.channels.base import Adapter
from services.intake.channels.email import EmailAdapter
from services.intake.channels.messenger import Messenger
from services.intake.channels.phone import Phone
from services.intake.channels.telegram import Telegram
from services.intake.channels.web_form import WebForm
from services.intake.channels.wechat import WeChat
from services.intake.channels.weibo import Weibo
from services.intake.channels.whatsapp import WhatsApp
from services.intake.channels.x import X

_ALL: Final[tuple[type[Adapter[Any]], ...]] = (
    AppChat,
    EmailAdapter,
    Messenger,
    Phone,
    Telegram,
    WeChat,
    Weibo,
    WhatsApp,
    X,
    WebForm,
)
ADAPTERS: Final = MappingProxyType({adapter.provider: adapter for adapter in _ALL})
