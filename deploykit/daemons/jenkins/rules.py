"""Source events and settings -> the builds to ask for, and for every other job the reason why not. Pure.

Rules:

* Refs and projects are matched by globs and by google-re2: no name that somebody pushes makes a match take long.
* A deleted ref is never built. Neither is what is no push: keepalives, human lines, other messages.
* A build has a key. Another copy of the same event has the same key, so it starts nothing.
* The key of a native event holds its id: the same commit pushed to the same ref again is another event, and is built.
* A legacy SVN revision is one event, although it comes in a frame for each project: its key holds repository, revision,
  author, date and project, and no id.
* Names from an event go into values only: of parameters, and of the branch part of a multibranch job.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from fnmatch import translate
from typing import Final

import attrs

from deploykit.config.refpattern import compile_ref_pattern
from deploykit.daemons.jenkins.jobpath import branch_item
from deploykit.daemons.jenkins.ports import BuildOrder
from deploykit.messages import Message, RefUpdated, RevisionCommitted, one_line, svn_projects
from deploykit.names import ObjectId, RefName, RepoName, is_zero, short_ref
from deploykit.settings.buildservers import PLACEHOLDER
from deploykit.settings.jenkins import JenkinsSettings, JobSettings
from deploykit.wire import CONTENT_TYPE, Frame, decode
from deploykit.wire.codec import ID_HEADER

#: Characters of a value that other people wrote (a pusher, a project).
_MOST_TEXT: Final = 200


@attrs.frozen(kw_only=True, slots=True)
class WantedBuild:
    """One build that an event asks for.

    Args:
        key: the same for every copy of the event.
        order: what to ask the server for, without the job's own token.
        job: the job as the settings name it; `order.job` may be a branch of it.
        subject: the event as the original's human lines show it.
        repo, ref, commit, project: of the event, for the reports.
        source, pusher: who sent the event, and who pushed, as the event says. Nobody vouches for either.
    """

    key: str
    order: BuildOrder
    job: str
    subject: str
    repo: RepoName
    ref: RefName | None = None
    commit: ObjectId | None = None
    project: str = ""
    source: str = ""
    pusher: str = ""


@attrs.frozen(kw_only=True, slots=True)
class LeftOut:
    """A job that an event does not start, and why. `job` is empty where the event starts nothing at all."""

    job: str = ""
    reason: str


@attrs.frozen(kw_only=True, slots=True)
class BuildPlan:
    """What an event starts, and what it does not."""

    builds: tuple[WantedBuild, ...] = ()
    left_out: tuple[LeftOut, ...] = ()


def event_key(message: Message, *, legacy: bool, sent_id: str = "") -> str:
    """Return what tells two events apart; copies of one event have the same.

    Args:
        message: what was decoded.
        legacy: it came as the original's text, which carries no id.
        sent_id: the id that our own relay gave a legacy frame; empty where another program sent it.
    """
    if not legacy:
        return f"{message.source} {message.id}"
    if isinstance(message, RevisionCommitted):
        return f"legacy r{message.revision} {message.author} {message.committed}"
    return f"legacy {sent_id or message.id}"


def event_key_of(message: Message, headers: Mapping[str, str]) -> str:
    """Return the `event_key` of a message that came with these headers."""
    legacy = not headers.get("content-type", "").startswith(CONTENT_TYPE)
    return event_key(message, legacy=legacy, sent_id=headers.get(ID_HEADER, ""))


class BuildRules:
    """The rules of one reading of the settings.

    Args:
        settings: `[jenkins]`, without problems.

    Raises:
        SettingsError: an `ignore_refs` cannot be used.
    """

    def __init__(self, settings: JenkinsSettings) -> None:
        self._settings = settings
        self._jobs = tuple(_JobRule(job, settings.server_of(job)) for job in settings.jobs)

    def plan(self, message: Message | None, event: str) -> BuildPlan:
        """Return the builds that an event asks for; `event` is its `event_key`."""
        if not isinstance(message, RefUpdated | RevisionCommitted):
            kind = "keepalive" if message is None else type(message).__name__
            return _nothing(f"no push and no revision: {kind}")
        jobs = [rule for rule in self._jobs if rule.settings.repo == message.repo]
        if not jobs:
            known = ", ".join(sorted({rule.settings.repo for rule in self._jobs})) or "none"
            return _nothing(f"no job is for repository {message.repo} (jobs are for: {known})")
        if isinstance(message, RefUpdated) and is_zero(message.new):
            return _nothing(f"{message.ref} was deleted: deletes are never built")
        builds: list[WantedBuild] = []
        left_out: list[LeftOut] = []
        for rule in jobs:
            if isinstance(message, RefUpdated):
                why = rule.why_not(message.ref)
                wanted = [] if why else [rule.of_push(message, event)]
            else:
                wanted, why = list(rule.of_revision(message, event)), rule.why_no_project(message)
            builds += wanted
            if not wanted:
                left_out.append(LeftOut(job=rule.label, reason=why))
        return BuildPlan(builds=tuple(builds), left_out=tuple(left_out))

    def renewed(self, wanted: WantedBuild, destination: str, frame: Frame) -> WantedBuild:
        """Return a build as these settings make it of its event; as it was where they do not start it any more.

        Raises:
            MessageError: the frame is damaged.
        """
        message = decode(frame.headers, frame.body, destination)
        if message is None:
            return wanted
        plan = self.plan(message, event_key_of(message, frame.headers))
        return next((build for build in plan.builds if build.key == wanted.key), wanted)


class _JobRule:
    """One job's rule, its patterns compiled."""

    def __init__(self, settings: JobSettings, server: str) -> None:
        self.settings = settings
        self.server = server
        self.label = f"{server}: {settings.job}"
        self._refs = _matcher(settings.refs)
        self._ignored = _matcher(settings.ignore)
        self._ignored_too = compile_ref_pattern(settings.ignore_refs)
        self._projects = _matcher(settings.projects)

    def why_not(self, ref: RefName) -> str:
        """Return why a ref is not built; empty where it is."""
        settings = self.settings
        if not self._refs(ref):
            return f"{ref} matches none of refs = {_shown(settings.refs)}"
        if self._ignored(ref):
            return f"{ref} matches ignore = {_shown(settings.ignore)}"
        if self._ignored_too(ref):
            return f"ignore_refs = {json.dumps(settings.ignore_refs)} is found in {ref}"
        return ""

    def why_no_project(self, message: RevisionCommitted) -> str:
        """Return why a revision that starts nothing does not."""
        touched = ", ".join(message.projects) or "none that could be told"
        return one_line(
            f"r{message.revision} touches no project of {_shown(self.settings.projects)} (touched: {touched})"
        )

    def of_push(self, message: RefUpdated, event: str) -> WantedBuild:
        """Return the build of a push."""
        values = {
            "ref": message.ref,
            "ref_short": short_ref(message.ref),
            "commit": message.new,
            "commit_short": message.new[:12],
            "old": message.old,
            "pusher": _text(message.pusher),
        }
        branch = f"/{branch_item(short_ref(message.ref))}" if self.settings.multibranch else ""
        return WantedBuild(
            key=self._key(message.repo, event, message.ref, message.new),
            order=self._order(message, values, job=f"{self.settings.job}{branch}", revision=False),
            job=self.settings.job,
            subject=f"[{message.repo}] {message.ref} {message.new}",
            repo=message.repo,
            ref=message.ref,
            commit=message.new,
            source=message.source,
            pusher=values["pusher"],
        )

    def of_revision(self, message: RevisionCommitted, event: str) -> Iterator[WantedBuild]:
        """Return the builds of a revision: one for each project that the job is for, or one for all of it."""
        if self.settings.projects:
            projects: tuple[str, ...] = tuple(dict.fromkeys(filter(self._projects, message.projects)))
        else:
            projects = (_only_project(message),)
        for project in projects:
            values = {"revision": str(message.revision), "project": _text(project), "pusher": _text(message.author)}
            yield WantedBuild(
                key=self._key(message.repo, event, str(message.revision), project if self.settings.projects else ""),
                order=self._order(message, values, job=self.settings.job, revision=True),
                job=self.settings.job,
                subject=f"[{message.repo}] {message.revision} ".rstrip(),
                repo=message.repo,
                project=_text(project),
                source=message.source,
                pusher=values["pusher"],
            )

    def _key(self, repo: str, event: str, *what: str) -> str:
        parts = [self.server, self.settings.job, repo, event, *what]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:40]

    def _order(
        self, message: RefUpdated | RevisionCommitted, values: Mapping[str, str], *, job: str, revision: bool
    ) -> BuildOrder:
        correlation_id = message.correlation_id or message.id
        known = {"repo": message.repo, "correlation_id": correlation_id, **values}
        templates = self.settings.templates(revision=revision)
        return BuildOrder(
            server=self.server,
            job=job,
            parameters={name: filled_in(template, known) for name, template in templates.items()},
            correlation_id=correlation_id,
        )


def filled_in(template: str, values: Mapping[str, str]) -> str:
    """Return a template with each `{name}` replaced by its value, once: a value is never read as a template.

    >>> filled_in("{ref}@{commit}{project}", {"ref": "refs/heads/{commit}", "commit": "1a2b"})
    'refs/heads/{commit}@1a2b'
    """
    return PLACEHOLDER.sub(lambda hit: values.get(hit[1], ""), template)


def _only_project(message: RevisionCommitted) -> str:
    """Return the one project that a revision touches; empty where it touches none, or several.

    A frame of a legacy revision names one, whatever others there are: its directories show them.
    """
    if len(message.projects) != 1:
        return ""
    others = svn_projects(message.dirs) if message.source.startswith("legacy") else ()
    return message.projects[0] if set(others) <= set(message.projects) else ""


def _matcher(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    # fnmatch makes expressions that do not go back past a `*` they have matched.
    compiled = re.compile("|".join(f"(?:{translate(pattern)})" for pattern in patterns) or r"(?!)")
    return lambda name: compiled.match(name) is not None


def _nothing(reason: str) -> BuildPlan:
    return BuildPlan(left_out=(LeftOut(reason=reason),))


def _shown(patterns: tuple[str, ...]) -> str:
    return json.dumps(list(patterns), ensure_ascii=False)


def _text(text: str) -> str:
    return one_line(text, _MOST_TEXT)


__all__ = ["BuildPlan", "BuildRules", "LeftOut", "WantedBuild", "event_key", "event_key_of", "filled_in"]
