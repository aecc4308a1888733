"""What a deploy command's release is made from: the mirrors of its repositories, with what it names fetched.

Rules:

* Each commit must be there under its ref: a mirror that holds it so is not fetched, unless it lacks objects of Git LFS.
* Mirrors are opened once for a command, and closed by its owner's stack. Nothing of them is open while one is fetched:
  a damaged one is cloned anew by that.
* Which repositories a site has, its settings say; a command can only agree.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import Final

from deploykit.daemons.agent.damage import damaged_among
from deploykit.daemons.agent.mirrors import MirrorHandler
from deploykit.daemons.agent.progress import CommandProgress
from deploykit.daemons.agent.submodules import lacking_of, with_submodules
from deploykit.errors import DeploykitError, LfsMissing, MirrorError, PolicyRefused
from deploykit.messages import DeployRequested
from deploykit.mirror import Mirror
from deploykit.mirror.submodules import ResolvingSource, SubmoduleSource
from deploykit.names import ObjectId, RefName, RepoName
from deploykit.release import PartSource, TreeSource
from deploykit.settings.node import Settings
from deploykit.settings.site import NodeSiteSettings

_log = logging.getLogger(__name__)

#: The step of a command's progress in which its commit is fetched. It is the mirror's: no release has it among its own.
FETCH: Final = "fetch"


def other_repositories(request: DeployRequested, site: NodeSiteSettings) -> str:
    """Return why a command for something new does not name the repositories that a site is made of; empty if it does.

    The way back may lead to before the site's settings were changed, so it is not asked.
    """
    if request.phase in ("rollback", "discard"):
        return ""
    asked = tuple(part.repo for part in request.parts)
    of_site = tuple(sorted(site.parts))
    if asked == of_site:
        return ""
    if not of_site:
        return f"site {request.site} is made of one repository here, and the command names parts"
    named = f"those of {', '.join(asked)}" if asked else "one commit"
    return f"site {request.site} is made of {', '.join(of_site)} here, and the command names {named}"


class CommandSources:
    """Opens and fetches for one command. For one thread.

    Args:
        settings: of the node.
        mirrors: where the files come from.
        request: the command.
        progress: of the command.
        stack: closes the mirrors.
    """

    def __init__(
        self,
        settings: Settings,
        mirrors: MirrorHandler,
        request: DeployRequested,
        progress: CommandProgress,
        stack: ExitStack,
    ) -> None:
        self._settings = settings
        self._mirrors = mirrors
        self._request = request
        self._progress = progress
        self._stack = stack
        self._site = settings.sites[request.site]
        self._opened: dict[RepoName, Mirror] = {}
        self._sources: dict[RepoName, ResolvingSource] = {}

    def source(self) -> TreeSource:
        """Return what the command's release can be made from, fetched where it was not there.

        Raises:
            DeploykitError: a mirror cannot be opened or fetched, or the command names no repository of this node.
        """
        request, site = self._request, self._site
        if request.parts:
            for part in request.parts:
                self._with(part.repo, part.ref, part.commit)
            places = {part.repo: site.parts.get(part.repo, part.repo) for part in request.parts}
            return PartSource(places, self._open)
        if site.repo is None or request.ref is None:
            raise PolicyRefused(
                f"site {request.site} is made of several repositories, and the command names one commit"
            )
        return self._with(site.repo, request.ref, request.commit)

    def damaged(self, error: BaseException | None) -> frozenset[RepoName]:
        """Return the repositories whose mirrors an error from such a source says are damaged."""
        return damaged_among(self._opened, error)

    def fetch_objects(self, missing: LfsMissing) -> None:
        """Fetch the mirrors that lack objects of Git LFS: a fetch may still go on, or they were pushed since."""
        request = self._request
        asked = {part.repo: (part.ref, part.commit) for part in request.parts}
        for name in missing.repos:
            repo = RepoName(name) if name else self._site.repo
            if repo is not None:
                _log.info("[%s] does not hold all objects of Git LFS yet: fetching", repo)
                ref, commit = asked.get(repo, (request.ref, request.commit) if not name else (None, None))
                self._fetch(repo, ref, commit)

    def _open(self, repo: RepoName) -> ResolvingSource:
        if repo not in self._sources:
            self._sources[repo] = self._with_submodules(self._mirror(repo))
        return self._sources[repo]

    def _mirror(self, repo: RepoName) -> Mirror:
        if repo not in self._opened:
            if repo not in self._settings.repositories:
                raise PolicyRefused(f"this node has no repository {repo}", "add it to [repositories]")
            self._opened[repo] = self._stack.enter_context(self._mirrors.mirror(repo))
        return self._opened[repo]

    def _with_submodules(self, mirror: Mirror) -> ResolvingSource:
        release = self._site.release
        if release.submodules != "mirror":
            return mirror
        source = with_submodules(mirror, self._settings, release.submodule_depth, self._mirror)
        self._stack.callback(source.release)
        return source

    def _with(self, repo: RepoName, ref: RefName, commit: ObjectId) -> ResolvingSource:
        """Return a repository that holds a commit under its ref, with the commits of its submodules."""
        if not self._holds(repo, ref, commit):
            _log.info("[%s] does not hold %s yet: fetching", repo, ref)
            self._fetch(repo, ref, commit)
        source = self._open(repo)
        if isinstance(source, SubmoduleSource):
            self._fetch_submodules(source, commit)
        return source

    def _holds(self, repo: RepoName, ref: RefName, commit: ObjectId) -> bool:
        mirror = self._mirror(repo)
        try:
            return mirror.resolve(ref).commit == commit
        except MirrorError as error:
            for damaged in damaged_among({repo: mirror}, error):
                self._mirrors.reclone(damaged)
            return False

    def _fetch_submodules(self, source: SubmoduleSource, commit: ObjectId) -> None:
        """Fetch what the mirrors of submodules lack, once each. A tree that cannot be read: its writer says why."""
        fetched: set[RepoName] = set()
        while True:  # one that was fetched may show further ones
            try:
                lacking = lacking_of(source.missing(commit))
            except DeploykitError:
                return
            new = sorted(lacking.keys() - fetched)
            if not new:
                return
            for repo in new:
                if lacking[repo]:
                    self._mirrors.reclone(repo)
                _log.info("[%s] does not hold a submodule's commit yet: fetching", repo)
                self._fetch(repo)
            fetched.update(new)

    def _fetch(self, repo: RepoName, ref: RefName | None = None, commit: ObjectId | None = None) -> None:
        """Fetch a mirror. What was open before is opened anew when it is read."""
        for source in self._sources.values():
            if isinstance(source, SubmoduleSource):
                source.release()
        for mirror in self._opened.values():
            mirror.close()
        with self._progress.step(FETCH) as fetching:
            fetching.done = self._mirrors.sync(
                repo, ref=ref, commit=commit, correlation_id=self._request.correlation_id
            )


__all__ = ["FETCH", "CommandSources", "other_repositories"]
