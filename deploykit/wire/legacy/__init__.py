"""The bridge to the original's text bodies: both ways, so that hooks and daemons can be replaced one at a time.

`decoder` reads every body the original's publishers wrote, recognized by its first lines, whatever topic it came on.
`encoder` writes what the original's Jenkins trigger, access daemon and mirror updater act on.

The original's mirror updater ends on a keepalive: never send it one.
"""

from deploykit.wire.legacy.decoder import decode_legacy
from deploykit.wire.legacy.encoder import encode_legacy, legacy_frames

__all__ = ["decode_legacy", "encode_legacy", "legacy_frames"]
