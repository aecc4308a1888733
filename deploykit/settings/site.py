"""Sites: how a release is made, switched and kept, and where a node has which site."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal
from urllib.parse import urlsplit

import attrs

from deploykit.names import RepoName
from deploykit.settings.credentials import hide_credentials
from deploykit.settings.partplaces import place_problems
from deploykit.settings.problems import below
from deploykit.settings.tree import TreeSettings
from deploykit.system.users import AS_OWNER

#: The steps of a deploy that run a script of that name when there is one, in their order.
SCRIPTS: Final = ("pre-deploy", "pre-link", "post-deploy", "health-check")
_NOTHING: Mapping[str, str] = MappingProxyType({})
_NO_TIMES: Mapping[str, float] = MappingProxyType({})
_NO_ANSWERS: Mapping[str, Literal["again", "skip", "stop"]] = MappingProxyType({})
_NO_JOBS: Mapping[RepoName, tuple[str, ...]] = MappingProxyType({})
_NO_PARTS: Mapping[RepoName, str] = MappingProxyType({})


@attrs.frozen(kw_only=True, slots=True)
class SiteSettings(TreeSettings):
    """One site's releases; how their files are written is in `TreeSettings`.

    The defaults suit a directory that is set up on its first deploy and has no scripts.

    Args:
        keep: how many good releases stay; the live one, the last good one and pinned ones always do.
        recycle: keep one release beyond that and turn it into the next one: a deploy then costs what changed.
        grace: seconds for which a release that was live is neither recycled nor removed, whatever `keep` says:
            processes that opened it before the switch still read it. Faster deploys leave more releases behind.
        paranoid: read every file of a release that is recycled or verified, and do not rely on `lstat` alone.
        shared: what lives in `shared/` and is linked into every release; `uploads/` is a directory and is made when
            missing, `config.php` a file that must be there or is taken from the first release.
        subdirectory: only this directory of the repository, as the release's root.
        state_files: write `TAG` and `.deploykit/REVISION` into the release, unless the tree has files of that name.
        export_attributes: honour `export-ignore` and `export-subst` as `git archive` does.
        max_depth, max_file_bytes: further limits of a tree.
        lock_wait: seconds to wait while another deploy runs; 0 refuses at once.
        scripts: where the deploy scripts are: a directory of the tree, or an absolute one outside it; "" for none.
        required: scripts that must be there; without one of them nothing is touched.
        script_timeout: for each script; its whole process group is killed after it.
        timeouts: for single scripts, by name.
        at_crash: what to do about a script that a crash interrupted, by name: run it `again` (the default), `skip` it,
            or `stop` and leave the decision to a person.
        output_limit: bytes of a script's output that are kept: half from its start, half from its end.
        environment: further variables for the scripts. Never printed or recorded.
        run_as: `user` or `user:group` the scripts run as, or `owner`: who `owner` names; needs root. A script runs only
            if nobody but that user and root can change it or a directory on the way to it.
        health_url: fetched after post-deploy until it answers with 2xx; else the old release comes back.
        health_timeout: for all attempts together.
        drift: when files of the live release were edited by hand: `warn`, `refuse` to deploy over it, or `ignore`.
        drift_ignore: patterns of paths that may change (`cache/*`).
        older: `refuse` to deploy a commit that the live one already contains, unless the deploy allows it; or `allow`.
    """

    keep: int = attrs.field(default=5, validator=attrs.validators.ge(1))
    recycle: bool = True
    grace: float = attrs.field(default=2.0, validator=attrs.validators.ge(0))
    paranoid: bool = False
    shared: tuple[str, ...] = ()
    subdirectory: str = ""
    state_files: bool = True
    export_attributes: bool = False
    max_depth: int = 64
    max_file_bytes: int = 1024**3
    lock_wait: float = 600.0
    scripts: str = "deploy"
    required: tuple[str, ...] = ()
    script_timeout: float = 300.0
    timeouts: Mapping[str, float] = _NO_TIMES
    at_crash: Mapping[str, Literal["again", "skip", "stop"]] = _NO_ANSWERS
    output_limit: int = 65536
    environment: Mapping[str, str] = attrs.field(default=_NOTHING, repr=False)
    run_as: str = ""
    health_url: str = attrs.field(default="", repr=hide_credentials)
    health_timeout: float = 30.0
    drift: Literal["warn", "refuse", "ignore"] = "warn"
    drift_ignore: tuple[str, ...] = ()
    older: Literal["refuse", "allow"] = "refuse"

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong, one line each and none with a value of `environment`; empty when all is well."""
        return (*super().problems(), *self._problems())

    def _problems(self) -> Iterator[str]:
        for key, steps in (("required", self.required), ("timeouts", self.timeouts), ("at_crash", self.at_crash)):
            for step in steps:
                if step not in SCRIPTS:
                    yield f"{key}: expected some of {', '.join(SCRIPTS)}, not {step!a}"
        if self.health_url and not is_web_address(self.health_url):
            yield "health_url: expected an http or https address"
        for name, value in self.environment.items():
            if not name or "=" in name or "\0" in name + value:
                yield f"environment: {name!a} cannot be a variable"
        if self.run_as == AS_OWNER and not self.owner:
            yield f'run_as: "{AS_OWNER}" needs an owner (write a user of that name as a number)'


@attrs.frozen(kw_only=True, slots=True)
class NodeSiteSettings:
    """One site on a node: where it lives, and which repository feeds it.

    Args:
        path: its directory.
        repo: the repository that its releases are made from. None where there are `parts`.
        parts: the repositories that its releases are made from, each with its subdirectory of a release (`vendor/ui`).
            None of those is inside another one.
        release: how they are made.
        require_build: jobs, named as the build server names them (`folder/job`). A commit goes live only when the
            newest known build of it succeeded in each of these jobs. With `parts` so does each repository's commit.
        require_build_of: the jobs of single repositories of `parts`, in place of those.
        require: `person`: a release goes live only under a mandate (`RolloutApproved`) that people signed by keys that
            show presence: security keys or passkeys.
        signatures: how many different people must sign the mandate; with 1 and no `require` none is needed.
    """

    path: Path
    repo: RepoName | None = None
    parts: Mapping[RepoName, str] = _NO_PARTS
    release: SiteSettings = attrs.field(factory=SiteSettings)
    require_build: tuple[str, ...] = ()
    require_build_of: Mapping[RepoName, tuple[str, ...]] = _NO_JOBS
    require: Literal["", "person"] = ""
    signatures: int = attrs.field(default=1, validator=(attrs.validators.ge(1), attrs.validators.le(4)))

    @property
    def needs_mandate(self) -> bool:
        """Whether commands must lie inside a mandate."""
        return self.require == "person" or self.signatures > 1

    @property
    def repos(self) -> tuple[RepoName, ...]:
        """The repositories that its releases are made from, in the order of their names."""
        return (self.repo,) if self.repo is not None else tuple(sorted(self.parts))

    def jobs_of(self, repo: RepoName) -> tuple[str, ...]:
        """Return the jobs that must have built a commit of one of its repositories."""
        return self.require_build_of.get(repo, self.require_build)

    @property
    def gated(self) -> bool:
        """Whether commits of any of its repositories must have been built."""
        return any(map(self.jobs_of, self.repos))

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong, one line each; empty when all is well."""
        found = () if self.path.is_absolute() else (f"path: expected an absolute path, not {str(self.path)!r}",)
        return (*found, *self._sources(), *self._jobs(), *below("release", self.release.problems()))

    def _sources(self) -> Iterator[str]:
        if self.repo is None and not self.parts:
            yield "repo: expected the repository of the site, or parts for several"
        if self.repo is not None and self.parts:
            yield "repo: not beside parts, which name all repositories of the site"
        yield from below("parts", place_problems(self.parts, self.release.shared))
        if self.parts and self.release.subdirectory:
            yield "release.subdirectory: not with parts, whose subdirectories are those of the release"

    def _jobs(self) -> Iterator[str]:
        named = {"require_build": self.require_build}
        for repo, jobs in self.require_build_of.items():
            named[f"require_build_of.{repo}"] = jobs
            if repo not in self.parts:
                yield f"require_build_of: {repo!r} is not in parts"
        for where, jobs in named.items():
            for at, job in enumerate(jobs):
                if not job or job != job.strip() or not job.isprintable() or "  " in job:
                    yield f"{where}[{at}]: expected the name of a job, as the build server has it, not {job!a}"


def is_web_address(url: str) -> bool:
    """Return whether a URL has scheme http or https, a host, and no impossible port.

    >>> is_web_address("https://shop.example.org/health"), is_web_address("shop.example.org")
    (True, False)
    """
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port, or the brackets
        return False
