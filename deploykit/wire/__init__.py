"""Bytes <-> messages. Pure: no I/O, no clock of its own, nothing of brokers.

`encode` and `decode` are the one way out and in (`encode_fitted` for what may be cut). Whom to believe is decided in
`deploykit.trust`.
"""

from deploykit.wire.codec import CONTENT_TYPE, body_size, decode, encode, encode_fitted
from deploykit.wire.frame import Frame, sendable
from deploykit.wire.redacted import redact

__all__ = [
    "CONTENT_TYPE",
    "Frame",
    "body_size",
    "decode",
    "encode",
    "encode_fitted",
    "redact",
    "sendable",
]
