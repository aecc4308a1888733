"""How far the nodes of a fleet are from one release of a site. Pure.

Rules:

* What is live counts, as each node read it from its site; never what was asked for.
* What was tampered with, or failed last, is shown as that, also where the right commit is live.
* A site that is not current, and that a lock keeps so, is `frozen`. One that is current stays it, locked or not.
* A release is `outdated` only where something shows it: it is an older tag, an older commit of the same branch, or what
  nodes that are current had before. Everything else is `other`.
* Of several repositories each is compared: what is newer in one and older in another is `other`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Final, Literal, TypeAlias, get_args

import attrs

from deploykit.messages import NodeDescribed, SiteRelease, SiteState, one_line
from deploykit.messages.site import SitePart, Versioned, check_parts, name_of, named
from deploykit.names import NodeName, ObjectId, RefName, RepoName, SiteName, short_ref

Drift = Literal["current", "outdated", "other", "frozen", "modified", "failed", "silent", "unexpected"]
DRIFTS: Final[tuple[Drift, ...]] = get_args(Drift)

_FAILED: Final = frozenset({"failure", "rolled-back", "interrupted"})
_TAGS: Final = "refs/tags/"
#: A ref, where one is known, and a commit of one repository.
_Source: TypeAlias = tuple[RefName | None, ObjectId]
#: What a deploy would change.
_NOT_YET: Final = frozenset({"outdated", "other"})


@attrs.frozen(kw_only=True, slots=True)
class WantedRelease:
    """What counts as current on a site, and why just this.

    Args:
        ref: one that stands for the commit.
        reason: for people: who said so, or by which rule it was chosen.
        parts: of each repository, where the site is made of several; `commit` is their id.
    """

    ref: RefName | None
    commit: ObjectId
    reason: str
    parts: tuple[SitePart, ...] = attrs.field(default=(), validator=check_parts)

    def __str__(self) -> str:
        return name_of(self)


@attrs.frozen(kw_only=True, slots=True)
class ShownLock:
    """A lock that is in force on a node.

    Args:
        holder: who locked, in words; may be empty.
        until: when it ends by itself.
        text: who, why and until when, in one line.
    """

    holder: str
    until: datetime
    text: str


@attrs.frozen(kw_only=True, slots=True)
class NodeDrift:
    """A site on one node, compared.

    Args:
        live, since: what is live there; None where nothing is, or where the node was not heard.
        lock: the lock that holds the site there; None where none does.
        detail: what a person should know beyond `drift`; may be empty.
    """

    node: NodeName
    drift: Drift
    live: SiteRelease | None = None
    since: datetime | None = None
    detail: str = ""
    lock: ShownLock | None = None


@attrs.frozen(kw_only=True, slots=True)
class SiteDrift:
    """A site on all its nodes. `wanted` is None where nothing is live on any."""

    site: SiteName
    wanted: WantedRelease | None
    nodes: tuple[NodeDrift, ...]

    @property
    def counts(self) -> Mapping[Drift, int]:
        """How many nodes there are of each kind, those that occur."""
        found = Counter(each.drift for each in self.nodes)
        return {kind: found[kind] for kind in DRIFTS if found[kind]}


class FleetReleases:
    """What described nodes show together: their sites, and how old the refs are that they hold.

    Args:
        nodes: descriptions with the details `sites` (or `drift`) and `refs`.
    """

    def __init__(self, nodes: Iterable[NodeDescribed]) -> None:
        self._nodes = sorted(nodes, key=lambda each: each.node)
        self._times: dict[tuple[RepoName, ObjectId], datetime] = {}
        self._held: dict[tuple[RepoName, RefName], tuple[float, ObjectId]] = {}
        for node in self._nodes:
            for held in node.refs:
                if held.time is not None:
                    self._times[held.repo, held.commit] = held.time
                found = (held.time.timestamp() if held.time is not None else float("-inf"), held.commit)
                self._held[held.repo, held.ref] = max(found, self._held.get((held.repo, held.ref), found))

    @property
    def sites(self) -> tuple[SiteName, ...]:
        """The sites that any node has, by name."""
        return tuple(sorted({state.site for node in self._nodes for state in node.sites}))

    def nodes_without(self, site: SiteName) -> tuple[NodeName, ...]:
        """Return the nodes that do not have a site."""
        return tuple(node.node for node in self._nodes if _state_of(node, site) is None)

    def repositories(self, site: SiteName) -> tuple[RepoName, ...]:
        """Return the repositories that a site is made of on any node, by name; none where it is one everywhere."""
        return tuple(sorted({repo for state in self._states(site) for repo in state.repos}))

    def named_ref(self, site: SiteName, name: str) -> WantedRelease | None:
        """Return what a ref of a site's one repository stands for, by what nodes hold or have live, or None."""
        wanted = {name} if name.startswith("refs/") else {f"refs/tags/{name}", f"refs/heads/{name}"}
        found: list[tuple[bool, float, ObjectId, RefName, str]] = []
        for state in self._states(site):
            if state.repos:
                continue
            for (repo, ref), (time, commit) in self._held.items():
                if repo == state.repo and ref in wanted:
                    found.append((ref.startswith(_TAGS), time, commit, ref, "as the nodes' mirrors hold it"))
            if state.ref in wanted and state.commit is not None:
                live = self._age(state.repo, state)
                time = live[0].timestamp() if live is not None else float("-inf")
                found.append((state.ref.startswith(_TAGS), time, state.commit, state.ref, "as a node has it live"))
        if not found:
            return None
        _, _, commit, ref, reason = max(found)
        return WantedRelease(ref=ref, commit=commit, reason=f"asked for, {reason}")

    def newest_live(self, site: SiteName) -> WantedRelease | None:
        """Return the newest release that any node has live; without ages, the one that most nodes have."""
        states = [state for state in self._states(site) if state.commit is not None]
        counts = Counter(state.commit for state in states if state.commit is not None)
        if not counts:
            return None
        ages = {state.commit: self._age(state.repo, state) for state in states if state.commit is not None}
        known = {commit: age for commit, age in ages.items() if age is not None}
        if len(known) == len(counts):
            commit = max(known, key=lambda each: (known[each], counts[each], each))
            rule = "the newest that is live"
        else:
            commit = max(counts, key=lambda each: (counts[each], each))
            rule = "what most nodes have live"
        refs = [state.ref for state in states if state.commit == commit and state.ref is not None]
        ref = max(refs, key=lambda each: (each.startswith(_TAGS), each)) if refs else None
        parts = next(state.parts for state in states if state.commit == commit)
        many = f"{counts[commit]} of {len(states)} nodes"
        reason = f"{rule}, on {many}" if len(counts) > 1 else f"on {many}"
        return WantedRelease(ref=ref, commit=commit, reason=reason, parts=parts)

    def drift(
        self,
        site: SiteName,
        wanted: WantedRelease | None,
        *,
        silent: Iterable[NodeName] = (),
        unexpected: Iterable[NodeName] = (),
        locked: Callable[[SiteState], ShownLock | None] = lambda _: None,
    ) -> SiteDrift:
        """Return how each node's site differs from what is wanted.

        Args:
            site: nodes without it are left out.
            wanted: None: nothing is current.
            silent: nodes that did not answer, and may have the site.
            unexpected: nodes that answered and should not be there.
            locked: returns the lock that holds a site on the node that described it.
        """
        strangers = frozenset(unexpected)
        had_before = {
            state.previous.commit
            for state in self._states(site)
            if wanted is not None and state.commit == wanted.commit and state.previous is not None
        }
        found = [NodeDrift(node=node, drift="silent", detail="it did not answer") for node in silent]
        for node in self._nodes:
            state = _state_of(node, site)
            if state is not None:
                kind, detail = self._compare(state, wanted, had_before)
                lock = locked(state)
                if lock is not None:
                    detail = one_line("; ".join(filter(None, (kind if kind in _NOT_YET else "", detail, lock.text))))
                    kind = "frozen" if kind in _NOT_YET else kind
                if node.node in strangers:
                    kind, detail = "unexpected", one_line(f"not on the list; {kind}{': ' if detail else ''}{detail}")
                live = _live(state)
                found.append(
                    NodeDrift(node=node.node, drift=kind, live=live, since=state.since, detail=detail, lock=lock)
                )
        return SiteDrift(site=site, wanted=wanted, nodes=tuple(sorted(found, key=lambda each: each.node)))

    def _compare(
        self, state: SiteState, wanted: WantedRelease | None, had_before: set[ObjectId | None]
    ) -> tuple[Drift, str]:
        if state.problem:
            return "failed", one_line(state.problem)
        last = state.last
        if last is not None and last.outcome in _FAILED:
            what = named(last.ref, last.commit, last.release, parts=last.parts)
            why = f": {last.detail}" if last.detail else ""
            return "failed", one_line(f"{last.phase} {what} {last.outcome}{why}")
        position, detail = self._position(state, wanted, had_before)
        if state.modified:
            paths = "1 path differs" if state.modified == 1 else f"{state.modified} paths differ"
            more = "" if position == "current" else f", and it is {position}"
            return "modified", f"{paths} from the release{more}"
        return position, detail

    def _position(
        self, state: SiteState, wanted: WantedRelease | None, had_before: set[ObjectId | None]
    ) -> tuple[Drift, str]:
        if not state.release:
            return "other", "nothing is live"
        if wanted is None or state.commit is None:
            return "other", "it is not known which commit is live" if state.commit is None else ""
        if state.commit == wanted.commit:
            same = wanted.ref is None or state.ref in (None, wanted.ref)
            return "current", "" if same or state.ref is None else f"as {short_ref(state.ref)}"
        if state.commit in had_before:
            return "outdated", _others(state, wanted)
        return self._compared(state, wanted)

    def _compared(self, state: SiteState, wanted: WantedRelease) -> tuple[Drift, str]:
        """Compare what is live with another version, repository by repository."""
        live, newest = _sources(state.repo, state), _sources(state.repo, wanted)
        if live.keys() != newest.keys():
            return "other", "of other repositories"
        others = [repo for repo in live if live[repo][1] != newest[repo][1]]
        if not others:  # other refs for the same commits
            return "current", f"as {named(None, None, parts=state.parts)}"
        found = {self._beside(repo, live[repo], newest[repo]) for repo in others}
        kind, detail = found.pop() if len(found) == 1 else ("other", "")
        return kind, ": ".join(filter(None, (detail, _others(state, wanted))))

    def _beside(self, repo: RepoName, live: _Source, newest: _Source) -> tuple[Drift, str]:
        """Compare what is live of one repository with another commit of it."""
        (ref, commit), (wanted, newer) = live, newest
        same_ref = ref is not None and ref == wanted
        both_tags = all(each is not None and each.startswith(_TAGS) for each in (ref, wanted))
        age, other = self._times.get((repo, commit)), self._times.get((repo, newer))
        if age is not None and other is not None:
            older = age < other and (same_ref or both_tags)
            return ("outdated" if older else "other"), ("newer than that" if age > other else "")
        return ("outdated" if same_ref else "other"), ""

    def _states(self, site: SiteName) -> list[SiteState]:
        states = (_state_of(node, site) for node in self._nodes)
        return [state for state in states if state is not None]

    def _age(self, repo: RepoName, record: Versioned) -> tuple[datetime, ...] | None:
        """Return the times of a version's commits, the newest first; None where one is not known.

        Of two versions with the same repositories, the one that is nowhere older and somewhere newer is the greater.
        """
        times = [self._times.get((each, commit)) for each, (_, commit) in _sources(repo, record).items()]
        known = [time for time in times if time is not None]
        return tuple(sorted(known, reverse=True)) if len(known) == len(times) else None


def _sources(repo: RepoName, record: Versioned) -> Mapping[RepoName, _Source]:
    """Return what a version has of each repository: of `repo`, where it is not made of several."""
    if record.parts:
        return {part.repo: (part.ref, part.commit) for part in record.parts}
    return {repo: (record.ref, record.commit)} if record.commit is not None else {}


def _others(state: SiteState, wanted: WantedRelease) -> str:
    """Return the parts that are live at other commits than are wanted; nothing for a site of one repository."""
    newest = _sources(state.repo, wanted)
    others = (part for part in state.parts if newest.get(part.repo, (None, None))[1] != part.commit)
    return ", ".join(f"{part.repo} {named(part.ref, part.commit)}" for part in others)


def _live(state: SiteState) -> SiteRelease | None:
    if not state.release:
        return None
    return SiteRelease(release=state.release, ref=state.ref, commit=state.commit, parts=state.parts)


def _state_of(node: NodeDescribed, site: SiteName) -> SiteState | None:
    return next((state for state in node.sites if state.site == site), None)


__all__ = ["DRIFTS", "Drift", "FleetReleases", "NodeDrift", "ShownLock", "SiteDrift", "WantedRelease"]
