"""The node of the golden table, and strategies for nodes and selectors."""

from __future__ import annotations

from hypothesis import strategies as st

from deploykit.fleet.expressions import ClassTerm, Comparison, Conjunction, Disjunction, Expression, Negation
from deploykit.fleet.facts import NodeFacts
from deploykit.fleet.patterns import KEYWORDS, Exactly, Glob, Regex
from deploykit.names import parse_node_name

GOLDEN = NodeFacts(
    node=parse_node_name("web01.example.net"),
    classes=("nginx", "apache", "role::web::frontend"),
    facts={
        "env": "live",
        "country": "de",
        "processorcount": 9,
        "memory_gb": 15.5,
        "uptime": "10",
        "kernelversion": "6.1.0",
        "roles": ["web", "cache"],
        "path": "/srv/www",
        "os": {"name": "Debian"},
    },
)

WORDS = st.text("abz019._:-~/@é+", min_size=1, max_size=6).filter(lambda w: w not in KEYWORDS and not w.startswith("/"))
#: Names and values from a few only, so that selectors and nodes meet.
NAMES = st.sampled_from(["env", "os.name", "os", "n", "node", "site", "version", "roles", "a.0", "a"])
SOME_TEXTS = st.sampled_from(
    [
        "live",
        "web",
        "",
        "9",
        "10",
        "15.5",
        "6.1.0",
        "10.0.0",
        "true",
        "x y",
        'a"b',
        "\\",
        "/srv",
        "~",
        "and",
        "x \\",
        "'\"",
    ]
)
SCALARS = st.one_of(
    SOME_TEXTS,
    st.integers(-20, 20),
    st.floats(-20, 20, allow_nan=False).map(lambda number: round(number, 1)),
    st.booleans(),
    st.none(),
)
VALUES = st.one_of(
    SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(st.sampled_from(["name", "web", "0"]), SCALARS, max_size=2)
)
NODES = st.builds(
    NodeFacts,
    node=st.sampled_from(["web", "web01.example.net", "db"]).map(parse_node_name),
    classes=st.lists(st.sampled_from(["nginx", "role::web", "live"]), max_size=3).map(tuple),
    facts=st.dictionaries(NAMES, VALUES, max_size=5),
    sites=st.lists(st.sampled_from(["shop", "blog"]), max_size=2).map(tuple),
    version=st.sampled_from(["", "0.1.0"]),
)

_GLOBS = (
    st.lists(st.sampled_from(["*", "?", "[a-z]", "[!0]", "web", "e", "~", "]", "0"]), min_size=1, max_size=4)
    .map("".join)
    .filter(lambda text: any(c in text for c in "*?["))
)
_REGEXES = st.sampled_from(["^web", "e", r"\/srv", "live|de", r"^\d+$", "(?i)LIVE", ".", "w.b", "^$"])
_PATTERNS = st.one_of(WORDS.map(Exactly), _GLOBS.map(Glob), _REGEXES.map(Regex))
_TEXTS = st.one_of(SOME_TEXTS, st.text(max_size=5).filter(str.isprintable), WORDS)
_TERMS = st.one_of(
    st.builds(ClassTerm, st.one_of(_PATTERNS, st.sampled_from(["nginx", "live"]).map(Exactly))),
    st.builds(Comparison, NAMES, st.sampled_from(["=", "!="]), st.one_of(_TEXTS.map(Exactly), _PATTERNS)),
    st.builds(Comparison, NAMES, st.sampled_from(["<", "<=", ">", ">="]), _TEXTS.map(Exactly)),
)


def _wider(parts: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    several = st.lists(parts, min_size=2, max_size=3).map(tuple)
    return st.one_of(st.builds(Negation, parts), st.builds(Conjunction, several), st.builds(Disjunction, several))


#: Trees as a parser makes them, of every form.
EXPRESSIONS: st.SearchStrategy[Expression] = st.recursive(_TERMS, _wider, max_leaves=12)

#: Texts that look like selectors, most of them wrong.
NEARLY = st.lists(
    st.one_of(
        st.sampled_from(
            ["and", "or", "not", "!", "(", ")", "=", "=~", "!=", ">", "/a/", "'x'", '"', "/", "[", "]", "*", " ", "\\",
             "x", "&&", "|", "\n", "\x00", "~", "9", "AND", "\ud800", "with"]
        ),
        st.text(max_size=3),
    ),
    max_size=30,
).map("".join)  # fmt: skip
