"""Who asked for what, and what was decided: a durable, hash-chained, bounded log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploykit.audit.log import AuditLog

if TYPE_CHECKING:
    from deploykit.settings.node import Settings


def open_audit(settings: Settings) -> AuditLog:
    """Return the audit log that the settings name.

    Raises:
        AuditError: it cannot be written, or a newer deploykit wrote it.
    """
    audit = settings.audit
    return AuditLog(audit.path_in(settings.state), max_bytes=audit.max_bytes, keep=audit.keep)


__all__ = ["AuditLog", "open_audit"]
