"""The bridge to the original's text bodies: both ways, so that hooks and daemons can be replaced one at a time.

`legacy_read` understands every body the original's publishers wrote, by its shape, whatever topic it came on.
`legacy_write` writes what the original's Jenkins trigger, access daemon and mirror updater act on. Mind that the
original's mirror updater ends on a keepalive: never send it one.
"""

from deploykit.wire.legacy.decoder import decode_legacy
from deploykit.wire.legacy.encoder import encode_legacy, legacy_frames

__all__ = ["decode_legacy", "encode_legacy", "legacy_frames"]
