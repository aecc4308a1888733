"""A signed message as a value inside another one, and back: `SignedStatement` <-> frame. Pure."""

from __future__ import annotations

import base64
import binascii

from deploykit.errors import MessageError
from deploykit.messages.statement import SignedStatement
from deploykit.trust.signature import HEADER
from deploykit.wire import CONTENT_TYPE, Frame


def statement_of(frame: Frame) -> SignedStatement:
    """Return a signed message in the form in which others carry it.

    Raises:
        MessageError: the frame is not signed.
    """
    signature = frame.headers.get(HEADER)
    if not signature:
        raise MessageError("the message is not signed", f"sign it: header {HEADER}")
    return SignedStatement(body=base64.b64encode(frame.body).decode(), signature=signature)


def frame_of(statement: SignedStatement) -> Frame:
    """Return the frame that a carried message was; nothing of it is verified.

    Raises:
        MessageError: its body is no base64.
    """
    try:
        body = base64.b64decode(statement.body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MessageError(f"a carried message is no base64: {error}") from error
    return Frame({"content-type": CONTENT_TYPE, HEADER: statement.signature}, body)


__all__ = ["frame_of", "statement_of"]
