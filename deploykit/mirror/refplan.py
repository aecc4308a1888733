"""Which refs to change, decided purely: what we hold, what the origin shows, what the policy allows.

Rules: deletions come first (a branch `foo` must go before `foo/bar` can come); a ref that git or we cannot name safely
is refused, not skipped in silence; nothing is fetched or written here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import translate
from functools import lru_cache

import attrs

from deploykit.errors import InvalidName
from deploykit.mirror.values import RefChange, Refusal, zero_like
from deploykit.names import ObjectId, RefName, parse_object_id, parse_ref_name


@attrs.frozen(kw_only=True, slots=True)
class RefPlan:
    """The decided changes, in the order to make them, and what is refused."""

    deletes: tuple[RefChange, ...] = ()
    updates: tuple[RefChange, ...] = ()
    refused: tuple[Refusal, ...] = ()

    @property
    def changes(self) -> tuple[RefChange, ...]:
        """All changes, deletions first."""
        return self.deletes + self.updates


@lru_cache(maxsize=64)
def ref_matcher(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """One pattern for all of `refs/heads/*`-like globs; `*` also crosses `/`, as in a git refspec."""
    return re.compile("|".join(f"(?:{translate(p)})" for p in patterns) or r"(?!)")


def common_prefixes(patterns: Sequence[str]) -> tuple[str, ...]:
    """What to ask a server for, so that it lists no more than the patterns need.

    >>> common_prefixes(("refs/heads/*", "refs/tags/v[0-9]*", "refs/heads/main"))
    ('refs/heads/', 'refs/tags/v')
    """
    cut = sorted({re.split(r"[*?\[]", p, maxsplit=1)[0] for p in patterns})
    kept: list[str] = []
    for prefix in cut:
        if not (kept and prefix.startswith(kept[-1])):
            kept.append(prefix)
    return tuple(kept)


def read_advertised(
    raw: Iterable[tuple[str, str]], patterns: tuple[str, ...]
) -> tuple[dict[RefName, ObjectId], tuple[Refusal, ...]]:
    """Parse the origin's ref list: wanted names with their ids, and what cannot be accepted as a name or an id."""
    wanted = ref_matcher(patterns)
    refs: dict[RefName, ObjectId] = {}
    refused: list[Refusal] = []
    for name, oid in raw:
        if not wanted.match(name):
            continue
        try:
            refs[parse_ref_name(name)] = parse_object_id(oid)
        except InvalidName as exc:
            refused.append(Refusal(ascii(name)[1:-1], ObjectId(""), ObjectId(""), exc.problem))
    return refs, tuple(refused)


def plan_refs(
    held: Mapping[RefName, ObjectId],
    origin: Mapping[RefName, ObjectId],
    *,
    only: RefName | None = None,
) -> RefPlan:
    """Compare and decide.

    Args:
        held: refs of the mirror that its patterns cover.
        origin: refs of the origin that the patterns cover.
        only: the one ref the origin was asked for; nothing is said about any other.
    """
    names = [only] if only is not None else sorted(held.keys() | origin.keys())
    deletes: list[RefChange] = []
    updates: list[RefChange] = []
    for ref in names:
        old, new = held.get(ref), origin.get(ref)
        if old == new:
            continue
        if new is None:
            if old is not None:
                deletes.append(RefChange(ref, old, zero_like(old)))
        else:
            updates.append(RefChange(ref, old or zero_like(new), new))
    return RefPlan(deletes=tuple(deletes), updates=tuple(updates))
