"""What is a courtesy, and what must be read: the second list matters more, each line of it is a customer waiting."""

from __future__ import annotations

import pytest

from shared.courtesy import is_courtesy, names_no_matter, needs_no_answer

COURTESIES = """
谢谢
谢谢！
谢谢。
谢谢~~~
谢谢谢谢
谢谢你
谢谢您啦
多谢
多谢了
感谢
感谢您的耐心解答
非常感谢
太感谢了！！！
真的谢谢你们
谢啦
那谢谢了
谢谢客服小姐姐
好的
好的，谢谢你啦！
好的好的
好滴，谢谢
好嘞
好吧
那就好，谢谢
嗯嗯好的
嗯，收到
哦哦 好的
收到
收到，感谢
已收到 谢谢
知道了
我知道了，谢谢
明白了，多谢
了解
没问题
没问题了 谢谢
没有其他问题了，谢谢
没有了，谢谢
没事了
问题已经解决了，谢谢
已解决
搞定了👍
钱到账了，谢谢
退款已经收到了，感谢！
可以用了，谢谢
辛苦了
您辛苦了，谢谢
大家辛苦了
不客气
再见
拜拜~
谢谢，祝您生活愉快
谢谢 再见
ＯＫ，谢谢
ok了，谢谢
OK的
謝謝您
謝謝，辛苦了
多謝！
感謝您的幫助
好的，問題解決了，謝謝
沒問題了
唔該晒
thanks
Thanks!
THANK YOU
thank you so much
thank you very much for your help
thanks a lot, solved!
Thanks again
many thanks
thx
ty
cheers mate
ok
OK.
Okay, thanks
ok thank you 👍
ok then, bye
got it, thanks
Got it
noted
noted with thanks
understood, thank you
It's solved, thanks!
It’s working now. Thank you!
that's all, thank you
it works now
all good, thanks guys
no worries
bye
Goodbye
thanks and have a nice day
Thank you, have a nice day!
Hi team, thank you for the quick response!
you're welcome
thanks :)
great, thanks
perfect! thank you
谢谢，thank you
ok谢谢
👍
👍👍👍
👍🏽
🙏
👍🙏
❤️
👌
谢谢🌹🌹
好的👌
[强]
谢谢[玫瑰][抱拳]
[OK]
""".strip().splitlines()
COURTESIES += ["收到\n谢谢", "Thank you.\n\nBest regards"]

TO_BE_READ = """
谢谢，但是还没到账
谢谢，还没到账
好的，那什么时候到?
好的，那什么时候到
好的，什么时候
谢谢 还有个问题
谢谢，还有问题
谢谢，另外问一下
谢谢？
好的？
好的吗
好了吗
好了没
解决了吗
解决了没有
到账了吗
到账了没
没到账
没收到
我没收到
没解决
没有解决，谢谢
还没好
不好
不行
不可以
不用了
不用了，谢谢
不明白
不谢谢
不是，谢谢
没有
没有，谢谢
是的
对
嗯
嗯嗯
哦
算了
算了，谢谢
呵呵
呵呵，谢谢
谢谢[微笑]
谢谢🙂
行了
在吗
你好
你好，在吗
大家好
客服好
晚上好
Best regards
麻烦了
好的，麻烦你了
麻烦快点，谢谢
拜托了
先谢谢了
请处理，谢谢
请尽快回复，谢谢
帮我查一下 谢谢
谢谢帮忙
好的，我试试
好的，等你消息
好的，我等等
好的，订单号 20260301
好的 3天
谢谢 1
88
666
3Q
①谢谢
谢谢 ¥
收到 100
收到一条短信
知道了还不处理
谢谢你的服务真差
谢谢你大爷
感谢信
多谢款
好处
好友
行李
拜托
辛苦看一下
快点
投诉
退钱
谢谢 https://example.com
谢谢 a@b.c
thanks but it still fails
thanks for nothing
thanks, but no
thanks in advance
thanks, still waiting
thank you, when will it arrive
thank you?
thanks for your help, one more question
ok, when
ok but why
ok and
ok 2 days
ok?
okey-dokey card
no
no thanks
no, thank you
nope
yes
yes please
yep
sure
not ok
not solved
not ok, thanks
it's not working
its not solved
no problem solved
nothing works
never got it
i never got it
i haven't received it, thanks
did not work
isn't fixed
don't thank me
ok please do
please fix, thanks
please
help
hi
hello
hello?
great
great job
nice
fine
whatever
thanks :(
thanks 😡
thanks 😭
👎
😂
😡
thankless
nicety
kok
thanksgiving
okra
bygone
byebyeness
k1
thanks 12
thanks #5
thanks [card]
[card]
[微笑]
thanks @john
thanks €
thanks %
thanks + more
merci
ありがとう
감사합니다
спасибо
""".strip().splitlines()


@pytest.mark.parametrize("text", COURTESIES)
def test_nobody_need_answer(text: str) -> None:
    assert is_courtesy(text)


@pytest.mark.parametrize("text", TO_BE_READ)
def test_somebody_must_read(text: str) -> None:
    assert not is_courtesy(text)


@pytest.mark.parametrize("text", ["", " ", "\n", "。。。", "!!!", "~", "-", "'", "\u200d", "\ufe0f"])
def test_nothing_said_is_no_courtesy(text: str) -> None:
    assert not is_courtesy(text)


def test_white_space_lines_and_widths_do_not_matter() -> None:
    assert is_courtesy("  ok\t,\r\n THANK   you\u3000\n\n谢谢  ")


def test_a_long_text_is_not_looked_through() -> None:
    assert is_courtesy("谢谢" * 60)
    assert not is_courtesy("谢谢" * 61)


def test_the_tables_are_as_long_as_they_look() -> None:
    assert len(set(COURTESIES)) == len(COURTESIES)
    assert len(set(TO_BE_READ)) == len(TO_BE_READ)


@pytest.mark.parametrize(
    ("text", "subject", "attachments", "expected"),
    [
        ("谢谢", None, (), True),
        ("谢谢", "", (), True),
        ("谢谢", "  ", (), True),
        ("谢谢", None, ("receipt.png",), False),
        ("thanks", "Re: Your top-up", (), True),
        ("thanks", "RE：充值没到账", (), True),
        ("谢谢", "回复: 充值没到账", (), True),
        ("谢谢", "答覆：儲值", (), True),
        ("谢谢", "非常感谢", (), True),
        ("谢谢", "退款没到", (), False),
        ("thanks", "Refund still missing", (), False),
        ("thanks", "Refund", (), False),
        ("thanks", "Fwd: Your top-up", (), False),
        ("thanks but it still fails", "Re: Your top-up", (), False),
        ("", "谢谢", (), False),
    ],
)
def test_a_message_tells_by_its_subject_and_attachments_too(
    text: str, subject: str | None, attachments: tuple[str, ...], expected: bool
) -> None:
    assert needs_no_answer(text, subject, attachments) is expected


@pytest.mark.parametrize(
    ("text", "subject", "expected"),
    [
        ("你好", None, True),
        ("Hello!", None, True),
        ("您好，谢谢", None, True),
        ("ok thank you 👍", "Re: Your top-up", True),
        ("你好", "充值没到账", False),
        ("你好，充值没到账", None, False),
        ("在吗？", None, False),
        ("asdf", None, False),
        ("。。。", None, False),
        ("", None, False),
    ],
)
def test_a_greeting_and_a_courtesy_name_no_matter(text: str, subject: str | None, expected: bool) -> None:
    assert names_no_matter(text, subject) is expected
