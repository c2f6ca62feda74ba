"""Numbers and names that point at something: order, phone, e-mail, device, error code, version, campaign."""

from __future__ import annotations

import re
from typing import Final

_EMAIL: Final = re.compile(r"[a-z0-9._%+-]{1,64}@[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63})*\.[a-z]{2,24}(?![a-z0-9])")
_CN_MOBILE: Final = re.compile(r"(?<![\d.])(?:(?:\+|00)?86[-\s]?)?(1[3-9]\d)[-\s]?(\d{4})[-\s]?(\d{4})(?!\d)")
_FOREIGN: Final = re.compile(r"(?<![\d+])(?:\+|00(?=[1-9]))\d{1,3}(?:[-\s().]{0,3}\d{1,4}){2,6}(?!\d)")
# Without a country, only what is called a phone number is one.
_CALLED_PHONE: Final = re.compile(
    r"(?:手机号?码?|电话号?码?|联系方式|whatsapp|(?:phone|mobile|telephone|cell|contact|my)(?:\s*(?:number|no\.?))|phone|mobile|tel)"
    r"\s*(?:[:：=]|是|为|系|is|\s){0,3}\(?(?P<phone>\d{2,5}(?:[-\s()]{0,2}\d{2,8}){1,4})(?![\w*-])"
)
_ORDER: Final = re.compile(
    r"(?:订单号?码?|订单编号|交易单?号|交易编号|流水号|单号|凭证号|退款编号|参考号|order|transaction|reference|ref|txn|invoice|receipt|ticket)"
    r"(?:\s*(?:no|number|num|id|code|#))?\s*(?:[.:#=]|是|为|is|\s){0,4}(?P<order>[a-z]{0,6}[-_]?\d[a-z0-9_-]{4,39})(?![\w-])"
)
_LONG_ORDER: Final = re.compile(
    r"(?<![\d*-])(20\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{8,24})(?![\d*-])|(?<!\w)(0x[0-9a-f]{40,64})(?!\w)"
)
_ERROR: Final = re.compile(
    r"(?:错误代?码|错误号|报错|错误|代码|提示码?|error(?:\s*code)?|err|code)\s*(?:[.:#=]|是|为|is|no|\s){0,3}[\[(\"“]?"
    r"(?P<error>(?=[a-z_-]{0,16}\d)[a-z]{0,10}[-_]?[0-9a-f][0-9a-z_-]{1,15}|\d{3,12}[a-z]?\d{0,3}|[a-z]{1,24}(?:_[a-z]{1,24}){1,6})(?![\w])"
)
_BRACKETED: Final = re.compile(r"[\[(]\s*(?P<error>(?=[a-z_-]{0,8}\d)[a-z]{0,6}[-_]?\d{4,10}[a-z]?\d{0,2})\s*[\])]")
_NAMED_ERROR: Final = re.compile(
    r"(?<![A-Za-z_])(?P<error>[A-Z]{3,}(?:_[A-Z0-9]+){1,6}|err(?:or)?(?:_[a-z0-9]+){1,6}"
    r"|(?:ERR|E|HTTP)[-_ ]?\d{3,8})(?![A-Za-z_0-9])"
)
_NOT_AN_ERROR: Final = re.compile(
    r"(?:验证码?|密码|优惠|兑换|邀请|折扣|promo|discount|coupon|voucher|verification|referral|security|zip|post|sms|area|country|dialing)\s*$"
)
_VERSION: Final = re.compile(
    r"(?:版本号?|app|client|version|ver\.?|客户端|软件|(?:更新|升级)到了?|(?:updated?|upgraded?) to|(?<![a-z])v)"
    r"\s*(?:[:是为]|is|\s){0,3}v?(?P<version>\d{1,3}(?:\.\d{1,4}){1,3})(?![\d.]*\d)"
)
# "iOS版本17.4" is that of the system.
_SYSTEM_BEFORE: Final = re.compile(r"(?:ios|android|安卓|鸿蒙|harmonyos|hyperos|miui|系统|windows|macos)\s*\Z")
_DEVICE: Final = re.compile(
    r"(?<![a-z])(?P<device>"
    r"(?:iphone|ipad)(?:\s?(?:\d{1,2}[a-z]?|x[rs]?|se|air|mini|pro|plus|max)){0,4}"
    r"|(?:华为|huawei|荣耀|honor|小米|xiaomi|红米|redmi|oppo|vivo|一加|oneplus|三星|samsung|galaxy|魅族|meizu|realme|pixel|moto|motorola|sony|nokia|lg|htc|中兴|zte|联想)"
    r"(?!\s*(?:pay|钱包|wallet|支付|卡|商城|商店|专卖|官网|应用|公司|客服|店|云|store))(?:\s?(?:手机|galaxy|mate|nova|note|reno|find|mi|mix|magic|pura|redmi|xperia|nord)|\s?[a-z]{0,2}\d{1,3}[a-z]{0,2}|\s?(?:pro|plus|max|ultra|lite|fold|flip)){0,4}"
    r"|安卓手机|(?:ios|android|安卓|鸿蒙|harmonyos|hyperos|miui|windows|macos)(?:\s?(?:系统|版本|version)?\s?\d{1,2}(?:\.\d{1,2}){0,2})?"
    r"|苹果\s?(?:手机|\d{1,2}(?![\d个斤元块折]))(?:\s?(?:pro|plus|max|mini)){0,2}|(?:苹果|安卓)系统|mac\s?book(?:\s?(?:pro|air))?"
    r")(?![a-z])"
)
_CAMPAIGN: Final = re.compile(
    r"(?:优惠码|兑换码|折扣码|邀请码|活动码|promo\s*code|discount\s*code|coupon\s*code|voucher\s*code|referral\s*code|coupon|voucher|promo)"
    r"\s*(?:[:#=]|是|为|is|\s){0,3}[\"“'「]?(?P<campaign>(?=[a-z0-9-]*\d)[a-z0-9][a-z0-9-]{2,23})(?![a-z0-9])"
    r"|[“\"「《](?P<named>[^”\"」》]{2,30})[”\"」》]\s*(?:的)?(?:活动|优惠|红包|campaign|promotion|offer)"
)
_MERCHANT: Final = re.compile(
    r"(?:商家|商户|店铺|卖家|merchant|seller|shop|store)\s*(?:名称?|name)?\s*(?:[:=]|叫|是叫|called|named)\s*[\"“「]?(?P<merchant>[^\s,.，。;；!?！？\"”」]{2,30})"
)

_FEWEST_DIGITS: Final = 7
_MOST_DIGITS: Final = 12

Found = tuple[str, int, int]
"""Value, start, end."""


def email(folded: str, text: str) -> Found | None:
    if "@" not in folded:
        return None
    match = _EMAIL.search(folded)
    return (match[0], match.start(), match.end()) if match else None


def phone(folded: str) -> Found | None:
    """E.164: a number of eleven digits that begins 13 to 19 is a mobile of mainland China. One that is told without its
    country is given as its digits.
    """
    if match := _CN_MOBILE.search(folded):
        return f"+86{match[1]}{match[2]}{match[3]}", match.start(), match.end()
    for match in _FOREIGN.finditer(folded):
        if (value := _international(match[0])) is not None:
            return value, match.start(), match.end()
    for match in _CALLED_PHONE.finditer(folded):
        digits = re.sub(r"\D", "", match["phone"])
        if _FEWEST_DIGITS <= len(digits) <= _MOST_DIGITS:
            return digits, *match.span("phone")
    return None


def _international(written: str) -> str | None:
    import phonenumbers  # 75 ms, for the few who tell a number of another country

    try:
        number = phonenumbers.parse("+" + written.removeprefix("+").removeprefix("00"))
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_possible_number(number):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def order_no(folded: str, text: str) -> Found | None:
    if match := _ORDER.search(folded):
        return _group(match, "order", text)
    if match := _LONG_ORDER.search(folded):
        return text[match.start() : match.end()], match.start(), match.end()
    return None


def error_code(folded: str, text: str) -> Found | None:
    """Codes are written in capitals by the systems that give them, and kept so."""
    for pattern, subject in ((_ERROR, folded), (_BRACKETED, folded), (_NAMED_ERROR, text)):
        for match in pattern.finditer(subject):
            if not _NOT_AN_ERROR.search(folded, max(0, match.start() - 14), match.start()):
                value, start, end = _group(match, "error", text)
                return value.upper(), start, end
    return None


def app_version(folded: str, text: str) -> Found | None:
    if "." not in folded:
        return None
    for match in _VERSION.finditer(folded):
        if not _SYSTEM_BEFORE.search(folded, max(0, match.start() - 16), match.start()):
            return _group(match, "version", text)
    return None


def device(folded: str, text: str) -> Found | None:
    """Device and system together where both are named: `iPhone 13, iOS 17.1`."""
    found = list(_DEVICE.finditer(folded))[:3]
    if not found:
        return None
    names: dict[str, int] = {}  # and where each was first told in full
    for match in found:
        names.setdefault(" ".join(text[match.start() : match.end()].split()), match.end())
    return ", ".join(names), found[0].start(), max(names.values())


def campaign(folded: str, text: str) -> Found | None:
    if match := _CAMPAIGN.search(folded):
        value, start, end = _group(match, "campaign" if match["campaign"] else "named", text)
        return (value.upper() if match["campaign"] else value), start, end
    return None


def merchant(folded: str, text: str) -> Found | None:
    if match := _MERCHANT.search(folded):
        return _group(match, "merchant", text)
    return None


def _group(match: re.Match[str], name: str, text: str) -> Found:
    start, end = match.span(name)
    return text[start:end], start, end
