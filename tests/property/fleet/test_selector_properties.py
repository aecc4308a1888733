"""Selectors for any text and any node: they are read again as they are written, obey logic, and never take long."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import pytest
import re2
from hypothesis import given
from hypothesis import strategies as st

from deploykit.errors import SelectorError, UsageError
from deploykit.fleet.comparison import in_order
from deploykit.fleet.expressions import Conjunction, Disjunction, Expression, Negation
from deploykit.fleet.facts import NodeFacts
from deploykit.fleet.patterns import Glob
from deploykit.fleet.selection import Selection
from deploykit.fleet.selector import MAX_TEXT, Selector, parse_comparison, parse_pattern
from deploykit.names import parse_node_name
from deploykit.system.regex import compile_regex
from tests.support.selecting import EXPRESSIONS, NEARLY, NODES


def refusal(parse: Callable[[str], object], text: str) -> SelectorError | None:
    try:
        parse(text)
    except SelectorError as error:
        return error
    return None


@given(EXPRESSIONS, NODES)
def test_what_is_written_is_read_again_and_means_the_same(expression: Expression, node: NodeFacts) -> None:
    selector = Selector.parse(str(expression))
    assert selector.expression == expression
    assert str(selector) == str(expression)
    assert Selector.parse(str(selector)) == selector
    assert selector.matches(node) is expression.holds(node)


@given(EXPRESSIONS, NODES)
def test_the_decision_is_the_match_and_its_term_has_the_value_it_names(expression: Expression, node: NodeFacts) -> None:
    decision = expression.decide(node)
    assert decision.matches is expression.holds(node)
    assert Selector.parse(decision.term).matches(node) is decision.holds


@given(EXPRESSIONS, EXPRESSIONS, NODES)
def test_de_morgan(one: Expression, other: Expression, node: NodeFacts) -> None:
    def holds(expression: Expression) -> bool:
        return expression.holds(node)

    assert holds(Negation(Conjunction((one, other)))) is holds(Disjunction((Negation(one), Negation(other))))
    assert holds(Negation(Disjunction((one, other)))) is holds(Conjunction((Negation(one), Negation(other))))
    assert holds(Negation(Negation(one))) is holds(one)


@given(st.one_of(NEARLY, st.text(max_size=60)), NODES)
def test_any_text_is_a_selector_or_an_error_with_a_place_in_it(text: str, node: NodeFacts) -> None:
    for parse in (parse_comparison, parse_pattern, Selector.parse):
        if (error := refusal(parse, text)) is not None:
            assert 0 <= error.position <= len(text)
            assert str(error).isprintable()
    if error is not None:
        return
    selector = Selector.parse(text)
    assert selector.matches(node) is not Selector.parse(f"not ({text})").matches(node)
    assert Selector.parse(str(selector)) == selector


@given(st.lists(NEARLY, max_size=3).map(tuple), NODES)
def test_any_texts_are_a_selection_or_have_problems(texts: tuple[str, ...], node: NodeFacts) -> None:
    for selection in (
        Selection(identities=texts),
        Selection(classes=texts, facts=texts),
        Selection(selects=texts),
        Selection(everybody=True, exclude=texts),
    ):
        if selection.problems():
            with pytest.raises(UsageError):
                selection.matches(node)
        else:
            assert selection.matches(node) is selection.decide(node).matches
            names = selection.literal_nodes
            assert names is None or (node.node in names) is selection.matches(node) or node.node in node.classes


#: With two points, so that none is a number.
_VERSIONS = st.text("0123456789.~-abrc", max_size=8).map("1{}.0.0".format)


@given(_VERSIONS, _VERSIONS, _VERSIONS)
def test_versions_are_totally_ordered(one: str, two: str, three: str) -> None:
    assert in_order(one, "<=", one)
    assert not in_order(one, "<", one)
    assert in_order(one, "<=", two) or in_order(two, "<=", one)
    assert in_order(one, "<", two) is in_order(two, ">", one) is not in_order(one, ">=", two)
    if in_order(one, "<=", two) and in_order(two, "<=", three):
        assert in_order(one, "<=", three)


@given(st.text("ab*?[]!-z", max_size=8), st.text("ab-]z", max_size=8))
def test_globs_match_as_the_plain_definition_says(pattern: str, text: str) -> None:
    if "[" in pattern:
        Glob(pattern).found_in(text)  # any is accepted
    else:
        assert Glob(pattern).found_in(text) is plain_glob(pattern, text)


def plain_glob(pattern: str, text: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(plain_glob(pattern[1:], text[at:]) for at in range(len(text) + 1))
    return bool(text) and pattern[0] in ("?", text[0]) and plain_glob(pattern[1:], text[1:])


def seconds(call: Callable[[], object]) -> float:
    """The processor time of the quickest of several runs, so that other processes do not count."""
    best = float("inf")
    for _ in range(5):
        begun = time.process_time()
        call()
        best = min(best, time.process_time() - begun)
    return best


def read_afresh(text: str) -> None:
    compile_regex.cache_clear()
    re2.purge()
    refusal(Selector.parse, text)


#: Time that is lost in noise: less is not compared.
NOISE = 0.002


@pytest.mark.parametrize(
    "piece",
    ["(", "!", "not ", "a or ", "a=", "a.", "/", "/a", r"\/", "'", r"'\\", "[", "a[", "[]", "[!", "*", "*a", "&",
     "a=b and ", "a=~/(x+x+)+y/ or ", "= ", "é", "a=1.", "((a+)+)+"],
)  # fmt: skip
def test_reading_takes_time_linear_in_the_text(piece: str) -> None:
    def read(size: int) -> float:
        many = piece * (size // len(piece.encode()))
        regex = f"/{many.replace('/', '')[: size - 2]}/"
        return max(seconds(partial(read_afresh, text)) for text in (many, regex))

    assert read(MAX_TEXT) < 8 * 4 * max(read(MAX_TEXT // 8), NOISE)


@pytest.mark.parametrize(
    "value",
    ["/(a+)+$/", "/(a|a)*b/", "/(a|aa)+$/", "/^(a?){60}a{60}$/", "/(.*)(.*)(.*)(.*)b/", "/a*a*a*a*a*a*b/",
     "a*a*a*a*a*a*b", "*a?*a?*a?*b", "[a-z]*[a-z]*[a-z]*b", "b", "'1.1'"],
)  # fmt: skip
@pytest.mark.parametrize("unit", ["a", "a!", "1", "1.", "~", "1a"])
def test_matching_takes_time_linear_in_the_fact(value: str, unit: str) -> None:
    terms = [f"f={value}"] + ([] if value[0] in "/*[" or "*" in value else [f"f>{value}", f"f<={value}"])
    selector = Selector.parse(" or ".join(terms))

    def node(length: int) -> NodeFacts:
        return NodeFacts(node=parse_node_name("web1"), facts={"f": f"{unit * (length // len(unit))}!"})

    short, long = node(1024), node(16 * 1024)
    assert seconds(lambda: selector.matches(long)) < 16 * 4 * max(seconds(lambda: selector.matches(short)), NOISE / 4)


def test_a_hundred_hostile_terms_on_full_facts() -> None:
    """The largest selector on the largest facts: as long as its terms, each on its own."""
    facts: dict[str, object] = {f"f{number}": "a" * 1024 for number in range(256)}
    node = NodeFacts(node=parse_node_name("web1"), facts=facts)
    one = Selector.parse("f0=/(a+)+b$/")
    all_terms = Selector.parse(" or ".join(f"f{number}=/(a+)+b$/" for number in range(100)))
    assert seconds(lambda: all_terms.matches(node)) < 100 * 4 * max(seconds(lambda: one.matches(node)), NOISE / 20)
