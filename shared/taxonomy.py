"""The closed sets everybody agrees on: categories, queues, priorities, channels, languages.

The codes are stable identifiers: they stand in events, in tables and in policies. Display names are per language and
may change. Adding a member is a compatible change; removing or renaming one needs a new version of every event that
carries it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Language(StrEnum):
    ZH = "zh"
    EN = "en"
    OTHER = "other"


class Channel(StrEnum):
    APP_CHAT = "app_chat"
    PHONE = "phone"
    EMAIL = "email"
    WEB_FORM = "web_form"
    WECHAT = "wechat"
    WEIBO = "weibo"
    FACEBOOK = "facebook"
    X = "x"
    WHATSAPP = "whatsapp"
    TELEGRAM = "telegram"


class Priority(StrEnum):
    """P1 is the most urgent. `P1 < P2` as strings, so sorting by value sorts by urgency."""

    P1 = "P1"
    P2 = "P2"
    P3 = "P3"
    P4 = "P4"

    @property
    def level(self) -> int:
        """1 (most urgent) to 4."""
        return int(self.value[1])

    def raised(self, steps: int = 1) -> Priority:
        """`steps` more urgent (negative: less urgent), never beyond P1 or P4."""
        return Priority(f"P{min(4, max(1, self.level - steps))}")

    def more_urgent(self, other: Priority) -> Priority:
        return min(self, other)


class Queue(StrEnum):
    SECURITY = "security"
    ACCESS = "access"
    PAYMENTS = "payments"
    REFUNDS = "refunds"
    GENERAL = "general"
    PROMOTIONS = "promotions"
    TECHNICAL = "technical"
    CREDIT = "credit"
    COMPLAINTS = "complaints"
    TRIAGE = "triage"


class Category(StrEnum):
    ACCOUNT_SECURITY = "account_security"
    ACCOUNT_ACCESS = "account_access"
    PAYMENT_FAILED = "payment_failed"
    MISSING_FUNDS = "missing_funds"
    TOP_UP = "top_up"
    WITHDRAWAL = "withdrawal"
    REFUND = "refund"
    DISPUTE = "dispute"
    BALANCE_STATEMENT = "balance_statement"
    FEES_LIMITS = "fees_limits"
    PROMOTIONS = "promotions"
    CARD_BINDING = "card_binding"
    REGISTRATION_IDENTITY = "registration_identity"
    APP_TECHNICAL = "app_technical"
    CREDIT_WEALTH = "credit_wealth"
    COMPLAINT = "complaint"
    FEEDBACK = "feedback"
    HOW_TO = "how_to"
    OTHER = "other"


class Fact(StrEnum):
    """What an agent needs before he can help; asked of the customer when it is missing."""

    TIME = "time"
    AMOUNT = "amount"
    METHOD = "method"
    ORDER_NO = "order_no"
    MERCHANT = "merchant"
    EVIDENCE = "evidence"
    CONTACT = "contact"  # bound phone number or e-mail, for the identity check
    TRANSACTIONS = "transactions"  # which transactions the customer did not make
    DEVICE = "device"
    APP_VERSION = "app_version"
    ERROR_CODE = "error_code"  # or a screenshot
    CAMPAIGN = "campaign"  # campaign name or promo code


_MONEY: Final = (Fact.TIME, Fact.AMOUNT, Fact.METHOD, Fact.ORDER_NO)


@dataclass(frozen=True, slots=True)
class CategoryInfo:
    """What follows from a category: where it goes, how urgent it starts, what must be known."""

    queue: Queue
    priority: Priority
    zh: str
    en: str
    facts: tuple[Fact, ...] = ()


CATEGORIES: Final = MappingProxyType(
    {
        Category.ACCOUNT_SECURITY: CategoryInfo(
            Queue.SECURITY,
            Priority.P1,
            "账户安全",
            "account security",
            (Fact.TIME, Fact.TRANSACTIONS, Fact.CONTACT),
        ),
        Category.ACCOUNT_ACCESS: CategoryInfo(Queue.ACCESS, Priority.P2, "登录与锁定", "access", (Fact.CONTACT,)),
        Category.PAYMENT_FAILED: CategoryInfo(Queue.PAYMENTS, Priority.P2, "支付失败", "payment failed", _MONEY),
        Category.MISSING_FUNDS: CategoryInfo(Queue.PAYMENTS, Priority.P1, "资金未到账", "money not received", _MONEY),
        Category.TOP_UP: CategoryInfo(Queue.PAYMENTS, Priority.P2, "充值", "top-up", _MONEY),
        Category.WITHDRAWAL: CategoryInfo(Queue.PAYMENTS, Priority.P2, "提现", "withdrawal", _MONEY),
        Category.REFUND: CategoryInfo(Queue.REFUNDS, Priority.P3, "退款", "refund", _MONEY),
        Category.DISPUTE: CategoryInfo(
            Queue.REFUNDS, Priority.P2, "争议", "dispute", (*_MONEY, Fact.MERCHANT, Fact.EVIDENCE)
        ),
        Category.BALANCE_STATEMENT: CategoryInfo(Queue.PAYMENTS, Priority.P3, "余额与账单", "balance and statements"),
        Category.FEES_LIMITS: CategoryInfo(Queue.GENERAL, Priority.P4, "费用与限额", "fees and limits"),
        Category.PROMOTIONS: CategoryInfo(
            Queue.PROMOTIONS, Priority.P4, "优惠活动", "promotions", (Fact.CAMPAIGN, Fact.ORDER_NO)
        ),
        Category.CARD_BINDING: CategoryInfo(Queue.ACCESS, Priority.P3, "绑卡与支付方式", "cards and payment methods"),
        Category.REGISTRATION_IDENTITY: CategoryInfo(
            Queue.ACCESS, Priority.P3, "注册与实名", "registration and identity", (Fact.CONTACT,)
        ),
        Category.APP_TECHNICAL: CategoryInfo(
            Queue.TECHNICAL,
            Priority.P3,
            "应用故障",
            "app fault",
            (Fact.DEVICE, Fact.APP_VERSION, Fact.ERROR_CODE),
        ),
        Category.CREDIT_WEALTH: CategoryInfo(Queue.CREDIT, Priority.P3, "借贷与理财", "credit and wealth"),
        Category.COMPLAINT: CategoryInfo(Queue.COMPLAINTS, Priority.P2, "投诉", "complaint"),
        Category.FEEDBACK: CategoryInfo(Queue.GENERAL, Priority.P4, "意见建议", "feedback"),
        Category.HOW_TO: CategoryInfo(Queue.GENERAL, Priority.P4, "使用咨询", "how to use"),
        Category.OTHER: CategoryInfo(Queue.GENERAL, Priority.P4, "其他", "other"),
    }
)

QUEUE_NAMES: Final = MappingProxyType(
    {
        Queue.SECURITY: ("账户安全", "Security"),
        Queue.ACCESS: ("登录与账户", "Access"),
        Queue.PAYMENTS: ("支付与资金", "Payments"),
        Queue.REFUNDS: ("退款与争议", "Refunds"),
        Queue.GENERAL: ("综合咨询", "General"),
        Queue.PROMOTIONS: ("优惠活动", "Promotions"),
        Queue.TECHNICAL: ("技术故障", "Technical"),
        Queue.CREDIT: ("借贷与理财", "Credit"),
        Queue.COMPLAINTS: ("投诉", "Complaints"),
        Queue.TRIAGE: ("人工分拣", "Triage"),
    }
)
"""Display names (zh, en)."""
