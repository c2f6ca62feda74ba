"""The page of our own web form, and the one after it. Pure; no script, everything that somebody typed is escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Iterable, Mapping
from html import escape
from typing import Final, Literal

from shared.taxonomy import QUEUE_NAMES, Queue

PageLanguage = Literal["zh", "en"]
HONEYPOT: Final = "leave_empty"
"""A field that people do not see. Programs fill in everything."""

_STYLE: Final = """
:root { color-scheme: light dark; --ground: #f4f6fa; --surface: #fff; --line: #c9d1de; --ink: #17202e; --soft: #5a6678;
  --accent: #1f4fd8; --accent-ink: #fff; --bad: #b4232a; --bad-ground: #fde8e8; --good: #12794a; }
@media (prefers-color-scheme: dark) { :root { --ground: #0f141b; --surface: #18202b; --line: #3a4658; --ink: #e8edf4;
  --soft: #a7b2c2; --accent: #6d97ff; --accent-ink: #0b1220; --bad: #ff8f93; --bad-ground: #43191d; --good: #63d3a0; } }
* { box-sizing: border-box; }
body { margin: 0; padding: 1.5rem 1rem; background: var(--ground); color: var(--ink); overflow-wrap: anywhere;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC",
  sans-serif; }
main { max-width: 36rem; margin: 0 auto; padding: 1.5rem; background: var(--surface); border: 1px solid var(--line);
  border-radius: 14px; }
h1 { margin: 0 0 .4rem; font-size: 1.35rem; }
p { margin: 0; }
.hint { color: var(--soft); font-size: .9rem; }
label { display: block; margin: 1rem 0 .3rem; font-weight: 600; }
input, select, textarea { width: 100%; padding: .55rem .7rem; border: 1px solid var(--soft); border-radius: 8px;
  font: inherit; color: var(--ink); background: var(--ground); }
textarea { min-height: 9rem; resize: vertical; }
[aria-invalid] { border-color: var(--bad); }
.fault { margin-top: .25rem; color: var(--bad); font-size: .9rem; }
.notice { margin: 1rem 0 0; padding: .6rem .9rem; border-radius: 8px; color: var(--bad);
  background: var(--bad-ground); }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 0 1rem; align-items: start; }
@media (max-width: 30rem) { .pair { display: block; } main { padding: 1.1rem; } }
button { width: 100%; margin-top: 1.25rem; padding: .7rem; border: 0; border-radius: 8px; font: inherit;
  font-weight: 600; color: var(--accent-ink); background: var(--accent); cursor: pointer; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.done { color: var(--good); }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
"""
STYLE_SOURCE: Final = f"'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'"
"""The one style that these pages have, for their Content-Security-Policy."""

_ZH: Final = {
    "title": "联系客服",
    "intro": "请填写以下内容，我们会尽快回复您。",
    "name": "姓名",
    "email": "电子邮箱",
    "phone": "手机号码",
    "contact": "邮箱和手机号码至少填写一项。",
    "category": "问题类型",
    "choose": "请选择",
    "order_no": "订单号",
    "subject": "主题",
    "message": "问题描述",
    "secrets": "请勿填写密码、验证码或完整卡号。",
    "send": "提交",
    "empty": "请勿填写此项",
    "done": "已收到您的留言",
    "by_mail": "确认邮件将发送至您的邮箱，我们会在邮件中回复您。",
    "by_phone": "我们会通过您留下的手机号码与您联系并确认。",
    "again": "再写一条",
    "faults": "请检查标出的内容，您已填写的内容都已保留。",
    "too_soon": "提交得太快了，请再点一次“提交”。",
    "expired": "页面打开时间过长，请再点一次“提交”，您已填写的内容都已保留。",
    "fault_email": "请填写有效的邮箱地址，例如 name@example.com。",
    "fault_phone": "请填写有效的手机号码，国外号码请以 + 和国家代码开头。",
    "fault_contact": "请填写邮箱或手机号码，以便我们回复您。",
    "fault_message": "请描述您的问题。",
    "fault_attachment_url": "请填写以 http 开头的有效网址。",
}
_EN: Final = {
    "title": "Contact customer service",
    "intro": "Tell us what happened. We answer as soon as we can.",
    "name": "Name",
    "email": "E-mail",
    "phone": "Phone number",
    "contact": "We need an e-mail address or a phone number to answer.",
    "category": "What it is about",
    "choose": "Please choose",
    "order_no": "Order number",
    "subject": "Subject",
    "message": "Message",
    "secrets": "Please never enter passwords, codes or full card numbers.",
    "send": "Send",
    "empty": "Leave this empty",
    "done": "We have your message",
    "by_mail": "A confirmation comes to your e-mail address, and so does our answer.",
    "by_phone": "We will confirm it and answer by the phone number that you gave.",
    "again": "Write another message",
    "faults": "Please look at the marked fields. What you have entered is kept.",
    "too_soon": "That was very quick. Please press “Send” once more.",
    "expired": "The page has been open for long. Please press “Send” once more; what you have entered is kept.",
    "fault_email": "Enter a valid e-mail address, such as name@example.com.",
    "fault_phone": "Enter a valid phone number; one from abroad starts with + and the country code.",
    "fault_contact": "Enter an e-mail address or a phone number, so that we can answer.",
    "fault_message": "Please describe what happened.",
    "fault_attachment_url": "Enter a valid address that starts with http.",
}
_WORDS: Final[Mapping[PageLanguage, Mapping[str, str]]] = {"zh": _ZH, "en": _EN}


def label_of(category: str, language: PageLanguage) -> str:
    """What the form calls a choice; anything else as it is."""
    return dict(_choices(language)).get(category, category)


def order_line(order_no: str, language: PageLanguage) -> str:
    return f"订单号：{order_no}" if language == "zh" else f"Order number: {order_no}"


def form_page(
    language: PageLanguage,
    token: str,
    values: Mapping[str, str],
    faults: Collection[str] = (),
    notice: Literal["too_soon", "expired"] | None = None,
) -> str:
    """The form, with what was entered. `faults`: names of fields that are wrong; `contact`: neither of the two."""
    words = _WORDS[language]
    notes = [words["faults"]] if faults else []
    notes += [words[notice]] if notice else []

    def described(name: str, hint: str = "") -> tuple[str, str]:
        """Attributes of a field, and what stands below it."""
        shown = [("fault", words[f"fault_{name}"])] if name in faults else []
        shown += [("hint", hint)] if hint else []
        below = "".join(f'<p class="{kind}" id="{name}-{kind}">{escape(text)}</p>' for kind, text in shown)
        ids = [f"{name}-{kind}" for kind, _ in shown]
        is_wrong = name in faults
        if name in ("email", "phone"):
            ids.append("contact")
            is_wrong = is_wrong or "contact" in faults
        attributes = f' aria-describedby="{" ".join(ids)}"' if ids else ""
        return attributes + (' aria-invalid="true"' if is_wrong else ""), below

    def line(name: str, kind: str, autocomplete: str, most: int) -> str:
        attributes, below = described(name)
        return (
            f'<div><label for="{name}">{escape(words[name])}</label>'
            f'<input id="{name}" name="{name}" type="{kind}" autocomplete="{autocomplete}" maxlength="{most}"'
            f' value="{escape(values.get(name, ""))}"{attributes}>{below}</div>'
        )

    options = "".join(
        f'<option value="{code}"{" selected" if values.get("category") == code else ""}>{escape(name)}</option>'
        for code, name in _choices(language)
    )
    attributes, below = described("message", words["secrets"])
    contact = ("fault", "fault_contact") if "contact" in faults else ("hint", "contact")
    body = (
        f"<h1>{escape(words['title'])}</h1><p class='hint'>{escape(words['intro'])}</p>"
        + "".join(f'<p class="notice" role="alert">{escape(note)}</p>' for note in notes)
        + '<form method="post" accept-charset="utf-8">'
        # Browsers put back what a page held before: not this, it is used once.
        f'<input type="hidden" name="token" value="{escape(token)}" autocomplete="off">'
        f'<input type="hidden" name="lang" value="{language}">'
        f'<div class="unseen" aria-hidden="true"><label for="{HONEYPOT}">{escape(words["empty"])}</label>'
        f'<input id="{HONEYPOT}" name="{HONEYPOT}" tabindex="-1" autocomplete="off"></div>'
        + line("name", "text", "name", 100)
        + f'<div class="pair">{line("email", "email", "email", 200)}{line("phone", "tel", "tel", 40)}</div>'
        + f'<p class="{contact[0]}" id="contact">{escape(words[contact[1]])}</p>'
        + f'<div class="pair"><div><label for="category">{escape(words["category"])}</label>'
        f'<select id="category" name="category"><option value="">{escape(words["choose"])}</option>{options}</select>'
        f"</div>{line('order_no', 'text', 'off', 100)}</div>"
        + line("subject", "text", "off", 200)
        + f'<label for="message">{escape(words["message"])}</label>'
        f'<textarea id="message" name="message" required maxlength="10000"{attributes}>'
        # The first line break after the tag is not part of the text.
        f"\n{escape(values.get('message', ''))}</textarea>{below}"
        f'<button type="submit">{escape(words["send"])}</button></form>'
    )
    return _page(language, words["title"], body)


def thanks_page(language: PageLanguage, *, by_mail: bool) -> str:
    words = _WORDS[language]
    body = (
        f'<h1 class="done">{escape(words["done"])}</h1><p>{escape(words["by_mail" if by_mail else "by_phone"])}</p>'
        f'<p class="hint"><a href="?lang={language}">{escape(words["again"])}</a></p>'
    )
    return _page(language, words["done"], body)


def _choices(language: PageLanguage) -> Iterable[tuple[str, str]]:
    for queue, (zh, en) in QUEUE_NAMES.items():
        if queue is not Queue.TRIAGE:
            yield queue.value, zh if language == "zh" else en


def _page(language: PageLanguage, title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="{language}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>{body}</main></body></html>"
    )
