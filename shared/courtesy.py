"""Whether a customer's message only thanks, confirms or says goodbye, so that nobody need answer it.

The vocabulary is closed: a message is a courtesy when all of it is made up of the phrases below and at least one of
them thanks, confirms or takes leave. Whatever is not listed (a question mark, a digit, a negation, any other word)
makes it a message to be read. So a doubtful message is never a courtesy: reading one too many costs a minute, and
overlooking one loses a customer. For the same reason what may be an answer or a request is not listed: "yes", "no",
"没有", "是的", "麻烦了", "thanks in advance"; nor what turns into its opposite before another phrase: "no problem"
before "solved".

Beside its text, a message tells something by an attachment, and by a subject of its own: `needs_no_answer` looks at all
of it, `is_courtesy` at a text alone. `names_no_matter` is wider: a greeting, too, has nothing to be dealt with.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sized
from itertools import product
from typing import Final

_MOST_CHARACTERS: Final = 120
"""A longer text is taken to tell something, and is not looked at."""


def _combined(*parts: Iterable[str]) -> set[str]:
    return {"".join(chosen) for chosen in product(*parts)}


def _words(listing: str) -> set[str]:
    return set(listing.split())


def _lines(listing: str) -> set[str]:
    return {line.strip() for line in listing.splitlines() if line.strip()}


# The vocabulary, as it stands after `_normalised`: small letters, simplified characters, no apostrophes.

_ZH_WHOM: Final = ("", "你", "您", "你们", "您们", "大家", "客服")
_ZH_TAILS: Final = ("", "了", "啦", "拉", "哦", "噢", "喔", "呀", "啊", "哈", "咯", "哟", "哒", "呐")
_ZH_THANKS: Final = (
    _combined(
        ("", "太", "真的", "非常", "十分", "万分", "特别", "真是太", "真的太", "真的很", "那", "那就"),
        ("谢谢", "感谢", "多谢", "谢", "感激"),
        _ZH_WHOM,
        _ZH_TAILS,
    )
    | _combined(
        ("", "非常", "十分", "真的", "很"),
        ("谢谢", "感谢"),
        ("你", "您", "你们", "您们"),
        ("的",),
        ("", "耐心", "及时", "热心", "热情", "大力", "耐心的", "及时的", "热心的", "热情的"),
        ("帮助", "支持", "解答", "服务", "回复", "答复", "协助", "指导"),
    )
    | _combined(("", "你", "您", "你们", "您们", "大家", "客服"), ("辛苦",), ("", "你", "您", "你们"), ("了", "啦"))
    | _words("感恩 谢谢谢 蟹蟹 谢过 感激不尽 不胜感激 唔该晒 不客气")
)
_ZH_CONFIRMS: Final = (
    _combined(
        ("", "那就"),
        ("好",),
        ("", "的", "滴", "嘞", "哒", "呀", "啊", "哦", "噢", "喔", "啦", "了", "吧", "好", "好好"),
    )
    | _combined(("ok", "okay"), ("了", "啦", "的", "哒", "哦"))
    | _combined(
        ("", "我", "已", "已经", "我已经", "都", "我都"), ("收到", "了解", "明白", "知道", "清楚", "懂"), ("了", "啦")
    )
    | _combined(
        ("", "已", "已经", "问题", "问题已", "问题已经", "都", "都已"), ("解决", "搞定", "处理好"), ("了", "啦")
    )
    | _combined(
        ("", "钱", "款", "钱已", "钱已经", "款已", "退款", "退款已", "退款已经"), ("到账", "收到"), ("了", "啦")
    )
    | _combined(("没", "没有", "没有其他", "没有别的", "没其他", "没别的", "没啥", "没什么"), ("问题了",))
    | _words(
        """
        收到 了解 明白 已收到 已知悉 知悉 已解决 已经解决 问题已解决 问题已经解决 搞定 已到账 已经到账 已经收到 款已到账
        没问题 没事了 没事啦 可以了 可以啦 可以用了 能用了 可以登录了 弄好了 都好了 已经好了 恢复了 恢复正常了 正常了
        行 行的 行吧 行嘞 妥了
        """
    )
)
_ZH_LEAVES: Final = (
    _combined(("再见", "拜拜", "拜", "回见", "晚安"), ("", "了", "啦", "咯", "哦"))
    | _combined(
        ("祝", "祝你", "祝您", "祝你们", "祝大家", ""),
        ("生活愉快", "工作顺利", "工作愉快", "生意兴隆", "周末愉快", "新年快乐", "节日快乐", "一切顺利"),
    )
    | _words("祝好 祝安 祝开心 天天开心")
)
_EN_THANKS: Final = _lines(
    """
    thanks
    thanks again
    thanks all
    thanks you
    thank you
    thank you again
    thank you all
    thank u
    thank ya
    thankyou
    thanku
    thankss
    many thanks
    big thanks
    with thanks
    thanx
    thx
    thnx
    thnks
    tnx
    tks
    ty
    tysm
    tyvm
    cheers
    appreciated
    much appreciated
    appreciate it
    i appreciate it
    i really appreciate it
    really appreciate it
    appreciate your help
    i appreciate your help
    and thanks
    and thank you
    youre welcome
    you are welcome
    you too
    welcome
    """
)
_EN_CONFIRMS: Final = _lines(
    """
    ok
    okay
    okey
    okie
    okk
    oki
    ok then
    okay then
    k
    kk
    alright
    all right
    alrighty
    got it
    i got it
    gotcha
    noted
    well noted
    noted with thanks
    understood
    i understand
    i see
    received
    all good
    all good now
    its all good
    all set
    im all set
    all clear
    all done
    its ok
    its ok now
    its okay
    its fine now
    no worries
    no more questions
    no further questions
    thats all
    that is all
    thats it
    solved
    its solved
    it is solved
    problem solved
    my problem is solved
    the problem is solved
    issue solved
    my issue is solved
    resolved
    its resolved
    it is resolved
    problem resolved
    issue resolved
    my issue is resolved
    the issue is resolved
    fixed
    its fixed
    it is fixed
    fixed now
    works
    it works
    it works now
    it works fine
    it works fine now
    works now
    works fine now
    its working
    its working now
    it is working now
    working now
    that worked
    it worked
    will do
    sounds good
    """
)
_EN_LEAVES: Final = _lines(
    """
    bye
    bye bye
    byebye
    goodbye
    good bye
    and bye
    and goodbye
    good night
    goodnight
    see you
    see ya
    take care
    have a nice day
    have a good day
    have a great day
    have a nice evening
    have a good evening
    have a nice weekend
    have a good weekend
    and have a nice day
    and have a good day
    and have a great day
    """
)
# [强], [抱拳] and their like are what WeChat sends for its own pictures. Not [微笑] and 🙂: they are said in anger.
_EMOJI: Final = set("👍👌🙏🤝👏🌹💐❤💖💕🙇🆗") | _words(
    "[强] [抱拳] [合十] [玫瑰] [握手] [鼓掌] [爱心] [ok] [好的] [thumbsup] [rose] [fist] [worship] [gift]"
)

_ENOUGH: Final = _ZH_THANKS | _ZH_CONFIRMS | _ZH_LEAVES | _EN_THANKS | _EN_CONFIRMS | _EN_LEAVES | _EMOJI
"""Each of these makes a message a courtesy, if there is nothing else in it."""

_BESIDE: Final = (
    _combined(("大家", "客服", "老师", "小姐姐", "小哥哥", "小姐", "亲", "亲爱的", "早上", "下午", "晚上"), ("好",))
    | _words(
        """
        嗯 嗯嗯 嗯呢 嗯嗯嗯 哦 噢 喔 哦哦 噢噢 啊 哈 哈哈 哈哈哈 嘿嘿 嘻嘻 那好 那行 你好 您好 没有了 没事 没关系 打扰了
        太好了 很好 真好 真棒 太棒了 完美 满意 很满意 非常满意 亲 亲亲 亲爱的 客服 老师 小姐姐 小哥哥 小哥
        小姐 大家 么么哒
        """
    )
    | _lines(
        """
        a lot
        a million
        a bunch
        so much
        very much
        so very much
        very very much
        for your help
        for your kind help
        for all your help
        for the help
        for helping
        for helping me
        for your support
        for the support
        for your time
        for your patience
        for your service
        for your assistance
        for your reply
        for your quick reply
        for your fast reply
        for your response
        for your quick response
        for the reply
        for the quick reply
        for the fast reply
        for the response
        for the quick response
        for the update
        for the info
        for the information
        for everything
        hi
        hello
        hey
        dear
        sir
        madam
        team
        support team
        guys
        everyone
        friend
        mate
        buddy
        bro
        oh
        ah
        cool
        best regards
        kind regards
        regards
        nice
        great
        good
        very good
        perfect
        awesome
        amazing
        excellent
        wonderful
        lovely
        fine
        great job
        good job
        well done
        haha
        nothing else
        :)
        :-)
        :d
        ^^
        ^_^
        """
    )
    | set("😊😀😃😄😁😆☺🥰😘😍🤗🎉✨🌟⭐💪😇🥳💯🌸🌷")
    | _words("[愉快] [可爱] [呲牙] [拥抱] [嘿哈] [庆祝] [joyful] [smile] [hug]")
)
"""These add nothing that needs an answer, and are no courtesy by themselves."""

_SEPARATORS: Final = frozenset(" ,.!;~、。-")
_DROPPED: Final = "'\u2019\u2018`\ufe0e\ufe0f\u200d\u200b\ufeff\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"
"""Apostrophes, what is invisible, and the colours of hands."""

_TRADITIONAL: Final = "謝問題沒們幫復覆瞭決經帳賬帐錢處務熱時見愛樂節週順開親師該實滿棒導項妳祝辛錄關係啲"
_SIMPLIFIED: Final = "谢问题没们帮复复了决经账账账钱处务热时见爱乐节周顺开亲师该实满棒导项你祝辛录关系的"
_FOLD: Final[dict[int, str]] = {
    **{ord(character): "" for character in _DROPPED},
    **dict(zip(map(ord, _TRADITIONAL), _SIMPLIFIED, strict=True)),
}


def _by_beginning(phrases: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """First character -> the lengths of the phrases that begin with it, longest first."""
    lengths: dict[str, set[int]] = {}
    for phrase in phrases:
        lengths.setdefault(phrase[0], set()).add(len(phrase))
    return {first: tuple(sorted(found, reverse=True)) for first, found in lengths.items()}


_PHRASES: Final = _ENOUGH | _BESIDE
_OF_A_REPLY: Final = re.compile(r"\s*(?:re|aw|回复|回覆|回復|答复|答覆|答復)\s*[:：]", re.IGNORECASE)
_LENGTHS: Final = _by_beginning(_PHRASES)


def needs_no_answer(text: str, subject: str | None, attachments: Sized) -> bool:
    """Whether a message is a courtesy and nothing else: a subject is that of an earlier mail, or a courtesy too."""
    return not attachments and not _tells_something(subject) and is_courtesy(text)


def names_no_matter(text: str, subject: str | None) -> bool:
    """Whether a message greets, is a courtesy, or both, and says nothing else. A greeting wants an answer, but there is
    nothing in it to be dealt with.
    """
    return not _tells_something(subject) and bool(_phrases(text))


def is_courtesy(text: str) -> bool:
    """Whether `text` only thanks, confirms or says goodbye, in Chinese, English or emoji. In doubt it does not."""
    return not _ENOUGH.isdisjoint(_phrases(text))


def _tells_something(subject: str | None) -> bool:
    return bool(subject and subject.strip() and not (_OF_A_REPLY.match(subject) or is_courtesy(subject)))


def _phrases(text: str) -> list[str]:
    """The phrases that `text` is made up of; none when there is anything else in it."""
    if len(text) > _MOST_CHARACTERS:
        return []
    normalised = _normalised(text)
    found: list[str] = []
    at = 0
    while at < len(normalised):
        end = _end_of_phrase(normalised, at)
        if end > at:
            found.append(normalised[at:end])
            at = end
        elif normalised[at] in _SEPARATORS:
            at += 1
        else:
            return []
    return found


def _normalised(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).lower().translate(_FOLD).split())


def _end_of_phrase(text: str, at: int) -> int:
    """Where the longest phrase that begins at `at` ends. `at` when none does: a phrase ends with a word, not in it."""
    for length in _LENGTHS.get(text[at], ()):
        end = at + length
        if text[at:end] in _PHRASES and not (_is_letter(text[end - 1 : end]) and _is_letter(text[end : end + 1])):
            return end
    return at


def _is_letter(character: str) -> bool:
    return "a" <= character <= "z"


__all__ = ["is_courtesy", "needs_no_answer"]
