"""JSON values of every kind, for properties; and a comparison that tells 1 from 1.0 and from true."""

from __future__ import annotations

from hypothesis import strategies as st

from hookline.codec import NATIVE

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
INTEGERS = st.integers(-(2**63), 2**64 - 1) | st.sampled_from(
    [sign * (2**power + more) for power in (7, 8, 15, 16, 31, 32, 53, 63) for more in (-1, 0) for sign in (1, -1)]
)
JSON = st.recursive(
    st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=15,
)
FIELD_NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20).filter(
    lambda name: name not in NATIVE and name != "version"
)
"""Names of metadata fields that mean nothing to the engine."""


def nested(depth: int, inner: object = 1) -> object:
    """A value so many lists deep."""
    for _ in range(depth):
        inner = [inner]
    return inner


def same(one: object, other: object) -> bool:
    """Whether two JSON values are the same to the last bit of each number, and in their order of members."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [*one] == [*other] and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and repr(one) == repr(other)
