"""A courtesy stays one only as long as nothing is added that somebody might have to answer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shared.courtesy import is_courtesy
from tests.unit.shared.test_courtesy import COURTESIES

_COURTESIES = st.sampled_from(COURTESIES)
_GAPS = st.sampled_from(["", " ", "，", ", ", "。", "!", "\n"])
_WORDS = st.sampled_from(
    """
    still not no when why where failed missing waiting question refund card money password help please but however yet
    never wrong broken urgent asap call
    还 没 未 不 别 无 非 但 但是 可是 为什么 什么 怎么 哪 谁 几 吗 呢 么 何时 问题 钱 卡 退款 充值 提现 失败 错误 冻结
    密码 帮 请 急 投诉 骗 再 又 仍 仍然 订单 请问
    """.split()  # noqa: SIM905 - as a list it would be sixty lines
)
_MARKS = st.one_of(
    st.sampled_from("?？0123456789٣三五十$￥€%@#/\\&*=<>|"),
    st.characters(categories=["Nd", "No", "Sc"]),
)


@given(_COURTESIES, _COURTESIES, _GAPS.filter(bool))
def test_two_courtesies_are_one(first: str, second: str, gap: str) -> None:
    assert is_courtesy(first + gap + second)


@given(_COURTESIES, _WORDS, _GAPS.filter(bool), st.booleans())
def test_any_other_word_must_be_read(courtesy: str, word: str, gap: str, first: bool) -> None:
    assert not is_courtesy(word + gap + courtesy if first else courtesy + gap + word)


@given(_COURTESIES, _MARKS, st.data())
def test_a_digit_or_a_question_mark_anywhere_must_be_read(courtesy: str, mark: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(courtesy)))
    assert not is_courtesy(courtesy[:at] + mark + courtesy[at:])


@given(st.text(max_size=100))
def test_any_text_has_an_answer_and_its_margins_do_not_change_it(text: str) -> None:
    assert is_courtesy(f"\n{text}\u3000") == is_courtesy(text)


@given(st.lists(st.sampled_from("谢好的了没不吗到账收问题解决 thanksoknow'.,!？?1"), max_size=12).map("".join))
def test_a_courtesy_never_asks_or_counts(text: str) -> None:
    assert not (is_courtesy(text) and (set(text) & set("?？1吗不")))
