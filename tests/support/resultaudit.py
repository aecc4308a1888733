"""The audit of build results, for a gate that a test makes."""

from __future__ import annotations

from deploykit.audit import AuditLog
from deploykit.builds import BuildStore
from deploykit.daemons.agent.result_audit import ResultAudit
from deploykit.daemons.service.auditing import AuditWriter
from deploykit.messages import utc_now
from deploykit.names import NodeName


def result_audit(log: AuditLog, store: BuildStore, node: NodeName) -> ResultAudit:
    """Return one that writes to `log`."""
    return ResultAudit(AuditWriter(log, f"agent/{node}", utc_now), node, store)
