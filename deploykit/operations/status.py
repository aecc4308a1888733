"""Describe what a node holds, read from its disk alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypedDict

import attrs

from deploykit.builds.store import builds_of
from deploykit.daemons.agent.buildresults import wants_builds
from deploykit.daemons.agent.lockstore import lock_store_of
from deploykit.daemons.agent.mirrors import mirror_path
from deploykit.daemons.agent.trustcheck import trust_problems
from deploykit.daemons.agent.twinfile import read_twins
from deploykit.daemons.jenkins.queue import BuildQueue
from deploykit.daemons.jenkins.setup import queue_path
from deploykit.errors import DeploykitError
from deploykit.messages import one_line, utc_now
from deploykit.mirror import Mirror
from deploykit.names import RepoName, SiteName
from deploykit.outbox import Outbox
from deploykit.release import Runner, Site
from deploykit.settings.node import Settings
from deploykit.trust.check import Trust
from deploykit.trust.locks import LockBook

Entry = dict[str, object]


class MachineStatus(TypedDict):
    """What `describe` returns; every list holds one flat mapping for each entry."""

    node: str
    mirrors: list[Entry]
    sites: list[Entry]
    outbox: list[Entry]
    builds: list[Entry]
    jenkins: list[Entry]
    twins: list[Entry]
    warnings: list[str]


def describe(settings: Settings) -> MachineStatus:
    """Return what this node holds and what waits here; an entry that cannot be read has a `problem`.

    `twins` are other agents that answer under this node's name, as its agent heard them. `warnings` are reasons why no
    command for its sites could be obeyed.
    """
    now = utc_now()
    return {
        "node": settings.node,
        "mirrors": [_mirror(settings, repo) for repo in settings.repositories],
        "sites": [_site(settings, name) for name in settings.sites],
        "outbox": [_outbox(settings)],
        "builds": [_builds(settings)] if wants_builds(settings) else [],
        "jenkins": [_jenkins(settings)] if settings.jenkins.jobs else [],
        "twins": [
            {
                "instance": twin.agent.instance,
                "host": twin.agent.host,
                "seconds_ago": round((now - twin.seen).total_seconds()),
            }
            for twin in read_twins(settings.state, now)
        ],
        "warnings": list(trust_problems(settings, now)),
    }


def exit_code(status: MachineStatus) -> int:
    """Return 1 where an entry cannot be read or another agent uses this node's name, else 0."""
    entries = [*status["mirrors"], *status["sites"], *status["outbox"], *status["builds"], *status["jenkins"]]
    return 1 if status["twins"] or any("problem" in entry for entry in entries) else 0


def _mirror(settings: Settings, repo: RepoName) -> Entry:
    chosen, path = settings.repositories[repo], mirror_path(settings, repo)
    entry: Entry = {"repo": repo, "refs": 0, "path": str(path)}
    if chosen.fetch_on != "push":
        entry["fetch_on"] = chosen.fetch_on
    with _problem_into(entry):
        if (path / "HEAD").exists():
            with Mirror.open(path, chosen.url, chosen.mirror) as mirror:
                entry["refs"] = len(mirror.refs)
    return entry


def _site(settings: Settings, name: SiteName) -> Entry:
    site = settings.sites[name]
    entry: Entry = {"site": name, "current": None, "path": str(site.path)}
    if jobs := tuple(dict.fromkeys(job for repo in site.repos for job in site.jobs_of(repo))):
        entry["require_build"] = list(jobs)
    with _problem_into(entry):
        found = Site(site.path, site.release)
        current = Runner(found, node=settings.node).current()
        entry["current"] = current.name if current else None
        if current is not None and current.parts:
            entry["parts"] = [attrs.asdict(part) for part in current.parts]
        if (linked := found.live_name()) and not found.has(linked):
            entry["problem"] = one_line(f"current points at {linked}, which does not exist: nothing is live")
    with _problem_into(entry):
        kept = lock_store_of(settings.state).load().statements
        book = LockBook(Trust.from_settings(settings.trust, settings.node), kept)
        if locks := book.in_force(name, utc_now()):
            entry["locks"] = [str(lock) for lock in locks]
    return entry


def _outbox(settings: Settings) -> Entry:
    path = settings.outbox.path
    entry: Entry = {"waiting": 0, "path": str(path)}
    with _problem_into(entry):
        if path.exists():
            entry["waiting"] = sum(1 for _ in Outbox(path, create=False).pending())
    return entry


def _builds(settings: Settings) -> Entry:
    store = builds_of(settings.state)
    entry: Entry = {"results": 0, "path": str(store.path)}
    with _problem_into(entry):
        entry["results"] = store.count()
        entry["fetches_owed"] = sorted(store.owed())
    return entry


def _jenkins(settings: Settings) -> Entry:
    """Return how many builds wait here for each server, and how many no server took."""
    path = queue_path(settings.state)
    entry: Entry = {"waiting": {}, "refused": 0, "path": str(path)}
    with _problem_into(entry):
        if path.exists():
            with BuildQueue(path) as queue:
                entry["waiting"] = {server: backlog.waiting for server, backlog in queue.backlog().items()}
                entry["refused"] = queue.count("refused")
    return entry


@contextmanager
def _problem_into(entry: Entry) -> Iterator[None]:
    try:
        yield
    except (DeploykitError, OSError) as error:
        entry["problem"] = one_line(str(error))
