"""Messages as CDEvents 0.5.1 in CloudEvents (structured mode). Pure.

Rules:

* What CDEvents has a name for gets it: branches, builds, artifacts, services; a rollout is a pipeline run.
* Anything else that is news is a custom event, `dev.cdeventsx.deploykit-…`: a plain push or tag, a lock, an approval.
* Lines for people are no events.
* What the schema has no place for stands in `customData`, with whether the message was signed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

import attrs

from deploykit.daemons.notify.news import NewsItem
from deploykit.messages import (
    AccessReported,
    BuildFinished,
    BuildRequested,
    BuildStarted,
    DeployReported,
    Message,
    MirrorUpdated,
    PackagePublished,
    PackageReported,
    RefUpdated,
    RevisionCommitted,
    RolloutAbort,
    RolloutApproved,
    RolloutProposed,
    RolloutReported,
    SiteLocked,
    SiteUnlocked,
    one_line,
)
from deploykit.wire.times import format_time

SPEC_VERSION: Final = "0.5.1"
_STANDARD: Final = "0.3.0"
_CUSTOM: Final = "0.1.0"
#: How a rollout ended -> outcome of a pipeline run.
_OUTCOMES: Final = {"succeeded": "success", "failed": "failure", "aborted": "cancel", "rolled-back": "failure"}
#: Characters of a subject.
_SUBJECT: Final = 500
#: Characters of any other text.
_LONGEST: Final = 1000
_HEADS: Final = "refs/heads/"


@attrs.frozen(kw_only=True, slots=True)
class _Event:
    """What differs between events: name, subject, content."""

    name: str
    subject: str
    content: Mapping[str, object] = attrs.field(factory=dict)
    custom: bool = False

    @property
    def type(self) -> str:
        """The CDEvents type, with its version."""
        if self.custom:
            return f"dev.cdeventsx.deploykit-{self.name}.{_CUSTOM}"
        return f"dev.cdevents.{self.name}.{_STANDARD}"


def cdevent_of(item: NewsItem) -> Mapping[str, object] | None:
    """Return the CloudEvent of an item, structured; None where it is none."""
    event = _event(item)
    if event is None:
        return None
    shown = ("standing", "signer", "site", "repo", "ref", "commit", "node", "rollout", "state", "who", "reason", "link")
    custom = {name: item.fields[name] for name in shown if item.fields[name]}
    return _cloudevent(event, item.message, custom | {"summary": item.fields["line"]})


def custom_event(name: str, subject: str, message: Message) -> Mapping[str, object]:
    """Return an event of our own, `NAME` being `subject.predicate`."""
    return _cloudevent(_custom(name, subject), message, {"summary": message.summary})


def _cloudevent(event: _Event, message: Message, custom: Mapping[str, str]) -> Mapping[str, object]:
    source = quote(f"/deploykit/{message.source}", safe="/:@.~-_")
    time = format_time(message.time)
    subject = one_line(event.subject, _SUBJECT) or message.id  # a build's job may be empty
    context = {
        "specversion": SPEC_VERSION,
        "id": message.id,
        "source": source,
        "type": event.type,
        "timestamp": time,
    }
    if message.correlation_id:
        context["chainId"] = message.correlation_id
    return {
        "specversion": "1.0",
        "id": message.id,
        "source": source,
        "type": event.type,
        "subject": subject,
        "time": time,
        "datacontenttype": "application/json",
        "data": {
            "context": context,
            "subject": {"id": subject, "source": source, "content": _bounded(event.content)},
            "customData": custom,
            "customDataContentType": "application/json",
        },
    }


def _bounded(content: Mapping[str, object]) -> Mapping[str, object]:
    """Return content whose texts are one bounded line each: so much waits, and anybody can push."""
    return {name: one_line(each, _LONGEST) if isinstance(each, str) else each for name, each in content.items()}


def _event(item: NewsItem) -> _Event | None:
    match item.message:
        case RefUpdated() | RevisionCommitted() | MirrorUpdated() | PackagePublished() | PackageReported() as message:
            return _of_source(message)
        case BuildRequested() | BuildStarted() | BuildFinished() as build:
            return _of_build(build)
        case RolloutReported() | DeployReported() as run:
            return _of_rollout(run, item.fields["link"]) if isinstance(run, RolloutReported) else _of_deploy(run)
        case RolloutProposed() | RolloutApproved() | RolloutAbort() as message:
            return _of_approval(message)
        case SiteLocked() | SiteUnlocked() | AccessReported() as message:
            return _of_site(message)
    return None


def _of_source(message: RefUpdated | RevisionCommitted | MirrorUpdated | PackagePublished | PackageReported) -> _Event:
    match message:
        case RefUpdated():
            return _push(message)
        case RevisionCommitted():
            subject = f"{message.repo}@{message.revision}"
            return _custom(
                "push.received", subject, repository=message.repo, revision=message.revision, user=message.author
            )
        case MirrorUpdated():
            return _custom(f"mirror.{message.outcome}", message.repo, node=message.node, ref=message.ref)
        case PackagePublished():
            return _Event(name="artifact.published", subject=_package(message))
        case PackageReported():
            return _custom(f"package.{message.outcome}", f"{message.node}/{message.name}", detail=message.detail)


def _of_build(build: BuildRequested | BuildStarted | BuildFinished) -> _Event:
    if isinstance(build, BuildRequested) and build.outcome not in ("queued", "joined", "scanned"):
        return _custom(f"buildrequest.{build.outcome}", build.job, repository=build.repo or "", detail=build.detail)
    states = {BuildRequested: "queued", BuildStarted: "started", BuildFinished: "finished"}
    subject = f"{build.job}/{build.number}" if build.number else build.job
    return _Event(name=f"build.{states[type(build)]}", subject=subject)


def _of_approval(message: RolloutProposed | RolloutApproved | RolloutAbort) -> _Event:
    match message:
        case RolloutProposed():
            state = "approval.withdrawn" if message.withdrawn else "approval.wanted"
            return _custom(state, message.rollout, site=message.site, signed=message.signed)
        case RolloutApproved():
            return _custom("approval.given", message.rollout, site=message.site)
        case RolloutAbort():
            return _custom("rollout.abort", message.rollout, site=message.site)


def _of_site(message: SiteLocked | SiteUnlocked | AccessReported) -> _Event:
    match message:
        case SiteLocked():
            return _custom("site.locked", message.site, until=format_time(message.until), holder=message.holder)
        case SiteUnlocked():
            return _custom("site.unlocked", message.site, holder=message.holder)
        case AccessReported():
            return _custom(f"access.{message.outcome}", message.site, user=message.user, node=message.node)


def _custom(name: str, subject: str, **content: object) -> _Event:
    return _Event(name=name, subject=subject, content={k: v for k, v in content.items() if v != ""}, custom=True)


def _push(push: RefUpdated) -> _Event:
    subject = f"{push.repo}/{push.ref}"
    if push.ref.startswith(_HEADS) and push.kind in ("created", "deleted"):
        return _Event(name=f"branch.{push.kind}", subject=subject, content={"repository": {"id": push.repo}})
    what = "tag" if push.ref.startswith("refs/tags/") else "push"
    state = "received" if what == "push" else push.kind
    return _custom(f"{what}.{state}", subject, repository=push.repo, ref=push.ref, commit=push.new, user=push.pusher)


def _package(package: PackagePublished) -> str:
    """Return the package URL of a Debian package."""
    name, version = quote(package.name, safe=""), quote(package.version, safe="")
    return f"pkg:deb/{name}@{version}?arch={quote(package.architecture, safe='')}"


def _of_rollout(rollout: RolloutReported, link: str) -> _Event:
    uri = link or f"urn:deploykit:rollout:{quote(rollout.rollout, safe='')}"
    content: dict[str, object] = {"pipelineName": f"{rollout.kind} {rollout.site}", "uri": uri}
    outcome = _OUTCOMES.get(rollout.state)
    if outcome is not None:
        errors = {} if outcome == "success" else {"errors": rollout.detail or f"the rollout has {rollout.state}"}
        return _Event(
            name="pipelinerun.finished", subject=rollout.rollout, content=content | {"outcome": outcome} | errors
        )
    if rollout.state == "planned":  # what a coordinator announces first
        return _Event(name="pipelinerun.started", subject=rollout.rollout, content=content)
    state = rollout.state.replace("-", "")
    return _custom(f"rollout.{state}", rollout.rollout, site=rollout.site)


def _of_deploy(report: DeployReported) -> _Event:
    subject = f"{report.site}/{report.node}"
    went_live = report.outcome == "success" and report.phase in ("deploy", "activate", "rollback")
    if not went_live or report.commit is None:
        return _custom(f"deploy.{report.outcome.replace('-', '')}", subject, phase=report.phase, detail=report.detail)
    name = "upgraded" if report.previous is not None else "deployed"
    name = "rolledback" if report.phase == "rollback" else name
    artifact = f"pkg:generic/{quote(report.site, safe='')}@{report.commit}"
    return _Event(
        name=f"service.{name}",
        subject=subject,
        content={"environment": {"id": report.node}, "artifactId": artifact},
    )


__all__ = ["SPEC_VERSION", "cdevent_of"]
