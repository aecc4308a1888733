"""`--nodes FILE`: lists of nodes, whoever wrote them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.errors import UsageError
from deploykit.fleet import nodelist
from deploykit.fleet.nodelist import parse_node_list


def refusal(body: bytes) -> UsageError:
    with pytest.raises(UsageError) as caught:
        parse_node_list(body, "nodes.txt")
    return caught.value


@pytest.mark.parametrize(
    "body",
    [
        b"web1\nweb2\n",
        b"# of the shop\n\n  web1\t# rack 3\r\nweb2#\nweb1\n#web3",
        b"\xef\xbb\xbfweb1\nweb2",
        b'["web1", "web2", "web1"]',
        b' \n [{"node": "web1", "facts": {"a": [1]}}, "web2"]',
        b'{"nodes": [{"node": "web1"}, {"node": "web2"}], "silent": ["web3"]}',
    ],
)
def test_names_are_read_once_each_in_their_order(body: bytes) -> None:
    assert parse_node_list(body, "x") == ("web1", "web2")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "nodes.txt names no node (one name a line; --all chooses every node)"),
        (b"\n# web1\n", "nodes.txt names no node"),
        (b"[]", "nodes.txt names no node"),
        (b"\xff\xfew\x00", "nodes.txt is not UTF-8 at byte 0"),
        (b"[1", "nodes.txt begins like JSON and is none: Expecting ',' delimiter at line 1, column 3"),
        (b"[" * 100_000, "nodes.txt begins like JSON and is none: nested too deep"),
        (b"[%s]" % (b"9" * 5000), "nodes.txt begins like JSON and is none"),
        (b'{"web1": 1}', "nodes.txt holds JSON, but no list of nodes"),
        (b'{"nodes": {"web1": 1}}', "nodes.txt holds JSON, but no list of nodes"),
    ],
)
def test_what_is_no_list_is_refused(body: bytes, says: str) -> None:
    assert says in str(refusal(body))


@pytest.mark.parametrize(
    ("body", "problems"),
    [
        (b"web1\nweb1 web2\n../x\n", ["line 2: not a node name: 'web1 web2'", "line 3: not a node name: '../x'"]),
        (b"web\x1b[31m\n", [r"line 1: not a node name: 'web\x1b[31m'"]),
        (b"-rf\n", ["line 1: not a node name: '-rf'"]),
        (b'[1, null, {"name": "web1"}, "web1", [["web2"]]]',
         ["entry 1: not a node name: 1", "entry 2: not a node name: None", "entry 3:", "entry 5:"]),
        ("wéb".encode(), ["line 1: not a node name: 'w\\xe9b'"]),
    ],
)  # fmt: skip
def test_each_entry_that_is_no_name_is_named(body: bytes, problems: list[str]) -> None:
    found = refusal(body).problems
    assert len(found) == len(problems)
    for one, start in zip(found, problems, strict=True):
        assert one.startswith(f"nodes.txt {start}")


def test_many_wrong_lines_are_counted() -> None:
    found = refusal(b"a b\n" * 1000).problems
    assert len(found) == 11
    assert found[-1] == "and 990 more"


def test_a_list_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodelist, "MAX_LIST", 8)
    assert parse_node_list(b"12345678", "x") == ("12345678",)
    assert "longer than 8 bytes" in str(refusal(b"123456789"))


@given(st.one_of(st.binary(max_size=60), st.text('[]{}",:#\nweb1 \t\r', max_size=40).map(str.encode)))
def test_any_bytes_are_names_or_an_error(body: bytes) -> None:
    problems: tuple[str, ...] = ()
    try:
        assert parse_node_list(body, "x")
    except UsageError as error:
        problems = error.problems
    assert all(problem.isprintable() for problem in problems)
