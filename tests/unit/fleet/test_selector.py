"""What a selector's text means, beyond the golden table."""

from __future__ import annotations

import sys

import pytest

from deploykit.errors import SelectorError
from deploykit.fleet.expressions import ClassTerm, Comparison, Conjunction, Disjunction, Negation
from deploykit.fleet.facts import NodeFacts
from deploykit.fleet.patterns import Exactly, Glob, Regex
from deploykit.fleet.selector import MAX_DEPTH, MAX_TERMS, MAX_TEXT, Selector
from deploykit.names import parse_node_name
from deploykit.system.regex import compile_regex
from tests.support.selecting import GOLDEN

A, B, C = (ClassTerm(Exactly(name)) for name in "abc")


def node(**facts: object) -> NodeFacts:
    return NodeFacts(node=parse_node_name("web1"), facts=facts)


def refusal(text: str) -> SelectorError:
    with pytest.raises(SelectorError) as caught:
        Selector.parse(text)
    return caught.value


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a or b and c", Disjunction((A, Conjunction((B, C))))),
        ("a and b or c", Disjunction((Conjunction((A, B)), C))),
        ("not a and b", Conjunction((Negation(A), B))),
        ("!a or b", Disjunction((Negation(A), B))),
        ("! not !a", Negation(Negation(Negation(A)))),
        ("((a))", A),
        ("(a or b)and(not(c))", Conjunction((Disjunction((A, B)), Negation(C)))),
        ("\ta\n and\r\n b ", Conjunction((A, B))),
        ("web*", ClassTerm(Glob("web*"))),
        ("[!a]b", ClassTerm(Glob("[!a]b"))),
        (r"/a\/b/", ClassTerm(Regex(r"a\/b"))),
        ("notnginx", ClassTerm(Exactly("notnginx"))),
        ("NOT", ClassTerm(Exactly("NOT"))),
        ("a=~/x/", Comparison("a", "=", Regex("x"))),
        ("a !~ /x/", Comparison("a", "!=", Regex("x"))),
        ("a==b", Comparison("a", "=", Exactly("b"))),
        ("a=<5", Comparison("a", "<=", Exactly("5"))),
        ("a=>5", Comparison("a", ">=", Exactly("5"))),
        ("a=10.0.0.0/8", Comparison("a", "=", Exactly("10.0.0.0/8"))),
        ("a=Europe/Berlin", Comparison("a", "=", Exactly("Europe/Berlin"))),
        ("a='and'", Comparison("a", "=", Exactly("and"))),
        ("a='*'", Comparison("a", "=", Exactly("*"))),
        ("a=''", Comparison("a", "=", Exactly(""))),
        (r"""a="b\"\\'" """, Comparison("a", "=", Exactly("b\"\\'"))),
        ("a= ~x", Comparison("a", "=", Exactly("~x"))),
        (r"a=C:\dir", Comparison("a", "=", Exactly(r"C:\dir"))),
    ],
)
def test_a_text_means_a_tree(text: str, tree: object) -> None:
    assert Selector.parse(text).expression == tree


def test_selectors_that_mean_the_same_are_equal() -> None:
    assert Selector.parse("(a)and( ! b)") == Selector.parse("a and not b")
    assert Selector.parse("a and b") != Selector.parse("b and a")
    assert str(Selector.parse("(((a or  b)))and ! (c==d)")) == "(a or b) and not c=d"


@pytest.mark.parametrize(
    "text", ["and", "not", "", "a b", r"a \\ b", "\\ ", '"', "'", "'\"\\", "/srv", "~x", "*", "a=b", "(a)"]
)
def test_a_text_is_quoted_where_it_must_be(text: str) -> None:
    expression = Comparison("a", "=", Exactly(text))
    assert Selector.parse(str(expression)).expression == expression


@pytest.mark.parametrize(
    ("text", "position", "says"),
    [
        ("nginx || b", 6, "'||' begins nothing that a selector knows at character 7 of `nginx || b` (write `or`)"),
        ("nginx & b", 6, "write `and`"),
        ("nginx|b", 5, "write `or`"),
        ("nginx OR b", 6, "write `or`"),
        ("NOT nginx", 4, "write `not`"),
        ("path=/srv/www", 5, "`/srv/` is a regular expression, and 'w' follows it"),
        ("path=/srv", 5, "a text with a slash in front stands in quotes"),
        ('a="b"c', 5, "put a blank between"),
        ('a="b', 2, "close the quotes"),
        ("a='b", 2, "close the quotes"),
        ("a=[b", 2, "close the bracket"),
        (r'a="\d"', 3, r"write \\ for \ itself"),
        ("env=~li", 5, "between slashes: =~/li/"),
        ("a>/9/", 2, "> needs a number, a version or a text"),
        ("a>=9*", 3, ">= needs a number, a version or a text"),
        ("a=", 2, "expected a value after =, not the end"),
        ("a= and b", 3, "expected a value after =, not `and` at character 4 of `a= and b` (write 'and' for this text)"),
        ("a==(b)", 3, "expected a value after ==, not `(`"),
        ("a=!b", 2, "expected a value after =, not `!`"),
        ("=b", 0, "expected a class or a comparison, not `=`"),
        ("web*=x", 0, "`web*` is no name of a fact"),
        ("/a/ =x", 0, "`/a/` is no name of a fact"),
        ('"nginx"', 0, "stands without quotes"),
        ("()", 1, "expected a class or a comparison, not `)`"),
        ("not", 3, "expected a class or a comparison, not the end"),
        ("a and not", 9, "expected a class or a comparison, not the end"),
        ("(a b)", 3, "expected `and`, `or` or the end, not `b`"),
        ("a\x00b", 1, "the character U+0000 is not printed"),
        ("a\u202eb", 1, "the character U+202E is not printed"),
        ("a\u00a0b", 1, "U+00A0"),
        ("a=/x\x1b/", 4, "U+001B"),
        ("a\ud800", 1, "is not UTF-8"),
        ("//", 0, "an empty regular expression finds everything"),
        ("/(?!x)/", 0, "google-re2"),
        ("/(/", 0, "google-re2: missing ): ("),
        ("/((a{1000}){1000}){1000}/", 0, "google-re2"),
        (f"{'a' * 256}=x", 0, "a fact's name is longer than 255 characters"),
        (
            'with("nginx") && fact("env") == "live"',
            4,
            "this looks like Choria's language; here it is: nginx and env=live",
        ),
        ("nginx(1)", 5, "expected `and`, `or` or the end, not `(`"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_the_way_out(text: str, position: int, says: str) -> None:
    error = refusal(text)
    assert says in str(error)
    assert error.position == position
    assert str(error).isprintable()


def test_an_error_in_a_long_selector_shows_the_place_alone() -> None:
    error = refusal(f"{' and '.join(['nginx'] * 50)} AND apache")
    assert len(str(error)) < 200
    assert "AND" in str(error)


def test_length_terms_and_depth_are_bounded() -> None:
    for longest in (
        "a" * MAX_TEXT,
        " or ".join(["a"] * MAX_TERMS),
        "(" * MAX_DEPTH + "a" + ")" * MAX_DEPTH,
        "!(" * (MAX_DEPTH // 2) + "a" + ")" * (MAX_DEPTH // 2),
    ):
        Selector.parse(longest)
    assert f"of {MAX_TEXT + 1} bytes is over the limit" in str(refusal("a" * (MAX_TEXT + 1)))
    assert f"of {MAX_TEXT + 2} bytes" in str(refusal("é" * (MAX_TEXT // 2 + 1)))
    assert f"more than {MAX_TERMS} terms" in str(refusal(" or ".join(["a"] * (MAX_TERMS + 1))))
    for opening in ("(", "!", "not ", "!("):
        assert f"more than {MAX_DEPTH} brackets" in str(refusal(opening * (MAX_TEXT // len(opening))))


def test_a_selector_that_grows_when_it_is_written_out_is_still_read_again() -> None:
    # Written out, each `!` is a `not` and a blank.
    text = " or ".join(["!" * 32 + "a"] * 100) + " " * 100
    assert len(text) <= MAX_TEXT < len(str(Selector.parse(text).expression))
    assert Selector.parse(str(Selector.parse(text))) == Selector.parse(text)


def test_brackets_beside_each_other_are_not_deep() -> None:
    text = " and ".join(["(!a)"] * 90)
    assert len(Selector.parse(text).expression.parts) == 90  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("n=9", True),
        ("n=9.0", True),  # the fact is a number
        ("n=09", True),
        ("n='9'", True),
        ("n=9x", False),
        ("n!=9.0", False),
        ("t=10", True),
        ("t=10.0", False),  # the fact is a text
        ("t>=10.0", True),
        ("t>-5", True),
        ("big=9007199254740993", True),
        ("big=9007199254740992", False),  # floats would take the two for one
        ("f=15.50", True),
        ("f>15.49", True),
        ("tenth=0.1", True),
        ("tenth<=0.1", True),
        ("f>9", True),
        ("f<100", True),
        ("yes=true", True),
        ("yes=True", False),
        ("yes=/^t/", True),
        ("yes=1", False),
        ("yes>0", False),
        ("no=false", True),
        ("no!=true", True),
        ("null=x", False),
        ("null!=x", False),
        ("null=''", False),
        ("empty=''", True),
        ("empty!=x", True),
        ("word>9", False),  # neither smaller nor larger
        ("word<9", False),
        ("word<zebra", True),
        ("day>2026-01-09", True),
        ("day<2027", True),
        ("commit=1200000", False),  # no exponents: 12e5 is a text
        ("commit>1000", False),  # as versions: 12 is less
        ("ip=10.0.0.*", True),
        ("ip=10.0.?.1", True),
        ("ip!=10.*", False),
        ("ip=0.0.*", False),  # a glob matches the whole
        ("ip='10.*'", False),  # quoted it is a text
        ("huge>1", False),
        ("huge=1", False),
        ("nan=nan", False),
    ],
)
def test_values_are_compared(text: str, matches: bool) -> None:
    facts = node(
        n=9, t="10", f=15.5, tenth=0.1, yes=True, no=False, null=None, empty="",
        word="n/a", day="2026-01-10", commit="12e5",
        ip="10.0.0.1", big=9007199254740993, huge=10**400, nan=float("nan"),
    )  # fmt: skip
    assert Selector.parse(text).matches(facts) is matches


@pytest.mark.parametrize(
    ("smaller", "larger"),
    [
        ("6.1.0", "10.0.0"),
        ("6.1.9", "6.1.10"),
        ("6.1", "6.1.1"),
        ("6.1.0-rc1", "6.1.0"),
        ("6.1.0~rc1", "6.1.0"),
        ("6.1.0-rc1", "6.1.0-rc2"),
        ("1.0.2", "1.0.2k"),
        ("1.0.2k", "1.0.3"),
        ("6.1.0-18-amd64", "6.1.0-20-amd64"),
        ("6.1.0", "6.1.0-18-amd64"),
        ("v1.9.0", "v1.10.0"),
        ("1.9.0", "v1.10"),
        ("2026-01-09", "2026-01-10"),
        ("5.9", "5.10.1"),
        ("1.2.3", f"1.2.{'9' * 5000}"),
    ],
)
def test_versions_are_compared_part_by_part(smaller: str, larger: str) -> None:
    for text, matches in (("<", True), ("<=", True), (">", False), (">=", False)):
        assert Selector.parse(f"v{text}{smaller[:4000]}").matches(node(v=larger)) is not matches
        if len(larger) < 4000:
            assert Selector.parse(f"v{text}{larger}").matches(node(v=smaller)) is matches


def test_a_version_with_fewer_parts_is_the_same_as_with_zeros() -> None:
    same = node(v="6.1.0")
    assert Selector.parse("v>=6.1 and v<=6.1 and not v>6.1").matches(node(v="6.1.0.0"))
    assert Selector.parse("v>=6.1.0.0 and v<=6.1.0.0").matches(same)


def test_two_numbers_with_one_point_are_numbers_and_a_third_part_makes_them_versions() -> None:
    release = node(release="12.10")
    assert not Selector.parse("release>12.9").matches(release)
    assert Selector.parse("release>12.9.0").matches(release)


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("os=name", True),
        ("os=/^na/", True),
        ("os!=name", False),
        ("os.name=Debian", True),
        ("os.release.major>=12", True),
        ("os.release=major", True),
        ("os.nosuch=x", False),
        ("os.name.deeper=x", False),
        ("roles=cache", True),
        ("roles!=db", True),
        ("roles.0=web", True),
        ("roles.1=web", False),
        ("roles.9=web", False),
        ("roles.name=web", False),
        ("roles>vw", True),
        ("none=x", False),
        ("none!=x", True),  # it is there, and holds no x
        ("flat.name=x", True),  # a name with a point in it
        ("flat=name", False),
        ("flat.deep.more=y", True),
        ("half.way.down=1", True),
    ],
)
def test_lists_maps_and_paths(text: str, matches: bool) -> None:
    facts = {
        "os": {"name": "Debian", "release": {"major": "12"}},
        "roles": ["web", "cache", {"name": "x"}, ["y"]],
        "none": [],
        "flat.name": "x",
        "flat.deep.more": "y",
        "half.way": {"down": 1},
    }
    assert Selector.parse(text).matches(NodeFacts(node=parse_node_name("web1"), facts=facts)) is matches


def test_pseudo_facts_are_what_deploykit_knows() -> None:
    facts = {"site": "fra", "node": "else", "version": "9"}
    known = NodeFacts(node=parse_node_name("web1"), facts=facts, sites=("shop", "blog"), version="0.2.0")
    assert Selector.parse("node=web1 and site=shop and site=/bl/ and version>=0.1.9").matches(known)
    assert not Selector.parse("site=fra or node=else or version=9").matches(known)
    assert Selector.parse("facts.site=fra and facts.node=else").matches(known)
    bare = NodeFacts(node=parse_node_name("web1"))
    assert not Selector.parse("site=shop or site!=shop or version=0 or version!=0").matches(bare)


@pytest.mark.parametrize(
    ("text", "decision"),
    [
        ("nginx", "nginx is true: class 'nginx'"),
        ("missing", "missing is false: none of 3 classes"),
        ("/a/", "/a/ is true: class 'apache'"),
        ("nginx and env=stage and missing", "env=stage is false: env is 'live'"),
        ("missing or roles=web or nginx", "roles=web is true: roles is 'web', 'cache'"),
        ("not (missing or nginx)", "nginx is true: class 'nginx'"),
        ("not nosuch=1", "nosuch=1 is false: no fact nosuch"),
        ("nginx and env=live", "nginx and env=live is true"),
        ("missing or missing2", "missing or missing2 is false"),
    ],
)
def test_the_deciding_term_is_named(text: str, decision: str) -> None:
    selector = Selector.parse(text)
    assert str(selector.decide(GOLDEN)) == decision
    assert selector.decide(GOLDEN).matches is selector.matches(GOLDEN)


def test_what_a_node_has_is_shown_in_short() -> None:
    many = node(roles=[f"{number:03}" * 40 for number in range(9)])
    shown = Selector.parse("roles=x").decide(many).found
    assert shown.endswith("… and 4 more") or shown.endswith("…' and 4 more")
    assert len(shown) < 400


def test_without_google_re2_only_regular_expressions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_regex.cache_clear()
    monkeypatch.setitem(sys.modules, "re2", None)
    error = refusal("nginx and env=/live/")
    assert error.remedy == "pip install deploykit[re2]"
    assert error.position == 14
    assert Selector.parse("nginx and env=l*e and memory_gb>9 and path='/srv/www'").matches(GOLDEN)
