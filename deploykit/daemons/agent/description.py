"""What one node says of itself: a `NodeDescribed`, asked for or not.

Rules:

* Everything is read when it is asked for, from the node's own disk; nothing is copied from a question.
* Whatever cannot be read is named in it, and the rest is said all the same.
* A question about one site gets the refs of that site's repository alone.
* One that costs more is bounded: by counts, by seconds, and by the size of the body.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

import attrs

from deploykit._version import __version__
from deploykit.daemons.access.statefile import AccessState, read_state
from deploykit.daemons.agent.descriptionsize import fit_description
from deploykit.daemons.agent.factsources import FactSources, KnownFacts
from deploykit.daemons.agent.mirrors import mirror_path
from deploykit.daemons.agent.sitestates import describe_site
from deploykit.errors import AccessError, DeploykitError, MessageError
from deploykit.messages import AgentInstance, NodeDescribed, NodeQueried, one_line
from deploykit.messages.node import HeldRef, NodeDetail, SiteState
from deploykit.messages.statement import SignedStatement
from deploykit.mirror.newest import NewestRefs
from deploykit.names import RepoName, SiteName
from deploykit.release import Site
from deploykit.settings.node import Settings

_log = logging.getLogger(__name__)

#: What is said unasked.
UNASKED: Final[tuple[NodeDetail, ...]] = ("facts", "sites")
#: Most refs of all repositories, and operations of all sites, that are looked at; the size of the body allows fewer.
MAX_REFS: Final = 1000
MAX_HISTORY: Final = 1000
#: Seconds for the refs of all mirrors, and for the comparisons of all sites with their manifests.
REFS_SECONDS: Final = 3.0
DRIFT_SECONDS: Final = 10.0


class NodeDescriber:
    """Describes one node. Use it from any thread.

    Args:
        settings: the node's.
        facts: what it knows of itself.
        me: returns which agent this is.
        twins: returns the other agents of this name.
        lock: returns the statement that decides on the lock of a site; None where nothing is known.
    """

    def __init__(
        self,
        settings: Settings,
        facts: FactSources,
        *,
        me: Callable[[], AgentInstance],
        twins: Callable[[], tuple[AgentInstance, ...]],
        lock: Callable[[SiteName], SignedStatement | None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._facts = facts
        self._me = me
        self._twins = twins
        self._lock = lock
        self._reading = threading.Lock()
        self._refs = {repo: NewestRefs(mirror_path(settings, repo)) for repo in settings.repositories}
        self._logged: tuple[str, ...] = ()

    def unasked(self) -> NodeDescribed:
        """Return what the node says of itself unasked.

        Raises:
            MessageError: it holds what no reader would accept.
        """
        return self._described(NodeQueried(details=UNASKED), lambda _: True)

    def answer(self, question: NodeQueried, copy: str, *, visible: Callable[[SiteName], bool]) -> NodeDescribed:
        """Return the answer to a question.

        Args:
            question: what is asked for.
            copy: names the signed copy that is answered.
            visible: whether the asker may ask about a site.

        Raises:
            MessageError: it holds what no reader would accept.
        """
        described = self._described(question, visible)
        return attrs.evolve(
            described,
            request=question.id,
            answers=copy,
            correlation_id=question.correlation_id or question.id,
        )

    def _described(self, question: NodeQueried, visible: Callable[[SiteName], bool]) -> NodeDescribed:
        me, settings = self._me(), self._settings
        cut: list[str] = []
        known = self._known_facts() if "facts" in question.details else KnownFacts()
        sites = [name for name in settings.sites if visible(name) and (question.site is None or name == question.site)]
        states = self._states(sites, question, cut) if _SITES & set(question.details) else ()
        refs, count = self._held(self._repos(question, sites), question, cut) if "refs" in question.details else ((), 0)
        access = self._access(cut) if "access" in question.details else AccessState()
        protects = [name for name in access.sites if visible(name) and (question.site is None or name == question.site)]
        described = NodeDescribed(
            source=f"agent/{settings.node}",
            node=settings.node,
            instance=me.instance,
            host=me.host,
            twins=self._twins(),
            version=__version__,
            facts=known.facts,
            classes=known.classes,
            sites=states,
            refs=refs,
            refs_count=count,
            protects=tuple(protects),
            access=tuple(user for name in protects for user in access.described(name)),
            cut=_few((*known.cut, *cut)),
        )
        try:
            return fit_description(described)
        except MessageError as error:
            _log.error("cannot describe all sites of this node: %s", error)
            bare = attrs.evolve(described, sites=(), refs=(), cut=(*described.cut, "records are damaged"))
            return fit_description(attrs.evolve(bare, sites=tuple(_sound(bare, state) for state in described.sites)))

    def marks(self) -> tuple[object, ...]:
        """Return what changes whenever `unasked` may: the marks of two moments are equal, or something may differ."""
        known = self._known_facts()
        sites = (Site(site.path) for site in self._settings.sites.values())
        locks = tuple(map(self._lock, self._settings.sites))
        return (known.facts, known.classes, known.cut, self._twins(), tuple(map(_site_mark, sites)), locks)

    def _known_facts(self) -> KnownFacts:
        known = self._facts.read()
        if known.problems != self._logged:
            for problem in known.problems:
                if problem not in self._logged:
                    _log.warning("facts: %s", problem)
            self._logged = known.problems
        return known

    def _access(self, cut: list[str]) -> AccessState:
        """Return what the access daemon has written down; an empty one where it never ran here."""
        try:
            return read_state(self._settings.state) or AccessState()
        except AccessError as error:
            _log.warning("%s", error)
            cut.append("access: it cannot be read here; see the log of the agent")
            return AccessState()

    def _states(self, names: list[SiteName], question: NodeQueried, cut: list[str]) -> tuple[SiteState, ...]:
        end = time.monotonic() + DRIFT_SECONDS
        asked = question.history_limit if "history" in question.details else 0
        history = _share("operations of each site", asked, MAX_HISTORY, len(names), cut)
        states, skipped = [], 0
        for name in names:
            drift = "drift" in question.details
            if drift and time.monotonic() >= end:
                drift, skipped = False, skipped + 1
            state, missing = describe_site(name, self._settings.sites[name], drift=drift, history=history)
            states.append(attrs.evolve(state, lock=self._lock(name)))
            cut += missing
        if skipped:
            cut.append(f"drift: not counted for {skipped} of {len(names)} sites within {DRIFT_SECONDS:g} s")
        return tuple(states)

    def _repos(self, question: NodeQueried, sites: list[SiteName]) -> list[RepoName]:
        """Return the repositories whose refs may be listed: all, or those of the sites where not all are visible."""
        everything = question.site is None and len(sites) == len(self._settings.sites)
        of_sites = {repo for name in sites for repo in self._settings.sites[name].repos}
        wanted = [repo for repo in self._refs if everything or repo in of_sites]
        return [repo for repo in wanted if question.repo is None or repo == question.repo]

    def _held(self, repos: list[RepoName], question: NodeQueried, cut: list[str]) -> tuple[tuple[HeldRef, ...], int]:
        """Return the newest refs of each repository, and how many there are in all."""
        end = time.monotonic() + REFS_SECONDS
        limit = _share("refs of each repository", question.refs_limit, MAX_REFS, len(repos), cut)
        held: list[HeldRef] = []
        count = 0
        with self._reading:
            for repo in repos:
                try:
                    newest = self._refs[repo].read(limit, seconds=max(0.0, end - time.monotonic()))
                except (DeploykitError, OSError) as error:
                    _log.warning("cannot list the refs of %s: %s", repo, error)
                    cut.append(one_line(f"refs of {repo}: the mirror cannot be read"))
                    continue
                count += newest.count
                if not newest.complete:
                    cut.append(f"refs of {repo}: not all of {newest.count} were looked at within {REFS_SECONDS:g} s")
                held += (HeldRef(repo=repo, ref=r.ref, commit=r.commit, time=r.time) for r in newest.refs)
        return tuple(held), count


def _site_mark(site: Site) -> tuple[object, ...]:
    try:
        found = site.state_file.stat()
        return found.st_mtime_ns, found.st_size, found.st_ino, site.live_name()
    except OSError as error:
        return (error.errno,)


def _sound(bare: NodeDescribed, state: SiteState) -> SiteState:
    """Return what is said of a site; where no reader would accept that, only that its records are damaged."""
    try:
        fit_description(attrs.evolve(bare, sites=(state,)))
    except MessageError:
        return SiteState(
            site=state.site,
            repo=state.repo,
            problem="its records are damaged",
            require=state.require,
            signatures=state.signatures,
        )
    return state


def _share(what: str, asked: int, most: int, among: int, cut: list[str]) -> int:
    """Return how many of what is asked for each of several gets, so that all of them together get at most so many."""
    share = min(asked, max(1, most // max(1, among)))
    if share < asked:
        cut.append(f"{what}: at most {share}, asked were {asked}")
    return share


def _few(lines: tuple[str, ...]) -> tuple[str, ...]:
    """Return the lines; of very many, the first."""
    return lines if len(lines) <= _MOST_LINES else (*lines[:_MOST_LINES], f"and {len(lines) - _MOST_LINES} more")


#: Lines of `cut`.
_MOST_LINES: Final = 50
#: Details that include the sites.
_SITES: Final = frozenset({"sites", "drift", "history"})
