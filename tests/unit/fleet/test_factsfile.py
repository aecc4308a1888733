"""Files of facts and classes, whoever wrote them."""

from __future__ import annotations

import contextlib
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.errors import UsageError
from deploykit.fleet.factsfile import MAX_FILE, parse_classes, parse_facts


def refusal(body: bytes, name: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse_facts(body, name)
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("facts.json", b'{"env": "live", "n": 9, "os": {"name": "Debian"}, "roles": ["web"], "f": 1.5, "v": true}'),
        ("facts", b' {"env": "live", "n": 9, "os": {"name": "Debian"}, "roles": ["web"], "f": 1.5, "v": true}'),
        ("facts.yaml", b"env: live\nn: 9\nos:\n  name: Debian\nroles:\n- web\nf: 1.5\nv: true\n"),
        ("facts.YML", b"--- # x\n\"env\": 'live'\nn: 9\nos: {name: Debian}\nroles: [web]\nf: 1.5\nv: True\n...\n"),
        ("facts", b"env: live\nn: 9\nos: {name: Debian}\nroles: [web]\nf: 1.5\nv: true"),
    ],
)
def test_json_and_yaml_say_the_same(name: str, body: bytes) -> None:
    assert parse_facts(body, name) == {
        "env": "live", "n": 9, "os": {"name": "Debian"}, "roles": ["web"], "f": 1.5, "v": True
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("yes", "yes"),
        ("10:30", "10:30"),
        ("2026-01-10", "2026-01-10"),
        ("0x1f", "0x1f"),
        ("017", "017"),
        ("1_000", "1_000"),
        ("6.1.0", "6.1.0"),
        ("12e5", "12e5"),
        (".inf", ".inf"),
        ("'9'", "9"),
        ("'true'", "true"),
        ("!!binary aGk=", "aGk="),
        ("!ruby/sym live", "live"),
        ("!!python/object/apply:os.system [id]", ["id"]),
        ("~", None),
        ("", None),
        ("-5", -5),
        ("1.0e+3", 1000.0),
        ("|\n  two\n  lines\n", "two\nlines\n"),
    ],
)
def test_a_plain_value_of_yaml_is_what_it_looks_like(text: str, value: object) -> None:
    assert parse_facts(f"x: {text}".encode(), "facts.yaml") == {"x": value}


def test_an_empty_yaml_file_holds_no_facts() -> None:
    assert parse_facts(b"", "facts.yaml") == {}
    assert parse_facts(b"---\n# nothing\n", "facts.yaml") == {}


BOMB = b"a: &a [x, x]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (c + 1, c + 1, c, c) for c in range(97, 120))


@pytest.mark.parametrize(
    ("name", "body", "says"),
    [
        ("facts.json", b"[1]", "facts.json holds no facts (expected names and values"),
        ("facts.json", b"", "facts.json: body is not JSON"),
        ("facts.json", b'{"a": NaN}', "NaN and Infinity are not JSON"),
        ("facts.json", b'{"a": 1, "a": 2}', "a key is given twice"),
        ("facts.json", b'{"a": ' + b"[" * 1000, "nested deeper"),
        ("facts.json", b"\xff{}", "is not"),
        ("facts.yaml", b"- a\n", "facts.yaml holds no facts"),
        ("facts.yaml", b"just a text", "facts.yaml holds no facts"),
        ("facts.yaml", BOMB, "facts.yaml: an alias (*name) is not followed; write the value out"),
        ("facts.yaml", b"a: &x {b: *x}", "an alias"),
        ("facts.yaml", b"a: 1\na: 2\n", "stands twice in one map"),
        ("facts.yaml", b"? [a]\n: 1\n", "a key is no text"),
        ("facts.yaml", b"a: 1\n---\nb: 2\n", "facts.yaml is not YAML"),
        ("facts.yaml", b"a: [1\nb: 2", "facts.yaml is not YAML"),
        ("facts.yaml", b"a:\tb: c", "at line 1, column"),
        ("facts.yaml", b"a: \x01\n", "facts.yaml is not YAML"),
        ("facts.yaml", b"a: \xff\n", "facts.yaml is not UTF-8 at byte 3"),
        ("facts.yaml", b"a: " + b"[" * 20_000, "facts.yaml"),
        ("facts.yaml", b"x: " + b"[" * 100 + b"]" * 100, "facts.yaml: it is nested too deep"),
        ("facts.yaml", b'a: "\\ud800"', "facts.yaml"),
        ("facts.yaml", b"a: [" + b"1," * 1001 + b"]", "or too many"),
        ("facts.yaml", b"#" * (MAX_FILE + 1), "is longer than"),
        ("facts.json", b" " * (MAX_FILE + 1), "is longer than"),
    ],
)
def test_what_holds_no_facts_is_refused(name: str, body: bytes, says: str) -> None:
    assert says in refusal(body, name)


def test_without_pyyaml_only_yaml_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert "facts.yaml: YAML needs PyYAML (pip install deploykit[yaml], or use JSON)" in refusal(b"a: 1", "facts.yaml")
    assert parse_facts(b'{"a": 1}', "facts") == {"a": 1}


@pytest.mark.parametrize(
    "body",
    [b"nginx\nrole::web\n", b"\xef\xbb\xbf# puppet\nnginx # x\r\n\n  role::web\nnginx\n", b'\n["nginx", "role::web"]'],
)
def test_classes_are_read(body: bytes) -> None:
    assert parse_classes(body, "classes.txt") == ("nginx", "role::web")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"\xff", "classes.txt is not UTF-8 at byte 0"),
        (b"a\nb c\n", "classes.txt: class 2 is none: 'b c'"),
        (b"a\x1b[1m\n", r"class 1 is none: 'a\x1b[1m'"),
        (b"[1]", "class 1 is none: 1"),
        (b'["a", ""]', "class 2 is none: ''"),
        (b"[1", "classes.txt: body is not JSON"),
        (b"a" * (MAX_FILE + 1), "is longer than"),
    ],
)
def test_what_holds_no_classes_is_refused(body: bytes, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_classes(body, "classes.txt")
    assert says in str(caught.value)


def test_a_file_without_classes_is_a_node_without_classes() -> None:
    assert parse_classes(b"", "classes.txt") == ()
    assert parse_classes(b"# none\n", "classes.txt") == ()


@given(st.one_of(st.binary(max_size=40), st.text("[]{}:,-&*?!|>'\"#%@ \n\tab1.", max_size=40).map(str.encode)))
def test_any_bytes_are_facts_or_an_error(body: bytes) -> None:
    for name in ("facts.yaml", "facts.json", "facts"):
        with contextlib.suppress(UsageError):
            assert isinstance(parse_facts(body, name), dict)
