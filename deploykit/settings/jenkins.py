"""Which pushes start which builds, and how patient the build daemon is: `[jenkins]` and `[[jenkins.jobs]]`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.parse import unquote

import attrs

from deploykit.names import RepoName
from deploykit.settings.buildservers import PLACEHOLDER, BuildServerSettings
from deploykit.settings.problems import below, not_a_time, too_large, too_small

#: The names that may stand in braces in the value of a parameter; each is empty where an event has no such value.
PARAMETER_NAMES: Final = frozenset(
    {"repo", "ref", "ref_short", "commit", "commit_short", "old", "pusher", "project", "revision", "correlation_id"}
)
#: The parameters that every build of a push gets, and those that every build of a Subversion revision gets. The first
#: four are those of `contrib/jenkins`; Jenkins drops what a job does not define.
PUSH_PARAMETERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "DEPLOYKIT_CORRELATION_ID": "{correlation_id}",
        "DEPLOYKIT_REPO": "{repo}",
        "DEPLOYKIT_REF": "{ref}",
        "DEPLOYKIT_COMMIT": "{commit}",
    }
)
REVISION_PARAMETERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "DEPLOYKIT_CORRELATION_ID": "{correlation_id}",
        "DEPLOYKIT_REPO": "{repo}",
        "DEPLOYKIT_PROJECT": "{project}",
        "DEPLOYKIT_REVISION": "{revision}",
    }
)
#: Longest name of a job, and of a branch in it.
MAX_JOB: Final = 1024
#: Most seconds between two tries of a build. The queue takes a longer one for the mistake of a clock.
LONGEST_PAUSE: Final = 3600.0
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@attrs.frozen(kw_only=True, slots=True)
class JobSettings:
    """One job that pushes to a repository start, `[[jenkins.jobs]]`.

    Args:
        repo: the repository; one may have several jobs.
        job: folders and job as the server names them, `team/shop-tests`; `%20` stands for a blank.
        server: name of the build server; may be left out where there is only one.
        refs: patterns of the refs that are built; `*` also crosses `/`.
        ignore: patterns of refs that are not built although `refs` has them.
        ignore_refs: a regular expression; a ref is not built where it is found anywhere in the full name. It is read by
            google-re2, which never takes long; without that package it is refused. Empty: no ref is left out by it.
        projects: Subversion: patterns of the projects that are built, one build for each project of a revision. Empty:
            one build for each revision, whatever it touches.
        parameters: further parameters, or other values for the standard ones. `{NAME}` stands for a value of the event:
            repo, ref, ref_short, commit, commit_short, old, pusher, project, revision, correlation_id.
        standard_parameters: send `DEPLOYKIT_CORRELATION_ID`, `_REPO`, `_REF` and `_COMMIT` (for a revision `_PROJECT`
            and `_REVISION` in place of the last two). Off for jobs without parameters, which refuse any.
        multibranch: the job is a multibranch project: the build is that of the branch or tag in it.
        token_file: the job's own token ("Trigger builds remotely"), in one line, mode 0600 or 0640.
    """

    repo: RepoName
    job: str
    server: str = ""
    refs: tuple[str, ...] = ("refs/heads/*", "refs/tags/*")
    ignore: tuple[str, ...] = ()
    ignore_refs: str = ""
    projects: tuple[str, ...] = ()
    parameters: Mapping[str, str] = _NOTHING
    standard_parameters: bool = True
    multibranch: bool = False
    token_file: Path | None = None

    def templates(self, *, revision: bool) -> Mapping[str, str]:
        """Return the parameters of a build, with the names in braces not yet filled in."""
        standard = REVISION_PARAMETERS if revision else PUSH_PARAMETERS
        return {**(standard if self.standard_parameters else {}), **self.parameters}

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong, one line each; empty when all is well. Patterns are checked by `config`."""
        return tuple(self._problems())

    def _problems(self) -> Iterator[str]:
        parts = [unquote(part).strip() for part in self.job.split("/")]
        if not all(part not in ("", ".", "..") and part.isprintable() for part in parts) or len(self.job) > MAX_JOB:
            yield f"job: expected FOLDER/JOB, without a slash at either end, not {self.job[:60]!a}"
        if not self.refs:
            yield 'refs: expected patterns of refs, e.g. "refs/heads/*"'
        for name, template in self.parameters.items():
            if not name or not name.isprintable() or " " in name:
                yield f"parameters: {name!a} is no name of a parameter"
            if not template.isprintable():
                yield f"parameters.{name}: holds a control character"
            for unknown in sorted(set(PLACEHOLDER.findall(template)) - PARAMETER_NAMES):
                yield f"parameters.{name}: no such value: {{{unknown}}} (known: {', '.join(sorted(PARAMETER_NAMES))})"


@attrs.frozen(kw_only=True, slots=True)
class JenkinsSettings:
    """`[jenkins]`: the build daemon's servers and jobs, and how patient it is.

    Args:
        servers: build servers, by name.
        jobs: what each push starts.
        give_up_after: seconds after which a build that the server cannot take is given up.
        attempts: most requests for one build that may stay without an answer. Each of them may have started it.
        ask_again_after: least seconds from a request without an answer to the next one for the same build: so long it
            is looked for at the server; 3600 at most.
        pause_max: longest pause between two tries; 3600 at most.
        follow_for: seconds that a queued build is followed until it has a number; 0 follows none.
        remember: seconds that a handled event is remembered, so that another copy of it starts nothing.
        most_waiting: most builds that wait here; then messages wait at the broker.
    """

    servers: Mapping[str, BuildServerSettings] = attrs.field(factory=dict)
    jobs: tuple[JobSettings, ...] = ()
    give_up_after: float = 86400.0
    attempts: int = 5
    ask_again_after: float = 30.0
    pause_max: float = 60.0
    follow_for: float = 900.0
    remember: float = 30 * 86400.0
    most_waiting: int = 100_000

    def server_of(self, job: JobSettings) -> str:
        """Return the name of the server that a job is on; empty where it names none and there is not exactly one."""
        return job.server or (next(iter(self.servers)) if len(self.servers) == 1 else "")

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong, one line each; empty when all is well."""
        return tuple(self._problems())

    def _problems(self) -> Iterator[str]:
        yield from too_small(self, {"attempts": 1, "most_waiting": 1, "remember": 3600})
        yield from too_large(self, {"ask_again_after": LONGEST_PAUSE, "pause_max": LONGEST_PAUSE})
        yield from not_a_time(self, ("give_up_after", "pause_max"))
        for name, server in self.servers.items():
            if not name or not name.isprintable() or len(name) > 100:
                yield f"servers: {name[:100]!a} is no name for a server"
            yield from below(f"servers.{name}", server.problems())
        jobs: dict[tuple[str, str, str], int] = {}
        for at, job in enumerate(self.jobs):
            yield from below(f"jobs[{at}]", job.problems())
            yield from below(f"jobs[{at}]", self._server_problems(job))
            other = jobs.setdefault((job.repo, self.server_of(job), job.job), at)
            if other != at:
                yield f"jobs[{at}].job: jobs[{other}] starts {job.job} for {job.repo} already (name all refs there)"

    def _server_problems(self, job: JobSettings) -> Iterator[str]:
        """Find a server that is not there, and values that its request needs and the job does not have."""
        known = ", ".join(self.servers) or "none"
        name = self.server_of(job)
        if not name:
            yield f"server: expected one of the servers in [jenkins.servers] ({known})"
        elif name not in self.servers:
            yield f"server: {name!a} is not in [jenkins.servers] (known: {known})"
        elif self.servers[name].kind == "http":
            always = set(job.templates(revision=False)) & set(job.templates(revision=True))
            given = always | {"job", "correlation_id"} | ({"token"} if job.token_file is not None else set())
            for missing in sorted(self.servers[name].placeholders() - given):
                yield f"parameters: the request of server {name} needs {missing}, which is no parameter of every build"


__all__ = [
    "LONGEST_PAUSE",
    "MAX_JOB",
    "PARAMETER_NAMES",
    "PUSH_PARAMETERS",
    "REVISION_PARAMETERS",
    "JenkinsSettings",
    "JobSettings",
]
