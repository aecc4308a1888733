"""The vocabulary: frozen values, one file per subject. Pure: no I/O, no wire format."""

from deploykit.messages.base import Message, new_id, one_line, utc_now
from deploykit.messages.deploy import DeployOutcome, DeployPhase, DeployReported, DeployRequested, StepReport
from deploykit.messages.mirror import MirrorOutcome, MirrorUpdated
from deploykit.messages.notice import Notice
from deploykit.messages.source import Commit, RefChangeKind, RefUpdated

__all__ = [
    "Commit",
    "DeployOutcome",
    "DeployPhase",
    "DeployReported",
    "DeployRequested",
    "Message",
    "MirrorOutcome",
    "MirrorUpdated",
    "Notice",
    "RefChangeKind",
    "RefUpdated",
    "StepReport",
    "new_id",
    "one_line",
    "utc_now",
]
