"""What `-I -C -F -S --nodes --all --exclude --expect` choose together."""

from __future__ import annotations

import attrs
import pytest

from deploykit.errors import UsageError
from deploykit.fleet.facts import NodeFacts
from deploykit.fleet.selection import Selection
from deploykit.messages import NodeDescribed, SiteState
from deploykit.names import NodeName, parse_node_name, parse_repo_name, parse_site_name
from tests.support.selecting import GOLDEN

WEB1, WEB2, DB1 = (parse_node_name(name) for name in ("web1", "web2", "db1"))
NODE = NodeFacts(node=WEB1, classes=("nginx", "apache"), facts={"env": "live", "n": 9})


def why(selection: Selection, node: NodeFacts = NODE) -> str:
    decision = selection.decide(node)
    assert selection.matches(node) is decision.matches
    return f"{decision.matches} {decision}"


@pytest.mark.parametrize(
    ("selection", "decision"),
    [
        (Selection(everybody=True), "True --all is true"),
        (Selection(identities=("web1",)), "True -I web1 is true: node is web1"),
        (Selection(identities=("web2", "w*")), "True -I w* is true: node is web1"),
        (Selection(identities=("web2", "web")), "False -I web2 -I web is false: node is web1"),
        (Selection(identities=("WEB1",)), "False -I WEB1 is false: node is web1"),
        (Selection(identities=("eb1",)), "False -I eb1 is false: node is web1"),
        (Selection(identities=("/eb1$/",)), "True -I /eb1$/ is true: node is web1"),
        (Selection(classes=("nginx", "apach?")), "True -C apach? is true: class 'apache'"),
        (Selection(classes=("nginx", "missing")), "False -C missing is false: none of 2 classes"),
        (Selection(facts=("env=live", "n>9")), "False -F n>9 is false: n is '9'"),
        (Selection(selects=("nginx", "missing or env=live")), "True -S env=live is true: env is 'live'"),
        (Selection(selects=("nginx", "missing")), "False -S missing is false: none of 2 classes"),
        (Selection(listed=(WEB2, WEB1)), "True --nodes is true: node is web1"),
        (Selection(listed=(WEB2,)), "False --nodes is false: node is web1"),
        (Selection(listed=(WEB1,), classes=("missing",)), "False -C missing is false: none of 2 classes"),
        (Selection(everybody=True, exclude=("web1",)), "False --exclude web1 is true: class 'web1'"),
        (Selection(everybody=True, exclude=("web2 or web1",)), "False --exclude web1 is true: class 'web1'"),
        (Selection(everybody=True, exclude=("web2", "nginx")), "False --exclude nginx is true: class 'nginx'"),
        (Selection(everybody=True, exclude=("/^we/",)), "False --exclude /^we/ is true: class 'web1'"),
        (Selection(everybody=True, exclude=("env=stage",)), "True --exclude env=stage is false: env is 'live'"),
        (Selection(everybody=True, exclude=("not nginx",)), "True --exclude nginx is true: class 'nginx'"),
    ],
    ids=str,
)
def test_the_first_part_that_is_false_decides(selection: Selection, decision: str) -> None:
    assert why(selection) == decision


@pytest.mark.parametrize("part", ["identities", "classes", "selects", "facts"])
def test_a_word_alone_means_the_whole_name(part: str) -> None:
    assert not Selection(**{part: ("web" if part != "facts" else "env=liv",)}).matches(NODE)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("selection", "problem"),
    [
        (Selection(), "no nodes are chosen (-I NODE, -C CLASS, -F FACT=VALUE, -S SELECTOR or --nodes FILE; --all for"),
        (Selection(exclude=("web1",)), "no nodes are chosen"),
        (Selection(expect=3), "no nodes are chosen"),
        (Selection(everybody=True, classes=("nginx",)), "--all means every node"),
        (Selection(everybody=True, listed=(WEB1,)), "--all means every node"),
        (Selection(listed=()), "the list of nodes is empty"),
        (Selection(everybody=True, expect=-1), "--expect: expected a number of nodes, not -1"),
        (Selection(identities=("web 1",)), "-I: expected the end, not `1` at character 5 of `web 1`"),
        (Selection(identities=("web,db",)), "-I: not a node name: 'web,db'"),
        (Selection(identities=("",)), "-I: expected the name of a node, not the end"),
        (Selection(identities=("a=b",)), "-I: expected the end, not `=`"),
        (Selection(identities=("/(/",)), "-I: '(' is not accepted by google-re2"),
        (Selection(identities=("//",)), "-I: an empty regular expression finds everything"),
        (Selection(classes=("a and b",)), "-C: expected the end, not `and` at character 3 of `a and b`"),
        (Selection(classes=("'a'",)), "-C: expected the name of a class, not `'a'`"),
        (Selection(facts=("env",)), "-F: expected an operator after env"),
        (Selection(facts=("env=a b",)), "-F: expected the end, not `b` at character 7 of `env=a b`"),
        (Selection(facts=("env=a and b=c",)), "-F: expected the end, not `and`"),
        (Selection(facts=("not env=a",)), "-F: expected a class or a comparison, not `not`"),
        (Selection(facts=("(env=a)",)), "-F: expected a class or a comparison, not `(`"),
        (Selection(selects=("a AND b",)), "-S: expected `and`, `or` or the end, not `AND`"),
        (Selection(everybody=True, exclude=("a b",)), "--exclude: expected `and`"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named_with_its_option(selection: Selection, problem: str) -> None:
    assert [one for one in selection.problems() if one.startswith(problem)]
    for use in (selection.check, lambda: selection.matches(NODE), lambda: selection.literal_nodes):
        with pytest.raises(UsageError):
            use()


def test_all_problems_are_named_at_once() -> None:
    selection = Selection(identities=("a b", "web1"), facts=("env",), selects=("and",))
    assert [problem.partition(":")[0] for problem in selection.problems()] == ["-I", "-F", "-S"]
    with pytest.raises(UsageError) as caught:
        selection.check()
    assert caught.value.problems == selection.problems()


def test_a_class_or_node_may_be_named_like_a_keyword() -> None:
    node = NodeFacts(node=parse_node_name("not"), classes=("and",))
    assert Selection(identities=("not",), classes=("and",)).matches(node)


@pytest.mark.parametrize(
    ("selection", "candidates", "literal"),
    [
        (Selection(identities=("web2", "web1", "web2")), (WEB2, WEB1), (WEB2, WEB1)),
        (Selection(listed=(WEB2, DB1, WEB2)), (WEB2, DB1), (WEB2, DB1)),
        (Selection(listed=(WEB2, DB1), identities=("/web/",)), (WEB2,), (WEB2,)),
        (Selection(listed=(WEB2, DB1), identities=("x",)), (), ()),
        (Selection(identities=("web1",), classes=("nginx",)), (WEB1,), None),
        (Selection(listed=(WEB2, DB1), facts=("env=live",)), (WEB2, DB1), None),
        (Selection(listed=(WEB2, DB1), selects=("a",)), (WEB2, DB1), None),
        (Selection(identities=("web1", "db*")), None, None),
        (Selection(identities=("/web/",)), None, None),
        (Selection(everybody=True), None, None),
        (Selection(classes=("nginx",)), None, None),
        (Selection(listed=(WEB2, DB1), exclude=("db1",)), (WEB2, DB1), (WEB2,)),
        (Selection(listed=(WEB2, DB1), exclude=("not (db1 or node=/x/)",)), (WEB2, DB1), (DB1,)),
        (Selection(listed=(WEB2, DB1), exclude=("nginx",)), (WEB2, DB1), None),
        (Selection(listed=(WEB2, DB1), exclude=("db*",)), (WEB2, DB1), None),  # classes may be named so
        (Selection(listed=(WEB2, DB1), exclude=("env=live",)), (WEB2, DB1), None),
    ],
    ids=str,
)
def test_nodes_are_known_without_asking_where_names_decide(
    selection: Selection, candidates: tuple[NodeName, ...] | None, literal: tuple[NodeName, ...] | None
) -> None:
    assert selection.candidates == candidates
    assert selection.literal_nodes == literal
    assert selection.needs_discovery is (literal is None)


def test_a_count_that_is_expected_is_kept() -> None:
    Selection(everybody=True, expect=3).check_count(3)
    Selection(everybody=True).check_count(0)
    with pytest.raises(UsageError, match="2 nodes matched, and --expect is 3"):
        Selection(everybody=True, expect=3).check_count(2)


def test_a_node_is_chosen_by_what_it_told() -> None:
    described = NodeDescribed(
        node=WEB1,
        version="0.1.0",
        facts={"env": "live"},
        classes=("nginx",),
        sites=(SiteState(site=parse_site_name("shop"), repo=parse_repo_name("shop")),),
    )
    facts = NodeFacts.of_described(described)
    assert facts == NodeFacts(node=WEB1, version="0.1.0", facts={"env": "live"}, classes=("nginx",), sites=("shop",))
    assert Selection(selects=("site=shop and version=0.1.0 and nginx and env=live",)).matches(facts)


def test_selections_are_values() -> None:
    one = Selection(classes=("nginx",))
    assert one == Selection(classes=("nginx",))
    assert len({one, Selection(classes=("nginx",)), attrs.evolve(one, classes=("apache",))}) == 2
    assert not attrs.evolve(one, classes=("missing",)).matches(GOLDEN)
    assert one.matches(GOLDEN)
