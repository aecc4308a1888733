"""MCollective's filters, as the original's pages and clients used them, in the language of our selectors. Pure.

    identity   web1, /web\\d/            -> node=web1, node=/web\\d/
    class      role::web, /apache/      -> role::web, /apache/
    fact       env=live, load<2, a=~b   -> env=live, load<2, a=~/b/
    compound   /web/ and not env=stage  -> as it stands, where it means the same

Rules:

* A filter that is not understood is an error, never "every node": MCollective took a misspelt one for none.
* A regular expression is taken over as it stands. Whether re2 accepts it is seen where re2 is installed.
"""

from __future__ import annotations

import re
from typing import Final

from deploykit.errors import DeploykitError, UsageError
from deploykit.fleet.patterns import Exactly
from deploykit.fleet.selector import Selector
from deploykit.settings.facts import PSEUDO_FACTS

_REGEX = re.compile(r"/(.+)/\Z", re.DOTALL).match
#: As MCollective splits a fact filter: the longer operators first, a lone = last.
_FACT = re.compile(r"(?P<name>[^\s=<>!~]+)\s*(?P<operator>=~|==|!=|<=|=<|>=|=>|<|>|=)\s*(?P<value>\S.*)\Z").match
_OPERATORS: Final = {"==": "=", "=<": "<=", "=>": ">="}
_CLASS_WORD = re.compile(r"[A-Za-z0-9_:.@+-]+\Z").match
#: An escape, which is left alone, or a slash that is none.
_BARE_SLASH = re.compile(r"\\.|/", re.DOTALL).sub
_FUNCTION = re.compile(r"[A-Za-z_]\w*\(").search
#: What the original's pages call a filter -> what it is here. Its page knew the first three.
FILTERS: Final = ("identity_filter", "class_filter", "fact_filter", "compound_filter")


def selector_of_filter(kind: str, payload: str) -> str:
    """Return the selector that chooses what a filter chose.

    >>> selector_of_filter("fact_filter", "sitetype_shop=live"), selector_of_filter("identity_filter", "/web|db/")
    ('sitetype_shop=live', 'node=/web|db/')

    Args:
        kind: one of `FILTERS`, with or without `_filter`.
        payload: what it was given.

    Raises:
        UsageError: it is no filter, or has no counterpart.
    """
    payload = payload.strip()
    name = kind.strip().removesuffix("_filter")
    if f"{name}_filter" not in FILTERS:
        raise UsageError(
            "not a filter: MCollective ignored it and addressed every node",
            "write a selector, or --all if it was meant",
        )
    if not payload:
        raise UsageError("the filter is empty", "write a selector, or --all if every node is meant")
    text = {"identity": _identity, "class": _class, "fact": _fact, "compound": _compound}[name](payload)
    _check(text)
    return text


def _identity(payload: str) -> str:
    regex = _REGEX(payload)
    return f"node={_slashes(regex[1])}" if regex else f"node={Exactly(payload)}"


def _class(payload: str) -> str:
    regex = _REGEX(payload)
    if regex:
        return _slashes(regex[1])
    if _CLASS_WORD(payload) and payload not in ("and", "or", "not"):
        return payload
    return _slashes(f"^{re.escape(payload)}$")


def _fact(payload: str) -> str:
    found = _FACT(payload)
    if found is None:
        raise UsageError("not a comparison of a fact, such as env=live", "write one: -F FACT=VALUE")
    name, operator, value = found["name"], found["operator"], found["value"].strip()
    if not _CLASS_WORD(name) or name in ("and", "or", "not"):
        raise UsageError(f"{ascii(name)[:60]} cannot be the name of a fact in a selector", "give the fact another name")
    if name in PSEUDO_FACTS:
        name = f"facts.{name}"
    regex = _REGEX(value)
    if operator == "=~" or (operator in ("=", "==") and regex):
        # MCollective takes what follows =~ as a regular expression, with slashes around it or not.
        return f"{name}=~{_slashes(regex[1] if regex else value.strip('/'))}"
    return f"{name}{_OPERATORS.get(operator, operator)}{Exactly(value)}"


def _compound(payload: str) -> str:
    if _FUNCTION(payload):
        raise UsageError("asks a plugin of MCollective, which does not run here", "make its answer a fact of the nodes")
    return payload


def _slashes(source: str) -> str:
    """Return a regular expression between slashes, those inside it escaped."""
    return f"/{_BARE_SLASH(_escaped, source)}/"


def _escaped(found: re.Match[str]) -> str:
    return found[0] if found[0] != "/" else "\\/"


def _check(text: str) -> None:
    """Make sure that a selector parses; its regular expressions only where re2 is installed."""
    try:
        Selector.parse(text)
    except DeploykitError as error:
        if _without_re2() and "/" in text:
            return
        raise UsageError(f"has no counterpart: {error.problem}", error.remedy) from None


def _without_re2() -> bool:
    try:
        import re2  # noqa: F401 -- only whether it is there
    except ImportError:
        return True
    return False


__all__ = ["FILTERS", "selector_of_filter"]
