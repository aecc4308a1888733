"""What a mandate lets a coordinator do: pure rules over one signed `RolloutApproved` and one command.

Rules:

* A command that names a mandate is obeyed only inside it, whether its site asks for a mandate or not.
* Whether enough people signed it, who may, is judged before (`Policy.judge_mandate`).
* A command lies inside when `inside` finds no difference. Free are its id and time, which of the nodes it is for, its
  evidence, who asked, and an expiry up to the end of the mandate.
* A `discard` puts nothing live and needs no mandate.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, Self

import attrs

from deploykit.messages import DeployRequested, RolloutApproved, SiteRelease
from deploykit.messages.site import name_of, version_of
from deploykit.names import NodeName
from deploykit.settings.site import NodeSiteSettings
from deploykit.trust.signature import Signers

#: The phases that a mandate may name. Going back has a switch of its own.
FORWARD: Final = frozenset({"deploy", "prepare", "activate"})


@attrs.frozen(kw_only=True, slots=True)
class Mandate:
    """A verified `RolloutApproved`.

    Args:
        message: decoded from the verified body.
        signers: who signed it, by the keys that are trusted now.
        digest: hex SHA-256 of its body: what commands name.
    """

    message: RolloutApproved
    signers: Signers
    digest: str


@attrs.frozen(kw_only=True, slots=True)
class Requirement:
    """What a site asks of a mandate; the default is the least that any mandate needs.

    Args:
        require: `person`: only keys that show presence count.
        signatures: how many different people must have signed.
    """

    require: Literal["", "person"] = ""
    signatures: int = 1

    @classmethod
    def of(cls, site: NodeSiteSettings) -> Self:
        """Return what a site asks for."""
        return cls(require=site.require, signatures=site.signatures)

    def and_also(self, other: Requirement | None) -> Requirement:
        """Return what meets both; None asks for nothing."""
        if other is None:
            return self
        return Requirement(require=self.require or other.require, signatures=max(self.signatures, other.signatures))

    def __str__(self) -> str:
        who = "1 person" if self.signatures == 1 else f"{self.signatures} different people"
        return f"{who} with a key that shows presence" if self.require == "person" else who


def inside(
    mandate: Mandate,
    command: DeployRequested,
    node: NodeName,
    now: datetime,
    previous: SiteRelease | None,
    live: SiteRelease | None,
    *,
    skew: timedelta = timedelta(0),
    went_back: Collection[SiteRelease] = (),
) -> str:
    """Return why a command does not lie inside a mandate; an empty string where it does.

    Args:
        mandate: one that `Policy.judge_mandate` accepts.
        command: as its signer sent it.
        node: who we are.
        now: aware; of a command that is resumed, when it was first claimed.
        previous: the last good release before the live one, as this node has it on record; None for none.
        live: what is live on this node; None for nothing.
        skew: how far apart honest clocks may be.
        went_back: where commands of this rollout took this node back before, as it has them on record.
    """
    if command.phase == "discard":
        return ""
    approved = mandate.message
    if command.mandate != mandate.digest:
        return "the command names another mandate"
    for what, asked, allowed in (
        ("site", command.site, approved.site),
        ("rollout", command.rollout or "none", approved.rollout),
    ):
        if asked != allowed:
            return f"the mandate is for {what} {allowed}, the command for {asked}"
    return (
        _outside_nodes(approved, command, node)
        or _outside_time(approved, command, now, skew)
        or _outside_switches(approved, command)
        or (
            _outside_way_back(approved, command, previous, live, went_back)
            if command.phase == "rollback"
            else _outside_way_forward(approved, command)
        )
    )


def _outside_nodes(approved: RolloutApproved, command: DeployRequested, node: NodeName) -> str:
    named_nodes = frozenset(approved.nodes)
    if node not in named_nodes:
        return f"the mandate does not name node {node}"
    others = [other for other in command.audience if other not in named_nodes]
    return f"the mandate does not name node {others[0]} of the command's audience" if others else ""


def _outside_time(approved: RolloutApproved, command: DeployRequested, now: datetime, skew: timedelta) -> str:
    if approved.not_before - now > skew:
        return f"the mandate begins at {instant(approved.not_before)}"
    if now - approved.not_after > skew:
        return f"the mandate ended at {instant(approved.not_after)}"
    if command.expires > approved.not_after:
        ends = instant(approved.not_after)
        return f"the command expires at {instant(command.expires)}, after the mandate ends at {ends}"
    return ""


def _outside_switches(approved: RolloutApproved, command: DeployRequested) -> str:
    if command.without_build and not approved.without_build:
        return "the mandate does not allow to leave out builds"
    if command.override_lock and command.override_lock != approved.override_lock:
        return (
            "the mandate allows to override a lock for another reason"
            if approved.override_lock
            else "the mandate does not allow to override a lock"
        )
    return ""


def _outside_way_forward(approved: RolloutApproved, command: DeployRequested) -> str:
    if command.phase not in approved.phases:
        allowed = ", ".join(approved.phases) or "only going back"
        return f"the mandate allows {allowed}, the command is to {command.phase}"
    if version_of(command) != version_of(approved):
        return f"the mandate is for {name_of(approved) or 'no commit'}, the command for {name_of(command)}"
    return ""


def _outside_way_back(
    approved: RolloutApproved,
    command: DeployRequested,
    previous: SiteRelease | None,
    live: SiteRelease | None,
    went_back: Collection[SiteRelease],
) -> str:
    """Return why a node may not go back to there: not allowed, or not where it was before the rollout."""
    if not approved.allow_rollback:
        return "the mandate does not allow to go back"
    target = version_of(command)
    if live is not None and version_of(live) == target:
        return ""  # it is there already: a command that was sent again
    if other := next((each for each in went_back if version_of(each) != target), None):
        return f"a command of this rollout took the node back to {other} before, and one mandate is for one step"
    if approved.commit is not None and live is not None and not _put_live_by(approved, live):
        return f"the mandate allows to go back from {approved.commit[:12]}, live is {live}"
    if previous is None or version_of(previous) != target:
        there_is, asked = str(previous) if previous is not None else "none", name_of(command)
        return f"the mandate allows to go back to the previous release ({there_is}), the command names {asked}"
    return ""


def _put_live_by(approved: RolloutApproved, live: SiteRelease) -> bool:
    return (live.commit, live.parts) == (approved.commit, approved.parts)


def instant(when: datetime) -> str:
    """Return an instant as text, to the second, in UTC."""
    return f"{when.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


__all__ = ["FORWARD", "Mandate", "Requirement", "inside", "instant"]
