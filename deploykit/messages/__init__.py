"""The vocabulary: frozen values, one file per subject. Pure: no I/O, no wire format.

A subject is loaded on first use: making its classes takes time, and a push uses two of the twenty-two.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from deploykit.messages.base import Message, new_id, one_line, utc_now

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deploykit.messages.access import AccessGrantRequested, AccessReported, AccessRevokeRequested
    from deploykit.messages.build import (
        Build,
        BuildFinished,
        BuildOutcome,
        BuildRequested,
        BuildStarted,
        RequestOutcome,
    )
    from deploykit.messages.deploy import (
        MAX_EVIDENCE,
        BuildEvidence,
        DeployOutcome,
        DeployPhase,
        DeployReported,
        DeployRequested,
        StepReport,
    )
    from deploykit.messages.lock import MAX_LOCK, LocksWanted, SiteLocked, SiteUnlocked
    from deploykit.messages.mirror import MirrorOutcome, MirrorUpdated
    from deploykit.messages.node import (
        AgentInstance,
        HeldRef,
        NodeDescribed,
        NodeDetail,
        NodeQueried,
        SiteAccess,
        SiteOperation,
        SiteState,
    )
    from deploykit.messages.notice import Notice
    from deploykit.messages.package import PackagePublished, PackageReported
    from deploykit.messages.progress import DeployProgressed, ProgressState
    from deploykit.messages.rollout import (
        ApprovalWanted,
        RolloutAbort,
        RolloutApproved,
        RolloutKind,
        RolloutProposed,
        RolloutReported,
        RolloutState,
    )
    from deploykit.messages.site import MAX_PARTS, SitePart, SiteRelease
    from deploykit.messages.source import (
        MAX_COMMITS,
        MAX_DIRS,
        Commit,
        RefChangeKind,
        RefUpdated,
        RevisionCommitted,
        bounded_commits,
        svn_projects,
    )
    from deploykit.messages.statement import SignedStatement
    from deploykit.messages.unknown import Unknown

    #: Wire type -> class, for every message that has one.
    BY_TYPE: Mapping[str, type[Message]]

__all__ = [
    "AccessGrantRequested",
    "AccessReported",
    "AccessRevokeRequested",
    "AgentInstance",
    "ApprovalWanted",
    "BY_TYPE",
    "Build",
    "BuildEvidence",
    "BuildFinished",
    "BuildOutcome",
    "BuildRequested",
    "BuildStarted",
    "MAX_COMMITS",
    "MAX_EVIDENCE",
    "MAX_PARTS",
    "Commit",
    "MAX_DIRS",
    "MAX_LOCK",
    "DeployOutcome",
    "DeployPhase",
    "DeployProgressed",
    "DeployReported",
    "DeployRequested",
    "HeldRef",
    "LocksWanted",
    "Message",
    "MirrorOutcome",
    "MirrorUpdated",
    "NodeDescribed",
    "NodeDetail",
    "NodeQueried",
    "Notice",
    "PackagePublished",
    "PackageReported",
    "ProgressState",
    "RefChangeKind",
    "RequestOutcome",
    "RefUpdated",
    "RevisionCommitted",
    "RolloutAbort",
    "RolloutApproved",
    "RolloutKind",
    "RolloutProposed",
    "RolloutReported",
    "RolloutState",
    "SignedStatement",
    "SiteAccess",
    "SiteLocked",
    "SiteOperation",
    "SitePart",
    "SiteRelease",
    "SiteState",
    "SiteUnlocked",
    "StepReport",
    "Unknown",
    "new_id",
    "one_line",
    "svn_projects",
    "bounded_commits",
    "utc_now",
]

#: Public name -> the module of this package that holds it.
_LAZY: Final = {
    "AccessGrantRequested": "access",
    "AccessReported": "access",
    "AccessRevokeRequested": "access",
    "AgentInstance": "node",
    "Build": "build",
    "BuildEvidence": "deploy",
    "BuildFinished": "build",
    "BuildOutcome": "build",
    "BuildRequested": "build",
    "BuildStarted": "build",
    "RequestOutcome": "build",
    "DeployOutcome": "deploy",
    "DeployPhase": "deploy",
    "DeployProgressed": "progress",
    "DeployReported": "deploy",
    "DeployRequested": "deploy",
    "ProgressState": "progress",
    "LocksWanted": "lock",
    "MAX_LOCK": "lock",
    "SiteLocked": "lock",
    "SiteUnlocked": "lock",
    "SignedStatement": "statement",
    "ApprovalWanted": "rollout",
    "RolloutAbort": "rollout",
    "RolloutApproved": "rollout",
    "RolloutKind": "rollout",
    "RolloutProposed": "rollout",
    "RolloutReported": "rollout",
    "RolloutState": "rollout",
    "MAX_PARTS": "site",
    "SitePart": "site",
    "SiteRelease": "site",
    "StepReport": "deploy",
    "MirrorOutcome": "mirror",
    "MirrorUpdated": "mirror",
    "HeldRef": "node",
    "NodeDescribed": "node",
    "NodeDetail": "node",
    "NodeQueried": "node",
    "SiteAccess": "node",
    "SiteOperation": "node",
    "SiteState": "node",
    "Notice": "notice",
    "PackagePublished": "package",
    "PackageReported": "package",
    "MAX_COMMITS": "source",
    "MAX_EVIDENCE": "deploy",
    "MAX_DIRS": "source",
    "Commit": "source",
    "RefChangeKind": "source",
    "RefUpdated": "source",
    "RevisionCommitted": "source",
    "svn_projects": "source",
    "bounded_commits": "source",
    "Unknown": "unknown",
}
_WITH_TYPE: Final = (
    "RefUpdated",
    "RevisionCommitted",
    "BuildRequested",
    "BuildStarted",
    "BuildFinished",
    "PackagePublished",
    "PackageReported",
    "MirrorUpdated",
    "DeployRequested",
    "DeployReported",
    "DeployProgressed",
    "RolloutAbort",
    "RolloutApproved",
    "ApprovalWanted",
    "RolloutProposed",
    "RolloutReported",
    "SiteLocked",
    "SiteUnlocked",
    "LocksWanted",
    "NodeQueried",
    "NodeDescribed",
    "AccessGrantRequested",
    "AccessReported",
    "AccessRevokeRequested",
    "Notice",
)


def __getattr__(name: str) -> object:
    if name == "BY_TYPE":
        from types import MappingProxyType

        made = (_load(each) for each in _WITH_TYPE)
        found: object = MappingProxyType(
            {cls.TYPE: cls for cls in made if isinstance(cls, type) and issubclass(cls, Message)}
        )
    elif name in _LAZY:
        found = _load(name)
    else:
        raise AttributeError(f"module 'deploykit.messages' has no attribute {name!r}")
    globals()[name] = found
    return found


def _load(name: str) -> object:
    return getattr(importlib.import_module(f"deploykit.messages.{_LAZY[name]}"), name)
