"""An immutable map: each version is what a dict would be, and no version changes another."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.fleet.persistentmap import PersistentMap

_STEPS = st.lists(
    st.one_of(
        st.dictionaries(st.integers(0, 79), st.integers(), max_size=5),
        st.sets(st.integers(0, 89), max_size=5),
    ),
    max_size=60,
)


@given(st.integers(0, 80), _STEPS)
def test_every_version_is_what_a_dict_would_be(size: int, steps: list[dict[int, int] | set[int]]) -> None:
    plain = {key: -key for key in range(size)}
    made = PersistentMap(plain)
    versions = [(made, dict(plain))]
    for step in steps:
        if isinstance(step, set):
            made = made.without(step)
            plain = {key: value for key, value in plain.items() if key not in step}
        else:
            changes = {key: value for key, value in step.items() if key in plain}
            made = made.updated(changes)
            plain = {**plain, **changes}
        versions.append((made, plain))
    for found, wanted in versions:
        assert found == wanted
        assert list(found) == list(wanted)
        assert list(found.items()) == list(wanted.items())
        assert list(found.values()) == list(wanted.values())
        assert (len(found), bool(found)) == (len(wanted), bool(wanted))
        assert all((key in found) is (key in wanted) for key in range(-1, 91))


def test_what_is_not_in_it_is_a_key_error() -> None:
    made = PersistentMap({"a": 1, "b": 2}).without(["b", "c"])
    for call in (lambda: made["b"], lambda: made["c"], lambda: made.updated({"b": 3}), lambda: made.updated({"c": 3})):
        with pytest.raises(KeyError):
            call()


def test_what_changed_is_told_in_order() -> None:
    first = PersistentMap({number: [number] for number in range(100)})
    second = first.updated({7: [0], 3: [0]})
    assert second.changed_since(first) == (3, 7)
    assert first.changed_since(first) == ()
    later = second
    for number in range(60):  # over the point where the large dictionary is made anew
        later = later.updated({number: [1]})
    assert later.changed_since(second) == tuple(range(60))
    assert later.changed_since(first) == tuple(range(60))


def test_a_change_costs_no_look_at_the_others() -> None:
    """Generous: copies of the whole take a minute and more."""
    size = 5_000
    made = PersistentMap(dict.fromkeys(range(size), 0))
    began = time.process_time()
    for key in range(size):
        before, made = made, made.updated({key: 1})
        assert made.changed_since(before) == (key,)
    assert time.process_time() - began < 10
    assert set(made.values()) == {1}
