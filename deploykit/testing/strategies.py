"""Hypothesis strategies for names and messages: for the tests of programs that use deploykit, and for our own.

Rules: the library accepts what a strategy draws; texts are often hostile. Needs the extra `testing`.

>>> from hypothesis import given
>>> from deploykit.testing.strategies import messages
>>> @given(messages())
... def test_my_handler_never_fails(message): ...
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeVar, cast

from hypothesis import strategies as st

from deploykit import names
from deploykit.errors import DeploykitError
from deploykit.messages import BY_TYPE, Message, Unknown
from deploykit.messages.base import Base64, Count, Identifier, PasswordHash, Reference, Seconds, UserName
from deploykit.messages.site import id_of
from deploykit.wire import field_types
from deploykit.wire.field_types import FieldType, Leaf, ListOf, Maybe, RecordType

M = TypeVar("M", bound=Message)
T = TypeVar("T")

#: Texts that have broken programs before: terminals, shells, STOMP frames, paths, formats, combined characters.
NAUGHTY: Final = (
    "",
    " ",
    "\x00",
    "\r\n",
    "a\r\nevil-header:1\r\n\r\nbody\x00",
    "\x1b[2J\x1b]0;owned\x07",
    "$(reboot)",
    "`id`",
    "; rm -rf /",
    "' OR 1=1 --",
    "--upload-pack=touch /tmp/x",
    "../../etc/passwd",
    "%s%n%x",
    "{0.__class__}",
    "${jndi:ldap://x}",
    "\\",
    "\\u0000",
    '"',
    "\ufeff",
    "\u202e\u2066",
    "\u2028\u2029\x85",
    "ﷺ" * 50,
    "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘!͖̬̰̙̗̿̋ͥͥ̂ͣ̐́́͜͞",
    "👩‍👩‍👧‍👦🏳️‍🌈",
    "NaN",
    "null",
    "repo: evil\nrefname: refs/heads/evil\nJSON: {}",
    "<script>alert(1)</script>",
)


def texts() -> st.SearchStrategy[str]:
    """Any text that UTF-8 can hold, often one of `NAUGHTY`."""
    return st.text(max_size=60) | st.sampled_from(NAUGHTY)


def object_ids() -> st.SearchStrategy[names.ObjectId]:
    """SHA-1 and SHA-256 ids, and the zero ids."""
    hexes = st.binary(min_size=20, max_size=20) | st.binary(min_size=32, max_size=32)
    zeros = st.sampled_from((bytes(20), bytes(32)))
    return (hexes | zeros).map(lambda raw: names.parse_object_id(raw.hex()))


def ref_names() -> st.SearchStrategy[names.RefName]:
    """Full names of branches and tags, with all characters that git allows."""
    part = st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1, max_size=12)
    usual = st.sampled_from(("main", "topic/x", "-x", "a%2Fb", "release/1.0", "ß", "é", "@", "a@b", "$(id)"))
    tails = usual | st.lists(part, min_size=1, max_size=3).map("/".join)
    full = st.tuples(st.sampled_from(("refs/heads/", "refs/tags/", "refs/")), tails).map("".join)
    return full.filter(lambda text: _good(names.parse_ref_name, text)).map(names.parse_ref_name)


def repo_names() -> st.SearchStrategy[names.RepoName]:
    """Names of repositories, one or several parts."""
    return st.from_regex(rf"\A{names.REPO_PATTERN}\Z").filter(lambda t: len(t) <= 255).map(names.parse_repo_name)


def node_names() -> st.SearchStrategy[names.NodeName]:
    """Names of nodes."""
    return st.from_regex(rf"\A{names.NODE_PATTERN}\Z").filter(lambda t: len(t) <= 255).map(names.parse_node_name)


def site_names() -> st.SearchStrategy[names.SiteName]:
    """Names of sites."""
    return st.from_regex(rf"\A{names.NODE_PATTERN}\Z").filter(lambda t: len(t) <= 255).map(names.parse_site_name)


def identifiers() -> st.SearchStrategy[str]:
    """Ids of messages: UUIDs, and whatever else is printable."""
    return st.uuids().map(str) | texts().filter(lambda t: 0 < len(t) <= 255 and t.isprintable())


def moments() -> st.SearchStrategy[datetime]:
    """Aware times in UTC, to the microsecond."""
    return st.datetimes(timezones=st.just(UTC))


def json_values() -> st.SearchStrategy[Any]:
    """JSON values, as an unknown field may hold them."""
    leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts()
    return st.recursive(
        leaves, lambda v: st.lists(v, max_size=3) | st.dictionaries(texts(), v, max_size=3), max_leaves=8
    )


def extensions() -> st.SearchStrategy[Mapping[str, object]]:
    """CloudEvents attributes that deploykit does not define."""
    printable = texts().filter(str.isprintable)
    values = st.booleans() | st.integers(-(2**31), 2**31 - 1) | printable
    keys = st.from_regex(r"\A[a-z0-9]{1,20}\Z").filter(lambda k: k not in _OWN)
    return st.dictionaries(keys, values, max_size=3)


_OWN: Final = frozenset(
    {"specversion", "id", "source", "type", "time", "datacontenttype", "correlationid", "data"}
    | {"data_base64", "subject", "dataschema"}  # of CloudEvents itself, with rules of their own
)


def records(cls: type[M]) -> st.SearchStrategy[M]:
    """Messages of one class, with every field drawn."""
    return st.builds(_versioned, st.just(cls), st.fixed_dictionaries({**_arguments(cls), **_envelope()}))


def _versioned(cls: type[T], arguments: dict[str, Any]) -> T:
    """Return a record; with parts, ref and commit are what they must be beside them."""
    if parts := arguments.get("parts"):
        sorted_parts = tuple(sorted({part.repo: part for part in parts}.values(), key=lambda part: str(part.repo)))
        arguments = arguments | {"ref": None, "commit": id_of(sorted_parts), "parts": sorted_parts}
    return cls(**arguments)


def unknowns() -> st.SearchStrategy[Unknown]:
    """Events of unknown types."""
    return st.builds(
        Unknown,
        type=identifiers().filter(lambda t: t not in BY_TYPE),
        data=json_values() | st.binary(max_size=40),
        content_type=st.sampled_from(("", "application/json", "text/plain", "application/xml")),
        **_envelope(),
    )


def messages() -> st.SearchStrategy[Message]:
    """Messages of every class, `Unknown` too."""
    return st.one_of(*(records(cls) for cls in BY_TYPE.values()), unknowns())


# -- by type -----------------------------------------------------------------------------------------------------------


def _envelope() -> dict[str, st.SearchStrategy[Any]]:
    return {
        "id": identifiers(),
        "source": st.from_regex(r"\A[A-Za-z0-9./_-]{1,40}\Z"),
        "time": moments(),
        "correlation_id": st.just("") | identifiers(),
        "extensions": extensions(),
    }


@field_types.per_class
def _arguments(cls: type) -> dict[str, st.SearchStrategy[Any]]:
    known = {field.name: _by_type(field.type) for field in field_types.fields(cls)}
    taken = frozenset(known) | field_types.never_written(cls)
    extra = st.dictionaries(texts().filter(lambda k: k not in taken), json_values(), max_size=2)
    return {**known, "extra": st.just({}) | extra}


def _by_type(kind: FieldType) -> st.SearchStrategy[Any]:
    match kind:
        case Leaf():
            return _leaf(kind)
        case ListOf(item=item):
            return st.lists(_by_type(item), max_size=4).map(tuple)
        case Maybe(item=item):
            return st.none() | _by_type(item)
        case RecordType(cls=cls):
            return st.builds(_versioned, st.just(cls), st.fixed_dictionaries(_arguments(cls)))


def _leaf(leaf: Leaf) -> st.SearchStrategy[Any]:
    if "enum" in leaf.schema:
        return st.sampled_from(cast("list[str]", leaf.schema["enum"]))
    for hint, strategy in _BY_HINT.items():
        if field_types.field_type(hint) is leaf:
            return cast("st.SearchStrategy[Any]", strategy())
    raise TypeError(f"no strategy for {leaf.expected}")


_BY_HINT: Final[dict[object, Any]] = {
    str: texts,
    bool: st.booleans,
    int: lambda: st.integers(-field_types.MAX_COUNT, field_types.MAX_COUNT),
    Count: lambda: st.integers(0, field_types.MAX_COUNT),
    Seconds: lambda: st.floats(0, 1e9),
    datetime: moments,
    Identifier: identifiers,
    Reference: lambda: st.from_regex(r"\A[A-Za-z0-9./_-]{1,40}\Z"),
    UserName: lambda: st.from_regex(r"\A[A-Za-z0-9._@+][A-Za-z0-9._@+-]{0,63}\Z"),
    Base64: lambda: st.binary(min_size=1, max_size=80).map(lambda data: b64encode(data).decode()),
    PasswordHash: lambda: st.from_regex(r"\A\$(2b|6)\$[A-Za-z0-9./]{20,80}\Z"),
    names.ObjectId: object_ids,
    names.RefName: ref_names,
    names.RepoName: repo_names,
    names.NodeName: node_names,
    names.SiteName: site_names,
    Mapping[str, object]: lambda: st.dictionaries(texts(), json_values(), max_size=3),
}


def _good(parse: Any, text: str) -> bool:
    try:
        parse(text)
    except DeploykitError:
        return False
    return True
