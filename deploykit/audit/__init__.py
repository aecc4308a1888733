"""Who asked for what, and what was decided: a durable, hash-chained, bounded log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploykit.audit.log import AuditLog

if TYPE_CHECKING:
    from collections.abc import Callable

    from deploykit.audit.record import Decision
    from deploykit.settings.node import Settings


def open_audit(settings: Settings, *, on_record: Callable[[Decision], object] | None = None) -> AuditLog:
    """Return the audit log that the settings name.

    Args:
        settings: name it.
        on_record: called with the decision of each record that was written.

    Raises:
        AuditError: it cannot be written, or a newer deploykit wrote it.
    """
    audit = settings.audit
    return AuditLog(audit.path_in(settings.state), max_bytes=audit.max_bytes, keep=audit.keep, on_record=on_record)


__all__ = ["AuditLog", "open_audit"]
