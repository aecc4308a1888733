"""Which facts a node sends: own ones, allowed ones, and none over a cap."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.fleet.factrules import choose_facts
from deploykit.settings.facts import MAX_FACTS, MAX_VALUE
from deploykit.wire.strictjson import within_limits

FOUND = {
    "env": "live",
    "os": {"name": "Debian", "release": {"major": "12", "full": "12.7"}},
    "roles": ["web", "cache"],
    "secret": "canary",
}


def test_by_default_only_own_facts_are_sent() -> None:
    assert choose_facts({"rack": "b4"}, FOUND, ()).facts == {"rack": "b4"}


@pytest.mark.parametrize(
    ("allow", "facts"),
    [
        (("env",), {"env": "live"}),
        (("os",), {"os": FOUND["os"]}),
        (("os.name",), {"os": {"name": "Debian"}}),
        (("os.release.*",), {"os": {"release": {"major": "12", "full": "12.7"}}}),
        (("os.*.major", "r?les"), {"os": {"release": {"major": "12"}}, "roles": ["web", "cache"]}),
        (("[a-o]*",), {"env": "live", "os": FOUND["os"]}),
        (("*",), FOUND),
        (("ENV", "o"), {}),
    ],
)
def test_a_pattern_allows_a_name_a_path_or_all_below_it(allow: tuple[str, ...], facts: object) -> None:
    assert choose_facts({}, FOUND, allow).facts == facts


def test_an_own_fact_replaces_one_of_the_same_name_whole_and_comes_first() -> None:
    chosen = choose_facts({"os": "mine", "z": 1}, FOUND, ("*",))
    assert chosen.facts["os"] == "mine"
    assert list(chosen.facts)[:2] == ["os", "z"]


def test_a_fact_without_a_value_is_none() -> None:
    assert choose_facts({}, {"a": None, "b": {}, "c": False, "d": ""}, ("*",)).facts == {"c": False, "d": ""}


def test_what_is_over_a_cap_is_left_out_whole_and_named() -> None:
    found = {
        "long": "x" * (MAX_VALUE + 1),
        "longer": "x" * (1 << 20),
        "emoji": "\U0001f600" * 300,
        "list": list(range(1000)),
        "control\x1b[31m": "x",
        "nan": float("nan"),
        "huge": 10**400,
        "bytes": b"x",
        "half": "\ud800",
        "fits": "x" * (MAX_VALUE - 2),
    }
    chosen = choose_facts({}, found, ("*",))
    assert set(chosen.facts) == {"fits"}
    cut = "\n".join(chosen.cut)
    for name in set(found) - {"fits", "control\x1b[31m"}:
        assert name in cut
    assert "control\\x1b[31m" in cut
    assert all(line.isprintable() for line in chosen.cut)


def test_what_is_not_allowed_is_not_named_either() -> None:
    chosen = choose_facts({}, {"secret": "x" * 5000}, ("env",))
    assert (chosen.facts, chosen.cut) == ({}, ())


def test_of_too_many_facts_the_own_ones_and_the_first_by_name_are_sent() -> None:
    found = {f"f{n:04}": n for n in reversed(range(1000))}
    chosen = choose_facts({"zone": "a"}, found, ("*",))
    assert len(chosen.facts) == MAX_FACTS
    assert next(iter(chosen.facts)) == "zone"
    assert "f0254" in chosen.facts
    (line,) = chosen.cut
    assert line == f"facts left out (more than {MAX_FACTS} facts): f0255, f0256, f0257, f0258, f0259 and 740 more"


def test_each_value_of_a_map_counts() -> None:
    chosen = choose_facts({}, {"m": {f"k{n}": n for n in range(300)}}, ("*",))
    (inner,) = chosen.facts.values()
    assert isinstance(inner, dict)
    assert len(inner) == MAX_FACTS


def test_a_map_that_nests_too_deep_is_left_out() -> None:
    deep: object = "x"
    for _ in range(100):
        deep = {"d": deep}
    chosen = choose_facts({}, {"deep": deep, "env": "live"}, ("*",))
    assert chosen.facts == {"env": "live"}
    assert "nested deeper" in chosen.cut[0]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=30,
)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=8), st.lists(st.text(max_size=4), max_size=3))
def test_whatever_is_known_what_is_sent_fits_a_message(found: dict[str, object], allow: list[str]) -> None:
    for patterns in (("*",), tuple(allow)):
        chosen = choose_facts({}, found, patterns)
        assert within_limits(dict(chosen.facts))
        json.dumps(chosen.facts, allow_nan=False).encode()
        assert all(line.isprintable() for line in chosen.cut)
