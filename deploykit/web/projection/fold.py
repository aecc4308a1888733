"""One message into the projection: which rows it changes.

Rules:

* The same messages give the same rows, however often they come; an older one never overwrites a newer.
* A message that nobody looks at changes nothing.
"""

from __future__ import annotations

from deploykit.messages import (
    AccessGrantRequested,
    AccessReported,
    AccessRevokeRequested,
    Build,
    DeployProgressed,
    DeployReported,
    DeployRequested,
    MirrorUpdated,
    NodeDescribed,
    NodeQueried,
    Notice,
    RefUpdated,
    RevisionCommitted,
    RolloutAbort,
    RolloutApproved,
    RolloutReported,
    SiteLocked,
    SiteUnlocked,
)
from deploykit.web.projection.foldaccess import fold_access_command, fold_access_report
from deploykit.web.projection.folddeploys import fold_command, fold_progress, fold_report
from deploykit.web.projection.foldlocks import fold_lock
from deploykit.web.projection.foldnodes import fold_description, fold_question
from deploykit.web.projection.foldrollouts import fold_abort, fold_announcement, fold_approval
from deploykit.web.projection.foldsource import fold_build, fold_mirror, fold_notice, fold_push, fold_revision
from deploykit.web.projection.heard import Heard
from deploykit.web.projection.rows import WorkingRows


def fold(rows: WorkingRows, heard: Heard) -> None:  # noqa: PLR0912 -- one branch a message
    """Change the rows that a message is about."""
    message = heard.message
    match message:
        case DeployProgressed():
            fold_progress(rows, heard, message)
        case DeployReported():
            fold_report(rows, heard, message)
        case DeployRequested():
            fold_command(rows, heard, message)
        case RolloutReported():
            fold_announcement(rows, heard, message)
        case MirrorUpdated():
            fold_mirror(rows, heard, message)
        case NodeDescribed():
            fold_description(rows, heard, message)
        case RefUpdated():
            fold_push(rows, heard, message)
        case RevisionCommitted():
            fold_revision(rows, heard, message)
        case Build():
            fold_build(rows, heard, message)
        case SiteLocked() | SiteUnlocked():
            fold_lock(rows, heard, message)
        case RolloutApproved():
            fold_approval(rows, heard, message)
        case RolloutAbort():
            fold_abort(rows, heard, message)
        case Notice():
            fold_notice(rows, heard, message)
        case NodeQueried():
            fold_question(rows, heard, message)
        case AccessGrantRequested() | AccessRevokeRequested():
            fold_access_command(rows, heard, message)
        case AccessReported():
            fold_access_report(rows, heard, message)
        case _:
            pass
