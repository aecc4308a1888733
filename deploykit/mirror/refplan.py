"""Which refs to change, decided purely: what we hold, what the origin shows, what the policy allows.

Rules:

* Deletions come first: a branch `foo` must go before `foo/bar` can come.
* A ref whose name is not safe is refused, not skipped in silence.
* Nothing is fetched or written here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import translate
from functools import lru_cache
from typing import Final

import attrs

from deploykit.errors import InvalidName
from deploykit.mirror.model import RefChange, Refusal, zero_like
from deploykit.names import ObjectId, RefName, is_zero, parse_object_id, parse_ref_name

#: Below so many refs, deleting most of them is everyday work.
FEW_REFS: Final = 4
_SHOWN: Final = 80


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
    """Return one pattern for all of `refs/heads/*`-like globs; `*` also crosses `/`, as in a git refspec."""
    return re.compile("|".join(f"(?:{translate(p)})" for p in patterns) or r"(?!)")


def matches_nothing(pattern: str) -> bool:
    """Return whether a pattern cannot match any full ref name: it is a short one.

    >>> matches_nothing("main"), matches_nothing("refs/heads/main"), matches_nothing("*")
    (True, False, False)
    """
    fixed = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    return not (fixed.startswith("refs/") or (fixed != pattern and "refs/".startswith(fixed)))


def common_prefixes(patterns: Sequence[str]) -> tuple[str, ...]:
    """Return what to ask a server for, so that it lists no more than the patterns need.

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
    """Parse the origin's ref list: matching names with their ids, and what cannot be accepted as a name or an id."""
    matcher = ref_matcher(patterns)
    refs: dict[RefName, ObjectId] = {}
    refused: list[Refusal] = []
    for name, oid in raw:
        if not matcher.match(name):
            continue
        try:
            ref = parse_ref_name(name)
        except InvalidName:
            refused.append(Refusal(None, None, None, "its name is not acceptable", shown=_shown(name)))
            continue
        try:
            parsed = parse_object_id(oid)
        except InvalidName as exc:
            refused.append(Refusal(ref, None, None, exc.problem))
            continue
        if is_zero(parsed):
            refused.append(Refusal(ref, None, None, "the origin lists it without an object"))
        else:
            refs[ref] = parsed
    return refs, tuple(refused)


def _shown(name: str) -> str:
    """Return an unacceptable name for people: escaped, and where it is long its length instead of its end."""
    if len(name) <= _SHOWN:
        return ascii(name)
    return f"{name[:_SHOWN]!a}... ({len(name)} characters)"


def plan_refs(
    held: Mapping[RefName, ObjectId],
    origin: Mapping[RefName, ObjectId],
    *,
    only: RefName | None = None,
    max_delete_percent: float = 100.0,
    refused: Sequence[Refusal] = (),
) -> RefPlan:
    """Compare the mirror's refs with the origin's, and return what to change.

    Args:
        held: refs of the mirror that its patterns cover.
        origin: refs of the origin that the patterns cover.
        only: the one ref the origin was asked for; nothing is known of any other.
        max_delete_percent: the guard against an origin that has lost its refs; it does not apply below `FEW_REFS`.
        refused: what was refused while the list was read; kept in the plan.
    """
    names: Iterable[RefName] = (only,) if only is not None else sorted(held.keys() | origin.keys())
    deletes: list[RefChange] = []
    updates: list[RefChange] = []
    kept_out = list(refused)
    unreadable = {refusal.ref for refusal in refused}
    for ref in names:
        old, new = held.get(ref), origin.get(ref)
        if old == new:
            continue
        if new is not None:
            updates.append(RefChange(ref, old or zero_like(new), new))
        elif old is not None and ref not in unreadable:
            deletes.append(RefChange(ref, old, zero_like(old)))
    if only is None and len(held) >= FEW_REFS and len(deletes) * 100 > max_delete_percent * len(held):
        reason = f"the origin has lost {len(deletes)} of {len(held)} refs, more than {max_delete_percent:g} %"
        kept_out += [Refusal(c.ref, c.old, c.new, reason) for c in deletes]
        deletes = []
    if any(change.kind == "created" for change in updates):
        gone = {change.ref for change in deletes}
        updates, blocked = _without_conflicts((ref for ref in held if ref not in gone), updates)
        kept_out += blocked
    return RefPlan(deletes=tuple(deletes), updates=tuple(updates), refused=tuple(kept_out))


def _without_conflicts(
    staying: Iterable[RefName], updates: Sequence[RefChange]
) -> tuple[list[RefChange], list[Refusal]]:
    """Take out creations that cannot stand beside other refs: `foo` and `foo/bar` exclude each other."""
    names = set(staying)
    directories = {parent for name in names for parent in _parents(name)}
    allowed: list[RefChange] = []
    refused: list[Refusal] = []
    for change in updates:
        ref = change.ref
        parents = _parents(ref)
        clash = next((parent for parent in parents if parent in names), ref if ref in directories else None)
        if change.kind == "created" and clash is not None:
            reason = "it cannot stand beside the refs below it" if clash == ref else f"it cannot stand beside {clash}"
            refused.append(Refusal(ref, change.old, change.new, reason))
            continue
        names.add(ref)
        directories.update(parents)
        allowed.append(change)
    return allowed, refused


def _parents(ref: str) -> list[str]:
    """Return the names that are directories above `ref`: `refs/heads/a/b` -> `refs/heads/a`, `refs/heads`, `refs`."""
    found = []
    end = ref.rfind("/")
    while end > 0:
        found.append(ref[:end])
        end = ref.rfind("/", 0, end)
    return found
