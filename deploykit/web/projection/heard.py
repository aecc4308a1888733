"""A message as the projection takes it: decoded, and judged."""

from __future__ import annotations

from datetime import datetime

import attrs

from deploykit.messages import Message


@attrs.frozen(kw_only=True, slots=True)
class Heard:
    """A message that counts.

    Args:
        received: by this machine's clock, aware UTC.
        signer: who signed it, in words; empty where nobody did, or nobody looked.
        forgeable: keys are configured, and it has no signature: it counts, but shows nothing of who sent it.
    """

    message: Message
    received: datetime
    signer: str = ""
    forgeable: bool = False
