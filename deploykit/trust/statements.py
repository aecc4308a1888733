"""A signed message as a value inside another one, and back: `SignedStatement` <-> frame."""

from __future__ import annotations

import base64
import binascii

from deploykit.errors import MessageError
from deploykit.messages import new_id
from deploykit.messages.statement import SignedStatement
from deploykit.trust.signature import HEADER
from deploykit.wire import CONTENT_TYPE, Frame, decode, encode
from deploykit.wire.codec import ID_HEADER


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


def frame_again(statement: SignedStatement) -> Frame:
    """Return a carried message as a frame that is sent again: the same body and signature, under a new transport id.

    Under the old one a bus that has seen it would drop it as a duplicate.

    Raises:
        MessageError: it is no message.
    """
    carried = frame_of(statement)
    message = decode(carried.headers, carried.body)
    if message is None:
        raise MessageError("a carried message is empty")
    headers = {**encode(message).headers, ID_HEADER: f"{message.id}/{new_id()}", HEADER: statement.signature}
    return Frame(headers, carried.body)


__all__ = ["frame_again", "frame_of", "statement_of"]
