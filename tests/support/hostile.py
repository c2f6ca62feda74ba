"""What nobody sends, but anybody could: any JSON, and real documents with one part exchanged for it."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

_numbers = st.integers() | st.floats() | st.sampled_from([0, -1, 10**18, 10**400, 1e308])
_strings = st.text() | st.sampled_from(
    ["", " ", "\x00", "\ud83d", "1" * 300, "好" * 25_000, "https://a.example/" + "x" * 600]
)

json_values = st.recursive(
    st.none() | st.booleans() | _numbers | _strings,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_strings, inner, max_size=4),
    max_leaves=12,
)


@st.composite
def damaged(draw: st.DrawFn, documents: list[Any]) -> Any:
    """One of the documents, with up to three of its parts exchanged for any JSON, or gone."""
    document = copy.deepcopy(draw(st.sampled_from(documents)))
    for _ in range(draw(st.integers(1, 3))):
        places = _places(document)
        if not places:
            break
        holder, key = draw(st.sampled_from(places))
        if isinstance(holder, dict) and draw(st.booleans()):
            del holder[key]
        else:
            holder[key] = draw(json_values)
    return document


def _places(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, dict):
        return [(value, key) for key in value] + [place for inner in value.values() for place in _places(inner)]
    if isinstance(value, list):
        return [(value, at) for at in range(len(value))] + [place for inner in value for place in _places(inner)]
    return []
