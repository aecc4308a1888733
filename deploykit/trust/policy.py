"""What a signer may do: message type and site, audience, and time. Pure: `now` is an argument.

Rules:

* What no grant allows is refused.
* A decision rests only on what the signature covers: the message decoded from the very body that was verified.
* An expiry further ahead than the receiver's own cap is refused, not shortened: its id would have to be remembered for
  as long as the sender likes.
* Both edges of every time limit count as inside.
* A build's result is no request: it counts for as long as the receiver remembers builds, and never from the future.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Self, TypeAlias

import attrs

from deploykit.errors import NotAddressed, PolicyRefused, SettingsError
from deploykit.messages import (
    BuildFinished,
    DeployProgressed,
    DeployReported,
    DeployRequested,
    Message,
    NodeDescribed,
    NodeQueried,
    RolloutAbort,
    RolloutReported,
)
from deploykit.messages.site import named
from deploykit.names import NodeName, SiteName
from deploykit.settings.problems import below
from deploykit.settings.trust import GrantSettings, TrustSettings
from deploykit.trust.allowed_signers import matches
from deploykit.trust.mandate import Mandate, Requirement
from deploykit.trust.signature import Signers

Request: TypeAlias = DeployRequested | NodeQueried
Reply: TypeAlias = DeployReported | NodeDescribed

_NO_PATTERN = frozenset('*?!,"')


def type_names(kind: type[Message]) -> tuple[str, ...]:
    """Return the names of a message type in grants: its wire type, `deploy.requested`, and `DeployRequested`."""
    full = kind.TYPE
    if not full:  # a base class, or Unknown: what we do not understand cannot be granted
        return ()
    short = full.removeprefix("deploykit.").rpartition(".v")[0]
    return tuple(name for name in (full, short, kind.__name__) if name)


def addressed_to(message: Message, node: NodeName) -> bool:
    """Return whether a message is for this node: its audience names the node, or it has no audience."""
    audience = getattr(message, "audience", None)
    return audience is None or node in audience


@attrs.frozen(kw_only=True, slots=True)
class Policy:
    """Which principals may send which messages for which sites, and how fresh these must be.

    Args:
        grants: nothing else is allowed.
        max_expiry: how far ahead an expiry may lie when the message arrives; also the age after which a
            signed message without an expiry is stale.
        skew: how far apart honest clocks may be; granted on every limit.
    """

    grants: tuple[GrantSettings, ...] = ()
    max_expiry: timedelta = timedelta(hours=1)
    skew: timedelta = timedelta(seconds=30)

    @classmethod
    def from_settings(cls, trust: TrustSettings, *, own_types: Iterable[type[Message]] = ()) -> Self:
        """Return the policy that checked settings describe.

        Args:
            trust: the `[trust]` table.
            own_types: message classes of an embedding program that grants may name too.

        Raises:
            SettingsError: all of them in `problems`.
        """
        problems = [*below("trust", trust.problems()), *grant_problems(trust.grants, own_types)]
        if problems:
            head = problems[0] if len(problems) == 1 else f"{len(problems)} mistakes in trust"
            raise SettingsError(head, problems=tuple(problems))
        return cls(
            grants=trust.grants,
            max_expiry=timedelta(seconds=trust.max_expiry),
            skew=timedelta(seconds=trust.skew),
        )

    @property
    def remember_for(self) -> timedelta:
        """How long an accepted id must be remembered, so that no replay of it can pass: cap and skew at both ends."""
        return self.max_expiry + 2 * self.skew

    def replayable_until(self, message: Message, now: datetime) -> datetime:
        """Return until when a replay of this message could pass: `keep_until` of `ids.IdStore.claim`.

        Never later than `now` + `remember_for`: `authorize` refuses a message with a later expiry.
        """
        expires = getattr(message, "expires", None)
        if expires is None:
            return now + self.remember_for
        return now + min(self.skew - _since(now, expires, message), self.remember_for)

    def authorize(self, message: Message, signer: Signers, node: NodeName, now: datetime) -> GrantSettings:
        """Return the grant that lets a signed message pass.

        Args:
            message: decoded from the body that `verify` accepted.
            signer: what `verify` returned for it.
            node: who we are.
            now: aware.

        Raises:
            NotAddressed: for other nodes; ignore it.
            PolicyRefused: no grant allows it; or it is too late, too early, or expires too far ahead.
        """
        if isinstance(message, DeployReported | NodeDescribed | DeployProgressed | RolloutReported):
            raise PolicyRefused("a reply means nothing alone", "check it against its request with authorize_reply()")
        if isinstance(message, BuildFinished):
            raise PolicyRefused("a build's result asks for nothing", "judge it with authorize_build()")
        if not addressed_to(message, node):
            raise NotAddressed(f"{_called(message)} is not for {node}")
        self._check_times(message, now)
        site = str(getattr(message, "site", None) or "")
        # A question about no site in particular is answered with the sites that may be asked about.
        of_any = isinstance(message, NodeQueried) and message.site is None
        found = [grant for grant in self._grants_of(message, signer) if of_any or matches(grant.sites, site)]
        needs_build = not (isinstance(message, DeployRequested) and message.without_build)
        for grant in found:
            if needs_build or grant.without_build:
                return grant
        where = f" for site {site}" if site else ""
        if found:
            raise PolicyRefused(
                f"key {signer.fingerprint} may deploy, but not without a build{where}",
                "leave --without-build out, or give its grant without_build = true",
            )
        raise PolicyRefused(
            # Every subscriber reads this answer: it must not name principals of the trusted lines.
            f"key {signer.fingerprint} may not send {_called(message)}{where}",
            "grant it in [[trust.grants]], if that is meant",
        )

    def may_abort(self, signer: Signers, site: SiteName) -> bool:
        """Return whether a grant for `rollout.abort` lets a signer abort everybody's rollouts of a site."""
        return any(matches(grant.sites, site) for grant in self._granting(type_names(RolloutAbort), signer))

    def may_coordinate(self, signer: Signers, site: SiteName) -> bool:
        """Return whether a signer may deploy a site, or abort its rollouts: what it says of a rollout counts."""
        types = type_names(DeployRequested) + type_names(RolloutAbort)
        return any(matches(grant.sites, site) for grant in self._granting(types, signer))

    def authorize_abort(self, abort: RolloutAbort, signer: Signers, node: NodeName, now: datetime) -> bool:
        """Return whether an abort counts for everybody's commands; else it counts for those of its signer alone.

        Args:
            abort: decoded from the body that `verify` accepted.
            signer: what `verify` returned for it.
            node: who we are.
            now: aware.

        Raises:
            NotAddressed: for other nodes; ignore it.
            PolicyRefused: the signer may neither abort rollouts of the site nor deploy it; or it is too late, too
                early, or expires too far ahead.
        """
        if not addressed_to(abort, node):
            raise NotAddressed(f"{_called(abort)} is not for {node}")
        self._check_times(abort, now)
        if self.may_abort(signer, abort.site):
            return True
        if any(matches(grant.sites, abort.site) for grant in self._granting(type_names(DeployRequested), signer)):
            return False
        raise PolicyRefused(
            f"key {signer.fingerprint} may abort no rollout of site {abort.site}",
            "grant it rollout.abort in [[trust.grants]], if that is meant",
        )

    def judge_mandate(self, mandate: Mandate, requirement: Requirement, now: datetime) -> None:
        """Accept a mandate as one that enough people signed who may, and that is not over.

        When it begins is judged with each command (`mandate.inside`): it may come before.

        Args:
            mandate: decoded from the body that `verify` accepted, with the trust of now.
            requirement: what its site asks for.
            now: aware; of a command that is resumed, when it was first claimed.

        Raises:
            PolicyRefused: too few people signed it, it is over, or it reaches too far ahead.
        """
        raise PolicyRefused("mandates cannot be judged yet")

    def authorize_build(
        self,
        result: BuildFinished,
        signer: Signers,
        *,
        now: datetime,
        remember: timedelta,
        site: SiteName | None = None,
    ) -> GrantSettings:
        """Return the grant that lets a signed build result count.

        Args:
            result: decoded from the body that `verify` accepted.
            signer: what `verify` returned for it.
            now: aware.
            remember: the age up to which results count.
            site: the site that it is to count for; None for any.

        Raises:
            PolicyRefused: it names no number, repository or commit, no grant lets its key report this job of this
                repository, it is too old, or it is from the future. The text may be shown to anybody.
        """
        if not result.number or result.repo is None or result.commit is None:
            missing = "number" if not result.number else "repository" if result.repo is None else "commit"
            raise PolicyRefused(f"it names no {missing}")
        for grant in self._grants_of(result, signer):
            if (
                matches(grant.repos, result.repo)
                and matches(grant.jobs, result.job)
                and (site is None or matches(grant.sites, site))
            ):
                break
        else:
            raise PolicyRefused(f"its key may not report {result.job} of {result.repo}")
        age = _since(now, result.time, result)
        if age < -self.skew:
            raise PolicyRefused("it claims to be from the future: compare the clocks (NTP)")
        if age > remember + self.skew:
            raise PolicyRefused(f"results count for {remember / timedelta(days=1):g} days")
        return grant

    def _grants_of(self, message: Message, signer: Signers) -> list[GrantSettings]:
        """Return the grants that let a signer send messages of such a type, for some site, repository or job."""
        names = type_names(type(message))
        if isinstance(message, DeployRequested) and message.phase == "discard":
            names += type_names(RolloutAbort)  # who may abort a rollout may take back what it prepared
        return self._granting(names, signer)

    def _granting(self, names: tuple[str, ...], signer: Signers) -> list[GrantSettings]:
        return [
            grant
            for grant in self.grants
            if any(name in grant.types for name in names) and signer.is_principal(grant.principal)
        ]

    def authorize_reply(self, reply: Reply, signer: Signers, *, request: Request, now: datetime) -> None:
        """Accept a node's reply to our own request.

        The age of a reply is not limited: the request is still waited for, and a report may have sat in an outbox.

        Raises:
            PolicyRefused: to another request; of a node that was not asked; signed by a key that may not speak for that
                node; or success with something that was not asked for.
        """
        if not _same(reply.request or "", request.id):
            raise PolicyRefused(f"{_called(reply)} answers another request than {request.id}")
        if request.audience is not None and reply.node not in request.audience:
            raise PolicyRefused(f"{reply.node} was not asked and answers all the same")
        match request, reply:
            case DeployRequested(), DeployReported():
                _check_outcome(reply, request)
            case NodeQueried(), NodeDescribed():
                pass
            case _:
                raise PolicyRefused(f"{_called(reply)} is no answer to a {type(request).__name__}")
        self._check_not_ahead(reply, now)
        if not self.may_speak_for(signer, reply.node, reply):
            raise PolicyRefused(
                f"{signer} may not report for node {reply.node}",
                "trust the node's key under the node's name, or grant it with speaks_for",
            )

    def may_speak_for(self, signer: Signers, node: NodeName, message: Message) -> bool:
        """Return whether a signer may report for a node: under the node's own name, or by a grant with `speaks_for`."""
        if signer.is_principal(node):
            return True
        site = str(getattr(message, "site", ""))
        return any(
            matches(grant.speaks_for, node) and matches(grant.sites, site) for grant in self._grants_of(message, signer)
        )

    def may_ask_about(self, question: NodeQueried, signer: Signers, site: SiteName) -> bool:
        """Return whether a signer may ask nodes about a site; `authorize` says whether it may ask at all."""
        return any(matches(grant.sites, site) for grant in self._grants_of(question, signer))

    # Differences are compared, never sums: an expiry in the year 9999 plus a skew overflows datetime.

    def _check_not_ahead(self, message: Message, now: datetime) -> None:
        if _since(now, message.time, message) < -self.skew:
            raise PolicyRefused(f"{_called(message)} claims to be from the future", "compare the clocks (NTP)")

    def _check_times(self, message: Message, now: datetime) -> None:
        self._check_not_ahead(message, now)
        expires = getattr(message, "expires", None)
        if expires is None:
            if _since(now, message.time, message) > self.max_expiry + self.skew:
                raise PolicyRefused(f"{_called(message)} is stale", "send it again")
            return
        overdue = _since(now, expires, message)
        if overdue > self.skew:
            raise PolicyRefused(
                f"{_called(message)} expired {overdue.total_seconds():.0f} s ago",
                "send it again; where it was just sent, compare the clocks (NTP)",
            )
        if -overdue > self.max_expiry + self.skew:
            raise PolicyRefused(
                f"{_called(message)} expires further ahead than {self.max_expiry.total_seconds():.0f} s",
                "send it with an earlier expiry",
            )


def _check_outcome(reply: DeployReported, request: DeployRequested) -> None:
    if (reply.site, reply.phase) != (request.site, request.phase):
        raise PolicyRefused(
            f"{reply.node} reports {reply.phase} of {reply.site}, asked was {request.phase} of {request.site}"
        )
    if reply.outcome == "success" and reply.phase != "discard" and reply.achieved != (request.ref, request.commit):
        ref, commit = reply.achieved
        kind = "ref" if commit == request.commit else "commit"
        raise PolicyRefused(
            f"{reply.node} reports success with another {kind} than asked for: {named(ref, commit) or 'none'}, "
            f"not {named(request.ref, request.commit)}"
        )


def _called(message: Message) -> str:
    return f"{type(message).__name__} {message.id[:64]!a}"


def _same(left: str, right: str) -> bool:
    """Return whether two ids are equal, in a time that shows nothing about how much of a guess is right."""
    return hmac.compare_digest(left.encode("utf-8", "surrogatepass"), right.encode("utf-8", "surrogatepass"))


def _since(now: datetime, then: datetime, message: Message) -> timedelta:
    if then.tzinfo is None or now.tzinfo is None:
        raise PolicyRefused(f"{_called(message)} has a time without a zone")
    return now - then


def grant_problems(grants: tuple[GrantSettings, ...], own_types: Iterable[type[Message]] = ()) -> Iterator[str]:
    """Find grants that could never allow anything: no principal's name, unknown types, empty lists."""
    known = {name for kind in (*_all_types(Message), *own_types) for name in type_names(kind)}
    for at, grant in enumerate(grants):
        where = f"trust.grants[{at}]"
        if not grant.principal or _NO_PATTERN & set(grant.principal) or grant.principal != grant.principal.strip():
            yield f"{where}.principal: expected one name without pattern characters, not {grant.principal!r}"
        for name in grant.types:
            if name not in known:
                yield f"{where}.types: unknown message type {name!r} (expected e.g. deploy.requested)"
        for field in ("types", "sites"):
            if not getattr(grant, field):
                yield f"{where}.{field}: empty, so the grant allows nothing (remove it)"


def grant_warnings(grants: tuple[GrantSettings, ...]) -> Iterator[str]:
    """Find grants that are right by themselves and allow less than they seem to."""
    builds, deploys = set(type_names(BuildFinished)), set(type_names(DeployRequested))
    for at, grant in enumerate(grants):
        where = f"trust.grants[{at}]"
        if builds & set(grant.types):
            for field in ("repos", "jobs"):
                if not getattr(grant, field):
                    yield f"{where}.{field}: empty, so no build result of {grant.principal} counts (name {field})"
        elif grant.repos or grant.jobs:
            yield f"{where}: repos and jobs mean nothing without build.finished in types"
        if grant.without_build and not deploys & set(grant.types):
            yield f"{where}.without_build: means nothing without deploy.requested in types"


def _all_types(base: type[Message]) -> Iterator[type[Message]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _all_types(kind)


__all__ = ["Policy", "Reply", "Request", "addressed_to", "grant_problems", "grant_warnings", "type_names"]
