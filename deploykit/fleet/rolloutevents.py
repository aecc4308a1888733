"""What a rollout hears, and what it wants done: the events and actions of `fleet.rollout`. Values only."""

from __future__ import annotations

import attrs

from deploykit.fleet.plan import Target
from deploykit.messages.deploy import DeployOutcome, DeployPhase
from deploykit.messages.rollout import RolloutState
from deploykit.names import NodeName

# -- events ------------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True, slots=True)
class NodeAnswered:
    """A node reported how a phase ended; the report is believed.

    Args:
        previous: the last good release before the live one; None where unknown.
        live: what is live now; None where unknown, or where nothing is.
        detail: why, in words for a person.
    """

    node: NodeName
    phase: DeployPhase
    outcome: DeployOutcome
    previous: Target | None = None
    live: Target | None = None
    detail: str = ""


@attrs.frozen(kw_only=True, slots=True)
class TimePassed:
    """Nothing happened but that time passed: what is due is looked at."""


@attrs.frozen(kw_only=True, slots=True)
class PauseAsked:
    """Somebody wants the rollout to wait at the next boundary between batches."""

    by: str = ""


@attrs.frozen(kw_only=True, slots=True)
class ResumeAsked:
    """Somebody wants a pause to end, or one that is not yet reached not to begin."""

    by: str = ""


@attrs.frozen(kw_only=True, slots=True)
class PromoteAsked:
    """Somebody wants the rollout to go on now: a pause ends as by `ResumeAsked`, and a bake counts as good."""

    by: str = ""


@attrs.frozen(kw_only=True, slots=True)
class AbortAsked:
    """Somebody wants the rollout to end.

    Args:
        rollback: take back what was activated.
    """

    by: str = ""
    rollback: bool = False


@attrs.frozen(kw_only=True, slots=True)
class CoordinatorCameBack:
    """The coordinator was resumed from its journal after `away` seconds."""

    away: float


RolloutEvent = NodeAnswered | TimePassed | PauseAsked | ResumeAsked | PromoteAsked | AbortAsked | CoordinatorCameBack

# -- actions -----------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True, slots=True)
class Ask:
    """Send one command to nodes: at most 1,000 of them."""

    phase: DeployPhase
    target: Target
    nodes: tuple[NodeName, ...]


@attrs.frozen(kw_only=True, slots=True)
class SendAbort:
    """Have all nodes obey no further command of this rollout but `discard` and `rollback`."""


@attrs.frozen(kw_only=True, slots=True)
class WakeAt:
    """Call `step` with `TimePassed` at this time at the latest. Replaces the earlier one.

    Args:
        at: wall-clock seconds.
    """

    at: float


@attrs.frozen(kw_only=True, slots=True)
class Announce:
    """The rollout is in another state: report it to people."""

    state: RolloutState


@attrs.frozen(kw_only=True, slots=True)
class End:
    """The rollout is over. Always the last action."""

    state: RolloutState


RolloutAction = Ask | SendAbort | WakeAt | Announce | End
