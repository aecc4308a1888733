"""A site of several repositories, and what git itself would put in its place."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from deploykit.git.repository import Repository
from deploykit.mirror.submodules import ResolvingSource
from deploykit.names import RepoName
from deploykit.release import DeployResult, PartRequest, PartSource, Preview, Release, Runner, Site, StepRecord
from deploykit.settings import SiteSettings
from deploykit.trees import compare
from tests.support.submodules import Worked, files_of

OURS = ("TAG", ".deploykit/REVISION", ".deploykit/PARTS")
T = TypeVar("T")


class Assembly:
    """Repositories, and the site that is made of them.

    Args:
        base: a directory for all of it.
        places: repository -> subdirectory.
        where: the site's parent, where that is not `base`.
    """

    def __init__(
        self,
        base: Path,
        places: Mapping[str, str],
        settings: SiteSettings | None = None,
        *,
        where: Path | None = None,
    ) -> None:
        self.base = base
        self.places = {RepoName(repo): place for repo, place in places.items()}
        self.repos = {repo: Worked(base, repo) for repo in self.places}
        self.path = (where or base) / "site"
        self.settings = settings or SiteSettings(grace=0)

    @property
    def site(self) -> Site:
        """The site, read anew."""
        return Site(self.path, self.settings)

    @property
    def runner(self) -> Runner:
        return Runner(self.site, node="n")

    def source(self, stack: ExitStack) -> PartSource:
        """Return what a site is made from, as an agent would."""
        opened: dict[RepoName, ResolvingSource] = {}

        def open_once(repo: RepoName) -> ResolvingSource:
            if repo not in opened:
                opened[repo] = self.opened(repo, stack)
            return opened[repo]

        return PartSource(self.places, open_once)

    def opened(self, repo: RepoName, stack: ExitStack) -> ResolvingSource:
        """Open one repository."""
        return stack.enter_context(Repository(self.repos[repo].origin))

    def by(self, act: Callable[[PartSource], T]) -> T:
        """Do something with a source, and close it."""
        with ExitStack() as stack:
            return act(self.source(stack))

    def deploy(self, commit: str = "", /, **refs: str) -> DeployResult:
        """Deploy, each repository by a tag or branch; those that are not named stay."""
        return self.by(lambda source: self.runner.deploy(source, commit=commit, parts=wanted(refs)))

    def preview(self, **refs: str) -> Preview:
        return self.by(lambda source: self.runner.preview(source, parts=wanted(refs)))

    def rollback(self, to: str = "", *, rebuild: bool = False) -> DeployResult:
        return self.by(lambda source: self.runner.rollback(to, source=source if rebuild else None))

    def live(self) -> Release:
        """The live release; there must be one."""
        found = self.runner.current()
        assert found is not None
        return found

    def read(self, path: str) -> str:
        """A file of the live release."""
        return (self.path / "current" / path).read_text()

    def archived(self, **refs: str) -> dict[str, tuple[str, bytes]]:
        """Return the files that `git archive` writes of each repository, put in its place."""
        found: dict[str, tuple[str, bytes]] = {}
        for number, (repo, ref) in enumerate(refs.items()):
            where = self.base / f"archive-{len(list(self.base.iterdir()))}-{number}"
            where.mkdir()
            origin = str(self.repos[RepoName(repo)].origin)
            archive = subprocess.run(["git", "-C", origin, "archive", ref], capture_output=True, check=True).stdout
            subprocess.run(["tar", "-x", "-C", str(where)], input=archive, check=True)
            place = self.places[RepoName(repo)]
            found |= {f"{place}/{path}": content for path, content in files_of(where).items()}
        return found

    def is_as_archived(self, **refs: str) -> None:
        """Compare what is live with what git writes, file by file, and with its own record."""
        expected = self.archived(**refs)
        assert expected
        assert files_of(self.path / "current", but=OURS) == expected
        name = self.site.live_name()
        assert not compare(self.site.manifest(name), self.site.release_path(name), paranoid=True)


def wanted(refs: Mapping[str, str]) -> dict[RepoName, PartRequest]:
    """Return requests for tags and branches; `ref@commit` says what it must stand for."""
    pairs = {repo: text.partition("@") for repo, text in refs.items()}
    return {RepoName(repo): PartRequest(ref=ref, commit=commit) for repo, (ref, _, commit) in pairs.items()}


def export_of(result: DeployResult) -> StepRecord:
    """The step that writes the files."""
    return next(step for step in result.steps if step.name == "export")


__all__ = ["OURS", "Assembly", "export_of", "wanted"]
