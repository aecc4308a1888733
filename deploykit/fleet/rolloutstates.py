"""The states of a rollout and of its nodes, as tables: state -> what happened -> next state.

What a table does not list changes nothing for a node; for a rollout it cannot happen, and asking for it is a bug.
docs/rollouts.md shows both tables, drawn from here by docs/rollouttable.py.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, Literal

from deploykit.messages.rollout import RolloutState

NodeState = Literal["pending", "asked", "prepared", "active", "failed", "silent", "refused", "skipped", "rolled-back"]

#: The states in which a rollout is over.
ENDS: Final[frozenset[RolloutState]] = frozenset({"succeeded", "failed", "aborted", "rolled-back"})


class RolloutTurn(enum.Enum):
    """What moves a rollout on."""

    PREPARE_ALL = "every node is asked to prepare"
    ENOUGH_PREPARED = "enough nodes are prepared"
    CANARIES = "the canaries are asked"
    BATCH = "the next batch is asked"
    PAUSE = "a pause between two batches begins"
    STOP = "it stops, and something prepared is left to discard"
    ABORT = "abort"
    GO_BACK = "what was activated is taken back"
    ALL_ACTIVE = "nothing is left to do, every node is active"
    NOT_ALL_ACTIVE = "nothing is left to do, and not all is as it was wanted"
    ABORTED = "nothing is left to do after an abort"
    ALL_BACK = "nothing is left to do, and what was activated went back"


_R = RolloutTurn
_STAGE_OVER: Final[Mapping[RolloutTurn, RolloutState]] = {
    _R.BATCH: "rolling",
    _R.PAUSE: "paused",
    _R.STOP: "aborting",
    _R.ABORT: "aborting",
    _R.GO_BACK: "rolling-back",
    _R.ALL_ACTIVE: "succeeded",
    _R.NOT_ALL_ACTIVE: "failed",
}

ROLLOUT: Final[Mapping[RolloutState, Mapping[RolloutTurn, RolloutState]]] = {
    "planned": {_R.PREPARE_ALL: "preparing", _R.CANARIES: "canary", _R.BATCH: "rolling"},
    "preparing": {
        _R.ENOUGH_PREPARED: "prepared",
        _R.STOP: "aborting",
        _R.ABORT: "aborting",
        _R.NOT_ALL_ACTIVE: "failed",
    },
    "prepared": {_R.CANARIES: "canary", _R.BATCH: "rolling", _R.PAUSE: "paused", _R.STOP: "aborting"},
    "canary": _STAGE_OVER,
    "rolling": _STAGE_OVER,
    "paused": {_R.CANARIES: "canary", _R.BATCH: "rolling", _R.ABORT: "aborting"},
    "aborting": {_R.GO_BACK: "rolling-back", _R.NOT_ALL_ACTIVE: "failed", _R.ABORTED: "aborted"},
    "rolling-back": {_R.ABORT: "aborting", _R.NOT_ALL_ACTIVE: "failed", _R.ALL_BACK: "rolled-back"},
    "succeeded": {},
    "failed": {},
    "aborted": {},
    "rolled-back": {},
}


class NodeTurn(enum.Enum):
    """What changes the state of a node. "Late": after its deadline."""

    ASKED = "a command goes to it"
    PREPARED = "it has prepared"
    ACTIVATED = "what was wanted is live (deploy, activate; rollback where that is the rollout)"
    WENT_BACK = "it has gone back"
    DISCARDED = "it has discarded what was prepared"
    NOT_DISCARDED = "it could not discard, or did not answer that in time"
    FAILED = "it failed, or put its old release back by itself"
    REFUSED = "it refused, and changed nothing"
    DEADLINE = "its deadline passes without an answer"
    LATE_PREPARED = "late: it has prepared"
    LATE_ACTIVATED = "late: what was wanted is live"
    LATE_WENT_BACK = "late: it has gone back"
    LATE_DISCARDED = "late: it has discarded what was prepared"
    LATE_FAILED = "late: it failed"
    LATE_REFUSED = "late: it refused"
    FAILED_BAKING = "while its batch bakes: it failed after all"
    ENDED = "the rollout ends"


_N = NodeTurn

NODE: Final[Mapping[NodeState, Mapping[NodeTurn, NodeState]]] = {
    "pending": {_N.ASKED: "asked", _N.ENDED: "skipped"},
    "asked": {
        _N.PREPARED: "prepared",
        _N.ACTIVATED: "active",
        _N.WENT_BACK: "rolled-back",
        _N.DISCARDED: "skipped",
        _N.NOT_DISCARDED: "prepared",
        _N.FAILED: "failed",
        _N.REFUSED: "refused",
        _N.DEADLINE: "silent",
    },
    "prepared": {_N.ASKED: "asked", _N.LATE_DISCARDED: "skipped"},
    "active": {_N.ASKED: "asked", _N.FAILED_BAKING: "failed"},
    "failed": {_N.ASKED: "asked"},
    "silent": {
        _N.ASKED: "asked",
        _N.LATE_PREPARED: "prepared",
        _N.LATE_ACTIVATED: "active",
        _N.LATE_WENT_BACK: "rolled-back",
        _N.LATE_FAILED: "failed",
        _N.LATE_REFUSED: "refused",
    },
    "refused": {},
    "skipped": {},
    "rolled-back": {},
}
