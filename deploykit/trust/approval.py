"""Who approved a mandate: whether enough different people signed it who may, and whether it is over. Pure.

Rules:

* A signature counts where a grant for `rollout.approved` fits its key, the site, and every phase of the mandate.
* A person is a principal that such a grant names: two keys of one principal are one person.
* One key may be allowed as several principals. It stands for one of them.
* Where a site asks for a person, only signatures that show presence count.
* Signatures that do not count do no harm: anybody could have added them.
* To approve that builds are left out, one of those who count needs the right `without-build`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from typing import Final

import attrs

from deploykit.errors import PolicyRefused
from deploykit.messages import RolloutApproved
from deploykit.messages.deploy import DeployPhase
from deploykit.names import RepoName, SiteName
from deploykit.settings.trust import GrantSettings
from deploykit.trust.freshness import called, check_not_ahead, since
from deploykit.trust.mandate import FORWARD, Mandate, Requirement, instant
from deploykit.trust.rights import APPROVE, WITHOUT_BUILD, allows, covers, granted
from deploykit.trust.signature import Signer, Signers

_HOUR: Final = timedelta(hours=1)


def judge_mandate(
    mandate: Mandate,
    requirement: Requirement,
    now: datetime,
    *,
    grants: tuple[GrantSettings, ...],
    repos: Mapping[SiteName, tuple[RepoName, ...]] | None,
    skew: timedelta,
    longest: timedelta,
) -> None:
    """Accept a mandate; the arguments are those of `Policy.judge_mandate`, and what a policy holds.

    Raises:
        PolicyRefused: too few people signed it, it is over, or it reaches too far ahead.
    """
    approved = mandate.message
    if problem := flaw(approved):
        raise PolicyRefused(f"{called(approved)} {problem}", "propose the rollout again")
    check_not_ahead(approved, now, skew)
    ahead = -since(now, approved.not_after, approved)
    if -ahead > skew:
        raise PolicyRefused(
            f"the mandate of rollout {approved.rollout} ended at {instant(approved.not_after)}",
            "propose the rollout again, with a later end",
        )
    if ahead > longest + skew:
        raise PolicyRefused(
            f"the mandate of rollout {approved.rollout} ends further ahead than {longest / _HOUR:g} h",
            "propose the rollout again with an earlier end, or raise trust.mandate_max on the nodes",
        )
    phases = needed_phases(approved)
    counted = count(
        mandate.signers,
        requirement,
        lambda signer: {
            grant.principal
            for grant in granted(grants, APPROVE, signer)
            if covers(grant, approved.site, repos) and allows(grant, phases)
        },
    )
    if counted.people < requirement.signatures:
        raise PolicyRefused(
            f"rollout {approved.rollout} of site {approved.site} needs the approval of {requirement}, "
            f"and has that of {counted.people}: {'; '.join(counted.reasons)}",
            f"have it signed by who may: deploykit approve {approved.rollout}",
        )
    if approved.without_build and not any(
        covers(grant, approved.site, repos) and allows(grant, approved.phases)
        for signer in counted.signers
        for grant in granted(grants, (WITHOUT_BUILD,), signer)
    ):
        raise PolicyRefused(
            f"rollout {approved.rollout} of site {approved.site} leaves out builds, which nobody who approved it may",
            f"propose it with builds, or add {WITHOUT_BUILD} to the types of a grant of who approves",
        )


def flaw(approved: RolloutApproved) -> str:
    """Return why a mandate means nothing, whoever signed it; an empty string where it means something."""
    odd = [phase for phase in approved.phases if phase not in FORWARD]
    if odd:
        return f"names the phase {odd[0]}, and going back is allow_rollback"
    whole = bool(approved.parts) or (approved.ref is None) == (approved.commit is None)
    if not whole or (approved.phases and approved.commit is None):
        return "names no whole release: it needs both ref and commit, or parts"
    if not approved.phases and not approved.allow_rollback:
        return "allows nothing"
    if not approved.nodes:
        return "names no node"
    if approved.not_after < approved.not_before:
        return "ends before it begins"
    return ""


def needed_phases(approved: RolloutApproved) -> tuple[DeployPhase, ...]:
    """Return the phases that a grant must allow to whoever signs this mandate."""
    back: tuple[DeployPhase, ...] = ("rollback",) if approved.allow_rollback else ()
    return (*approved.phases, *back)


@attrs.frozen(kw_only=True, slots=True)
class Approval:
    """Whose signatures of a mandate count.

    Args:
        signers: those that count.
        people: how many different people they stand for.
        reasons: of each signature why it counts or does not. No text names a principal: others may read it.
    """

    signers: tuple[Signer, ...]
    people: int
    reasons: tuple[str, ...]


def count(signers: Signers, requirement: Requirement, approvers: Callable[[Signer], AbstractSet[str]]) -> Approval:
    """Return whose signatures count.

    Args:
        signers: who signed.
        requirement: what the site asks for.
        approvers: returns the principals that have the grant, and that a key may sign as.
    """
    good: list[tuple[Signer, list[str]]] = []
    reasons = []
    for signer in signers.each:
        names = sorted(approvers(signer))
        if not names:
            reasons.append(f"key {signer.fingerprint} may not approve it")
        elif requirement.require == "person" and not signer.present:
            reasons.append(f"key {signer.fingerprint} shows no person's presence ({signer.key_type})")
        else:
            good.append((signer, names))
            reasons.append(f"key {signer.fingerprint} counts")
    found = people([names for _, names in good])
    if found < len(good):
        reasons.append("several keys of one principal are one person")
    return Approval(signers=tuple(signer for signer, _ in good), people=found, reasons=tuple(reasons))


def people(names: Sequence[Iterable[str]]) -> int:
    """Return how many different people signed at most, each signature standing for another principal.

    Args:
        names: for each signature the principals that it may stand for.

    >>> people([["ann", "bob"], ["ann"]]), people([["ann"], ["ann"]])
    (2, 1)
    """
    taken: dict[str, int] = {}

    def place(at: int, tried: set[str]) -> bool:
        for name in names[at]:
            if name not in tried:
                tried.add(name)
                if name not in taken or place(taken[name], tried):
                    taken[name] = at
                    return True
        return False

    return sum(place(at, set()) for at in range(len(names)))


__all__ = ["Approval", "count", "flaw", "judge_mandate", "needed_phases", "people"]
