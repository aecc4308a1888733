"""Who signed a message that is shown, in a trace or in the console, and whether it is to be believed.

Rules:

* Showing decides nothing: nodes judge commands, locks and approvals by rules of their own.
* Commands are judged by grants and by their own time; locks, approvals and build results by grants.
* A command of a rollout belongs there if its signer may run rollouts of the site, also where nodes refuse it.
* What speaks for a node is judged by that node: reports, progress, descriptions.
* Where the grants of this machine name nobody for a type, a trusted key is enough: only the nodes know who may.
* Pushes, fetches and the beginnings of builds need no signature. A fetch that has one is judged by its node.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final, Literal

import attrs

from deploykit.errors import DeploykitError, KeyFileError, PolicyRefused
from deploykit.fleet.recordformat import RecordedMessage
from deploykit.messages import (
    AccessGrantRequested,
    AccessReported,
    AccessRevokeRequested,
    ApprovalWanted,
    BuildFinished,
    DeployProgressed,
    DeployReported,
    DeployRequested,
    Message,
    MirrorUpdated,
    NodeDescribed,
    PackageReported,
    RolloutAbort,
    RolloutApproved,
    RolloutProposed,
    RolloutReported,
    SiteLocked,
    SiteUnlocked,
    one_line,
)
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.lockrules import LOCK
from deploykit.trust.policy import Policy
from deploykit.trust.rights import APPROVE, DEPLOY, RELEASE, RUN, covers, granted, type_names
from deploykit.trust.signature import HEADER, Signers, verify

Standing = Literal["verified", "unsigned", "doubtful", "not verified"]
_SIGNED: Final = (
    *(DeployRequested, RolloutAbort, RolloutApproved, SiteLocked, SiteUnlocked),
    *(DeployReported, DeployProgressed, RolloutReported, RolloutProposed, NodeDescribed, ApprovalWanted),
    *(PackageReported, AccessReported, AccessGrantRequested, AccessRevokeRequested),
)
_EVER: Final = timedelta(days=36500)


@attrs.frozen(kw_only=True, slots=True)
class SignatureVerdict:
    """What a signature is worth.

    Args:
        standing: `verified`, `unsigned` where none is needed, `doubtful` where it should be there and good and is not,
            `not verified` where nobody looked.
        signer: who signed, if verified.
        why: of a doubt.
    """

    standing: Standing
    signer: str = ""
    why: str = ""

    @property
    def counts(self) -> bool:
        """Whether the message may stand for what it says."""
        return self.standing != "doubtful"


NOT_VERIFIED: Final = SignatureVerdict(standing="not verified")


@attrs.frozen(kw_only=True, slots=True)
class TraceTrust:
    """Whom to believe: the allowed signers, read when they are needed, and the grants."""

    trusted: Callable[[], AllowedSigners]
    policy: Policy


def judge(record: RecordedMessage, message: Message, trust: TraceTrust | None) -> SignatureVerdict:
    """Return what the signature of a message is worth; None for `trust` looks at none."""
    if trust is None:
        return NOT_VERIFIED
    if HEADER not in record.headers:
        if isinstance(message, _SIGNED):
            return SignatureVerdict(standing="doubtful", why="not signed")
        return SignatureVerdict(standing="unsigned")
    try:
        signer = verify(record.frame, trust.trusted(), record.received)
        _check(message, signer, trust)
    except KeyFileError as error:
        return SignatureVerdict(standing="not verified", why=one_line(str(error)))
    except DeploykitError as error:
        return SignatureVerdict(standing="doubtful", why=one_line(error.problem))
    return SignatureVerdict(standing="verified", signer=one_line(str(signer), 200))


def _granted(policy: Policy, names: tuple[str, ...]) -> bool:
    """Return whether any grant names one of these types or rights."""
    return any(name in names for grant in policy.grants for name in grant.types)


def _check(message: Message, signer: Signers, trust: TraceTrust) -> None:
    """Refuse what the signer may not say.

    Raises:
        PolicyRefused: it may not.
    """
    policy = trust.policy
    match message:
        case (
            DeployReported()
            | DeployProgressed()
            | NodeDescribed()
            | ApprovalWanted()
            | MirrorUpdated()
            | AccessReported()
            | PackageReported()
        ):
            if not policy.may_speak_for(signer, message.node, message):
                raise PolicyRefused(f"{signer} may not report for node {message.node}")
        case DeployRequested() if not _granted(policy, (*DEPLOY, RUN)):
            pass
        case BuildFinished() if not _granted(policy, type_names(BuildFinished)):
            pass
        case SiteLocked() | SiteUnlocked() | RolloutApproved():
            _check_statement(message, signer, policy)
        case AccessGrantRequested() | AccessRevokeRequested() if _granted(policy, type_names(type(message))):
            if not any(
                covers(each, message.site, None) for each in granted(policy.grants, type_names(type(message)), signer)
            ):
                raise PolicyRefused(f"{signer} may not change who sees site {message.site}")
        case DeployRequested() if message.audience:
            _check_command(message, signer, policy)
        case RolloutAbort() | RolloutReported() | RolloutProposed() if _granted(policy, (*DEPLOY, RUN)):
            if not policy.may_coordinate(signer, message.site):
                raise PolicyRefused(f"{signer} may not deploy site {message.site}")
        case BuildFinished():
            policy.authorize_build(message, signer, now=message.time, remember=_EVER)
        case _:
            pass


def _check_command(message: DeployRequested, signer: Signers, policy: Policy) -> None:
    """Refuse a command of somebody who may not send it, unless it is of a rollout that they may run.

    Such a command was sent, and each node refuses it. Were it left out, those refusals would belong to no rollout.

    Raises:
        PolicyRefused: they may not.
    """
    if message.rollout is not None and policy.may((*DEPLOY, RUN), signer, message.site):
        return
    policy.authorize(message, signer, message.audience[0], message.time)


def _check_statement(message: SiteLocked | SiteUnlocked | RolloutApproved, signer: Signers, policy: Policy) -> None:
    """Refuse a lock or an approval of somebody whom no grant allows it on that site.

    Raises:
        PolicyRefused: it may not.
    """
    approves = isinstance(message, RolloutApproved)
    if not _granted(policy, APPROVE if approves else (*LOCK, RELEASE)):
        return
    names = APPROVE if approves else LOCK if isinstance(message, SiteLocked) else (*LOCK, RELEASE)
    if not any(covers(grant, message.site, None) for grant in granted(policy.grants, names, signer)):
        what = "approve rollouts of" if approves else "lock"
        raise PolicyRefused(f"{signer} may not {what} site {message.site}")
