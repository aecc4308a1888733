"""What pages and API call to do something: one class for each kind of action, each with its rules in its docstring.

Every method takes the viewer first, may block, and raises `ActionRefused` before anything is done. A refusal is in the
audit before it is raised, and so is what was done before it is returned.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import attrs

from deploykit.web.actions.asked import ControlAsked, DeployAsked, GrantAsked, LockAsked, RollbackAsked
from deploykit.web.actions.shown import (
    AccessGranted,
    AccessRow,
    ActionOutcome,
    LockState,
    PersonPresent,
    PlanShown,
    ProposalShown,
)
from deploykit.web.projection.rolloutviews import RolloutDetail
from deploykit.web.projection.views import PageRequested
from deploykit.web.viewer import Viewer


class RolloutActions(ABC):
    """Rollouts. `stage` plans, proposes, signs, pauses and aborts; `live` starts, promotes, rolls back and retries;
    `admin` overrides a lock and leaves out builds.
    """

    @abstractmethod
    def plan(self, viewer: Viewer, asked: DeployAsked | RollbackAsked) -> PlanShown:
        """Return what would be done. Nodes and the origin are asked; nothing else is sent."""

    @abstractmethod
    def begin(self, viewer: Viewer, asked: DeployAsked | RollbackAsked) -> ActionOutcome:
        """Start it, or propose it where people must sign."""

    @abstractmethod
    def control(self, viewer: Viewer, rollout: str, asked: ControlAsked) -> ActionOutcome:
        """Ask something of a rollout that this console, or another on its database, coordinates."""

    @abstractmethod
    def plan_retry(self, viewer: Viewer, rollout: str, *, approval: bool = False) -> PlanShown:
        """Return what a retry of the nodes that failed, refused or were silent would do."""

    @abstractmethod
    def retry(
        self, viewer: Viewer, rollout: str, plan: str = "", *, approval: bool = False, reason: str = ""
    ) -> ActionOutcome:
        """Start it, or propose it. `plan` as in `DeployAsked`."""

    @abstractmethod
    def begun(self, viewer: Viewer, rollout: str, page: PageRequested) -> RolloutDetail | None:
        """Return a rollout that has begun as the ledger has it, with a page of its nodes; None where there is none."""

    @abstractmethod
    def proposal(self, viewer: Viewer, rollout: str) -> ProposalShown | None:
        """Return a rollout that waits for people; None where there is none."""

    @abstractmethod
    def proposals(self, viewer: Viewer, site: str = "") -> Sequence[ProposalShown]:
        """Return those that wait, newest first; of one site, or of all."""

    @abstractmethod
    def sign(self, viewer: Viewer, rollout: str, signature: str) -> ActionOutcome:
        """Add a signature, a value of the signature header. It starts the rollout once enough people have signed."""

    @abstractmethod
    def withdraw(self, viewer: Viewer, rollout: str) -> ActionOutcome:
        """Remove a proposal."""


class LockActions(ABC):
    """Locks, signed by the console's own key. `live` locks, and unlocks what the console locked for the same person;
    `admin` unlocks what anybody locked.
    """

    @abstractmethod
    def lock(self, viewer: Viewer, asked: LockAsked) -> ActionOutcome:
        """Lock a site; the outcome names the nodes that hold the lock and those that do not."""

    @abstractmethod
    def unlock(self, viewer: Viewer, site: str, reason: str = "") -> ActionOutcome:
        """Lift the lock."""

    @abstractmethod
    def state(self, viewer: Viewer, site: str) -> LockState:
        """Ask the nodes of a site, and return what they show of its lock, for a statement that is signed elsewhere."""


class AccessActions(ABC):
    """Who may see protected sites. `live` lists, grants, extends and revokes."""

    @abstractmethod
    def sites(self, viewer: Viewer) -> Sequence[str]:
        """Return the sites for which the viewer may grant access."""

    @abstractmethod
    def list(self, viewer: Viewer, site: str = "") -> Sequence[AccessRow]:
        """Return who may see a site, or all of them, as nodes have reported it."""

    @abstractmethod
    def grant(self, viewer: Viewer, asked: GrantAsked) -> AccessGranted:
        """Make a password, ask the nodes to let its hash in, and return it for the one time that it is shown."""

    @abstractmethod
    def extend(self, viewer: Viewer, asked: GrantAsked) -> ActionOutcome:
        """Move the end of an access; the password stays. Where its hash is not known any more: refused, grant anew."""

    @abstractmethod
    def revoke(self, viewer: Viewer, site: str, user: str) -> ActionOutcome:
        """End an access."""


class RelayActions(ABC):
    """Messages that were signed elsewhere: `deploykit … --via`. Body and signature go on unchanged."""

    @abstractmethod
    def relay(self, viewer: Viewer, body: bytes, signature: str) -> ActionOutcome:
        """Publish a lock, an unlock, an access grant or revocation. The signature must count by this console's trust,
        and the viewer must have the role that the action needs.
        """


class PresenceBoard(ABC):
    """Who has a page open from which a site can be changed, on any console of the database."""

    @abstractmethod
    def here(self, viewer: Viewer, site: str, what: str) -> Sequence[PersonPresent]:
        """Note that a viewer is there, and return who else is, of the last 90 seconds."""


@attrs.frozen(kw_only=True, slots=True)
class ConsoleActions:
    """All that can be done from the console."""

    rollouts: RolloutActions
    locks: LockActions
    access: AccessActions
    relay: RelayActions
    presence: PresenceBoard


__all__ = [
    "AccessActions",
    "ConsoleActions",
    "LockActions",
    "PresenceBoard",
    "RelayActions",
    "RolloutActions",
]
