"""A small set of examples in two languages, on matters of another trade than ours."""

from __future__ import annotations

from itertools import product
from typing import Final

from services.classifier.learning.examples import Example

_THINGS: Final = {"en": ("parcel", "sofa", "lamp", "two chairs"), "zh": ("包裹", "沙发", "台灯", "两把椅子")}
_SAID: Final = {
    ("late", "en"): ("where is my {}, it should be here", "my {} is still not delivered", "{} late again!!"),
    ("late", "zh"): ("我的{}怎么还没送来", "{}晚了好几天", "催一下{}，等太久"),
    ("broken", "en"): ("the {} arrived with a crack", "{} is damaged, pls look", "came broken: {}"),
    ("broken", "zh"): ("{}收到就是坏的", "{}裂了一条缝", "打开一看{}破损"),
    ("address", "en"): ("please send the {} to my office", "i moved, new address for the {}", "wrong street on {}"),
    ("address", "zh"): ("{}改送到公司", "我搬家了，{}换个地址", "{}的街道写错"),
}


def examples() -> list[Example]:
    """72 of them, of the labels `address`, `broken` and `late`."""
    return [
        Example(said.format(thing), label, language)
        for (label, language), phrases in _SAID.items()
        for said, thing in product(phrases, _THINGS[language])
    ]


def as_tsv() -> str:
    return "".join(f"{one.text}\t{one.label}\t{one.language}\n" for one in examples())
