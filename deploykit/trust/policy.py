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

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, Self

import attrs

from deploykit.errors import NotAddressed, PolicyRefused, SettingsError
from deploykit.messages import (
    AccessReported,
    ApprovalWanted,
    BuildFinished,
    DeployProgressed,
    DeployReported,
    DeployRequested,
    LocksWanted,
    Message,
    NodeDescribed,
    NodeQueried,
    PackageReported,
    RolloutAbort,
    RolloutApproved,
    RolloutProposed,
    RolloutReported,
    SiteLocked,
    SiteUnlocked,
)
from deploykit.messages.deploy import DeployPhase
from deploykit.names import NodeName, RepoName, SiteName
from deploykit.settings.problems import below
from deploykit.settings.trust import GrantSettings, TrustSettings
from deploykit.trust.allowed_signers import matches
from deploykit.trust.approval import judge_mandate
from deploykit.trust.buildresults import judge_build
from deploykit.trust.freshness import called, check_not_ahead, check_times, since
from deploykit.trust.grants import grant_problems
from deploykit.trust.mandate import Mandate, Requirement
from deploykit.trust.replies import Reply, Request, check_fits
from deploykit.trust.rights import (
    ABORT,
    DEPLOY,
    NO_REPOS,
    RUN,
    WITHOUT_BUILD,
    allows,
    covers,
    granted,
    type_names,
)
from deploykit.trust.signature import Signer, Signers

#: What `authorize` refuses to judge: its types, why, and where it is judged.
_JUDGED_ELSEWHERE: Final[tuple[tuple[tuple[type[Message], ...], str, str], ...]] = (
    (
        (
            DeployReported,
            NodeDescribed,
            DeployProgressed,
            RolloutReported,
            RolloutProposed,
            AccessReported,
            PackageReported,
        ),
        "a reply means nothing alone",
        "check it against its request with authorize_reply()",
    ),
    ((BuildFinished,), "a build's result asks for nothing", "judge it with authorize_build()"),
    ((RolloutApproved,), "a mandate asks for nothing", "judge it with judge_mandate()"),
    ((SiteLocked, SiteUnlocked), "a statement on a lock asks for nothing", "judge it with may()"),
    ((ApprovalWanted, LocksWanted), "what a node asks for is no command", "judge it with may_speak_for()"),
)


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
        mandate_max: how far ahead the end of a mandate may lie when it is used.
        repos: the repositories of each site of this node, for grants that name some: they fit no other site. None where
            this machine has no sites and decides nothing by it: then `repos` of grants is not looked at.
    """

    grants: tuple[GrantSettings, ...] = ()
    max_expiry: timedelta = timedelta(hours=1)
    skew: timedelta = timedelta(seconds=30)
    mandate_max: timedelta = timedelta(days=1)
    repos: Mapping[SiteName, tuple[RepoName, ...]] | None = attrs.field(default=NO_REPOS, hash=False)

    @classmethod
    def from_settings(
        cls,
        trust: TrustSettings,
        *,
        own_types: Iterable[type[Message]] = (),
        repos: Mapping[SiteName, tuple[RepoName, ...]] | None = NO_REPOS,
    ) -> Self:
        """Return the policy that checked settings describe.

        Args:
            trust: the `[trust]` table.
            own_types: message classes of an embedding program that grants may name too.
            repos: the repositories of each site, see the class.

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
            mandate_max=timedelta(seconds=trust.mandate_max),
            repos=repos,
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
        return now + min(self.skew - since(now, expires, message), self.remember_for)

    def authorize(self, message: Message, signer: Signers, node: NodeName, now: datetime) -> GrantSettings:
        """Return the grant that lets a signed message pass.

        Every key that signed it must be allowed to send it: else whoever adds a signature to another's command could
        have it answered as one of both.

        Args:
            message: decoded from the body that `verify` accepted.
            signer: what `verify` returned for it.
            node: who we are.
            now: aware.

        Raises:
            NotAddressed: for other nodes; ignore it.
            PolicyRefused: no grant allows it; or it is too late, too early, or expires too far ahead.
        """
        for kinds, what, remedy in _JUDGED_ELSEWHERE:
            if isinstance(message, kinds):
                raise PolicyRefused(what, remedy)
        if not addressed_to(message, node):
            raise NotAddressed(f"{called(message)} is not for {node}")
        check_times(message, now, cap=self.max_expiry, skew=self.skew)
        found = [self._grant_of(message, each) for each in signer.each]
        if (
            isinstance(message, DeployRequested)
            and message.without_build
            and message.mandate is None  # else it is for those who approved it: see `approval`
            and not self.may(WITHOUT_BUILD, signer, message.site, (message.phase,))
        ):
            raise PolicyRefused(
                f"key {signer.fingerprint} may deploy, but not without a build for site {message.site}",
                f"leave --without-build out, or add {WITHOUT_BUILD} to the types of its grant",
            )
        return found[0]

    def _grant_of(self, message: Message, signer: Signer) -> GrantSettings:
        """Return the grant by which one key may send a message.

        Raises:
            PolicyRefused: there is none.
        """
        site = str(getattr(message, "site", None) or "")
        if isinstance(message, DeployRequested):
            found = self._deploying(message, signer)
        else:
            found = granted(self.grants, type_names(type(message)), signer)
            # A question about no site in particular is answered with the sites that may be asked about.
            if not (isinstance(message, NodeQueried) and message.site is None):
                found = [grant for grant in found if covers(grant, site, self.repos)]
        if found:
            return found[0]
        where = f" for site {site}" if site else ""
        # Every subscriber reads this answer: it must not name principals of the trusted lines.
        key = f"key {signer.fingerprint}"
        if isinstance(message, DeployRequested):
            if self.may(DEPLOY, signer, message.site) or (message.mandate and self.may((RUN,), signer, message.site)):
                where += f" in phase {message.phase}"
            elif self.may((RUN,), signer, message.site):
                raise PolicyRefused(
                    f"{key} may run rollouts{where} that others approved, and this command names no mandate",
                    "have it approved (deploykit deploy --propose), or grant deploy.requested in [[trust.grants]]",
                )
        raise PolicyRefused(
            f"{key} may not send {called(message)}{where}",
            "grant it in [[trust.grants]], if that is meant",
        )

    def _deploying(self, command: DeployRequested, signer: Signer) -> list[GrantSettings]:
        """Return the grants by which a key may send a deploy command.

        Whoever may run rollouts may send what names a mandate, for it must lie inside that; and may discard.
        """
        discard = command.phase == "discard"
        names = (*DEPLOY, RUN) if discard or command.mandate is not None else DEPLOY
        found = [grant for grant in granted(self.grants, names, signer) if allows(grant, (command.phase,))]
        if discard:  # who may abort a rollout may take back what it prepared
            found += granted(self.grants, ABORT, signer)
        return [grant for grant in found if covers(grant, command.site, self.repos)]

    def may(
        self,
        right: str | Sequence[str],
        signer: Signer | Signers,
        site: SiteName,
        phases: Sequence[DeployPhase] = (),
    ) -> bool:
        """Return whether some key of a signer has a right for a site, in all of the phases.

        Args:
            right: one of `rights.RIGHTS`, or the names of a message type (`type_names`).
            signer: what `verify` returned, or one of its keys.
            site: the site.
            phases: what is asked for; none where phases mean nothing.
        """
        names = (right,) if isinstance(right, str) else right
        return any(
            covers(grant, site, self.repos) and allows(grant, phases) for grant in granted(self.grants, names, signer)
        )

    def may_abort(self, signer: Signers, site: SiteName) -> bool:
        """Return whether a grant for `rollout.abort` lets a signer abort everybody's rollouts of a site."""
        return self.may(ABORT, signer, site)

    def may_coordinate(self, signer: Signers, site: SiteName) -> bool:
        """Return whether a signer may deploy a site, or abort its rollouts: what it says of a rollout counts."""
        return self.may((*DEPLOY, RUN, *ABORT), signer, site)

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
            raise NotAddressed(f"{called(abort)} is not for {node}")
        check_times(abort, now, cap=self.max_expiry, skew=self.skew)
        if all(self.may((*ABORT, *DEPLOY, RUN), each, abort.site) for each in signer.each):
            return self.may_abort(signer, abort.site)
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
        judge_mandate(
            mandate,
            requirement,
            now,
            grants=self.grants,
            repos=self.repos,
            skew=self.skew,
            longest=self.mandate_max,
        )

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
        granting = granted(self.grants, type_names(BuildFinished), signer)
        return judge_build(result, granting, now=now, remember=remember, site=site, skew=self.skew)

    def authorize_reply(self, reply: Reply, signer: Signers, *, request: Request, now: datetime) -> None:
        """Accept a node's reply to our own request.

        The age of a reply is not limited: the request is still waited for, and a report may have sat in an outbox.

        Raises:
            PolicyRefused: to another request; of a node that was not asked; signed by a key that may not speak for that
                node; or success with something that was not asked for.
        """
        check_fits(reply, request)
        check_not_ahead(reply, now, self.skew)
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
            matches(grant.speaks_for, node) and matches(grant.sites, site)
            for grant in granted(self.grants, type_names(type(message)), signer)
        )

    def may_ask_about(self, question: NodeQueried, signer: Signers, site: SiteName) -> bool:
        """Return whether a signer may ask nodes about a site; `authorize` says whether it may ask at all."""
        return self.may(type_names(type(question)), signer, site)


__all__ = ["Policy", "Reply", "Request", "addressed_to", "type_names"]
