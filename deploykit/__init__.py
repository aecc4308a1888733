"""Message-driven deploys over STOMP: messages, a resilient bus, git mirrors, releases.

`import deploykit` is cheap: what needs stomp.py, dulwich or cattrs is loaded when it is first used.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING

from deploykit._version import __version__

if TYPE_CHECKING:
    from deploykit.bus import Ack, Bus, Delivery, Reject, Retry
    from deploykit.errors import DeploykitError, MessageError
    from deploykit.mirror import Mirror
    from deploykit.outbox import Outbox
    from deploykit.release import Runner, Site
    from deploykit.wire import Frame, decode, encode

#: Public name -> the module that holds it (loaded on first use).
_LAZY = {
    "Ack": "deploykit.bus",
    "Bus": "deploykit.bus",
    "Delivery": "deploykit.bus",
    "Reject": "deploykit.bus",
    "Retry": "deploykit.bus",
    "DeploykitError": "deploykit.errors",
    "MessageError": "deploykit.errors",
    "Mirror": "deploykit.mirror",
    "Outbox": "deploykit.outbox",
    "Runner": "deploykit.release",
    "Site": "deploykit.release",
    "Frame": "deploykit.wire",
    "decode": "deploykit.wire",
    "encode": "deploykit.wire",
}

__all__ = [
    "Ack",
    "Bus",
    "Delivery",
    "DeploykitError",
    "Frame",
    "MessageError",
    "Mirror",
    "Outbox",
    "Reject",
    "Retry",
    "Runner",
    "Site",
    "decode",
    "encode",
    "__version__",
]


# A library prints nothing: whoever embeds it decides where its logs go.
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> object:
    try:
        module = _LAZY[name]
    except KeyError:
        raise AttributeError(f"module 'deploykit' has no attribute {name!r}") from None
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return sorted(__all__)
