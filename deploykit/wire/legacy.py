"""The original's text bodies. (The bridge itself follows; a keepalive and a human line are understood already.)"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from deploykit.errors import MessageError
from deploykit.messages import Message, Notice
from deploykit.wire.frame import Frame


def encode_legacy(message: Message) -> Frame:
    """Write the original's text form."""
    raise MessageError(f"no legacy form for {type(message).__name__}")


def decode_legacy(headers: Mapping[str, str], body: bytes, destination: str, received: datetime) -> Message | None:
    """Read the original's text form."""
    if not body.strip():
        return None
    if headers.get("subject") == "Talking to eventbot":
        return Notice(text=body.decode("utf-8", "replace").strip(), source="legacy", time=received)
    raise MessageError("not a message of the original's that we know")
