"""The vocabulary: frozen values, one file per subject. Pure: no I/O, no wire format."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from deploykit.messages.base import Message, new_id, one_line, utc_now
from deploykit.messages.deploy import DeployOutcome, DeployPhase, DeployReported, DeployRequested, StepReport
from deploykit.messages.mirror import MirrorOutcome, MirrorUpdated
from deploykit.messages.notice import Notice
from deploykit.messages.source import Commit, RefChangeKind, RefUpdated, told
from deploykit.messages.unknown import Unknown

#: Wire type -> class, for every message that has one.
BY_TYPE: Final[Mapping[str, type[Message]]] = MappingProxyType(
    {cls.TYPE: cls for cls in (RefUpdated, MirrorUpdated, DeployRequested, DeployReported, Notice)}
)

__all__ = [
    "BY_TYPE",
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
    "Unknown",
    "new_id",
    "one_line",
    "told",
    "utc_now",
]
