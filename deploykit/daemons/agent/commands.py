"""Which deploy command a frame claims to be, before anybody has verified it."""

from __future__ import annotations

from deploykit.errors import MessageError
from deploykit.messages import DeployRequested
from deploykit.names import NodeName
from deploykit.trust.policy import addressed_to
from deploykit.wire import Frame, decode


def command_in(frame: Frame, node: NodeName) -> DeployRequested | None:
    """Return the command for this node that an unverified frame claims to be; None for anything else."""
    try:
        message = decode(frame.headers, frame.body)
    except MessageError:
        return None
    return message if isinstance(message, DeployRequested) and addressed_to(message, node) else None
