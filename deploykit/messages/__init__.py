"""The vocabulary: frozen values, one file per subject. Pure: no I/O, no wire format."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from deploykit.messages.access import AccessGrantRequested, AccessRevokeRequested
from deploykit.messages.base import Message, new_id, one_line, utc_now
from deploykit.messages.build import Build, BuildFinished, BuildOutcome, BuildRequested, BuildStarted
from deploykit.messages.deploy import DeployOutcome, DeployPhase, DeployReported, DeployRequested, StepReport
from deploykit.messages.mirror import MirrorOutcome, MirrorUpdated
from deploykit.messages.node import HeldRef, NodeDescribed, NodeDetail, NodeQueried, SiteState
from deploykit.messages.notice import Notice
from deploykit.messages.package import PackagePublished
from deploykit.messages.source import (
    COMMITS_TOLD,
    DIRS_TOLD,
    Commit,
    RefChangeKind,
    RefUpdated,
    RevisionCommitted,
    svn_projects,
    told,
)
from deploykit.messages.unknown import Unknown

#: Wire type -> class, for every message that has one.
BY_TYPE: Final[Mapping[str, type[Message]]] = MappingProxyType(
    {
        cls.TYPE: cls
        for cls in (
            RefUpdated,
            RevisionCommitted,
            BuildRequested,
            BuildStarted,
            BuildFinished,
            PackagePublished,
            MirrorUpdated,
            DeployRequested,
            DeployReported,
            NodeQueried,
            NodeDescribed,
            AccessGrantRequested,
            AccessRevokeRequested,
            Notice,
        )
    }
)

__all__ = [
    "AccessGrantRequested",
    "AccessRevokeRequested",
    "BY_TYPE",
    "Build",
    "BuildFinished",
    "BuildOutcome",
    "BuildRequested",
    "BuildStarted",
    "COMMITS_TOLD",
    "Commit",
    "DIRS_TOLD",
    "DeployOutcome",
    "DeployPhase",
    "DeployReported",
    "DeployRequested",
    "HeldRef",
    "Message",
    "MirrorOutcome",
    "MirrorUpdated",
    "NodeDescribed",
    "NodeDetail",
    "NodeQueried",
    "Notice",
    "PackagePublished",
    "RefChangeKind",
    "RefUpdated",
    "RevisionCommitted",
    "SiteState",
    "StepReport",
    "Unknown",
    "new_id",
    "one_line",
    "svn_projects",
    "told",
    "utc_now",
]
