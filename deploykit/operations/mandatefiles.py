"""A mandate in a file: what people carry from machine to machine to sign it, and read back byte for byte.

One JSON object: the body and the value of the signature header. The body is in base64, so that no mail program and no
editor changes what was signed. It is no secret.

Rules:

* Only a body that we would write ourselves is read as a mandate: no two readings of it, and nothing that we leave out.
* Signatures of several files are put together only where their bodies are the same, byte for byte.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from deploykit.errors import PolicyRefused, SignatureError, UsageError
from deploykit.fleet.mandates import HeldMandate
from deploykit.messages import RolloutApproved
from deploykit.system.durable import replace_file
from deploykit.trust.approval import flaw
from deploykit.trust.signature import HEADER, MAX_SIGNATURES, decode_headers
from deploykit.trust.sshsig import decode_blob, encode_header
from deploykit.wire import CONTENT_TYPE, Frame, decode, encode

FORMAT: Final = "deploykit-mandate"
VERSION: Final = 1
#: Bytes of the longest file: a body of 1 MiB in base64, and its signatures.
_MOST: Final = 2 * 1024 * 1024
#: A pipe in the place of a file must not hold us up.
_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


def mandate_frame(body: bytes, signatures: str = "") -> Frame:
    """Return the frame of a mandate's body and the value of its signature header, empty for none.

    The other headers are made anew from the body, where it is a mandate: none of them is signed.

    Raises:
        MessageError: the body is no message.
    """
    message = decode({"content-type": CONTENT_TYPE}, body)
    if not isinstance(message, RolloutApproved):
        raise UsageError(f"a {type(message).__name__} approves no rollout", "give the file that --propose wrote")
    headers = dict(encode(message).headers)
    return Frame({**headers, HEADER: signatures} if signatures else headers, body)


def body_problems(held: HeldMandate) -> tuple[str, ...]:
    """Return why nobody should sign a body although it can be read, a line each; empty for one that we would write."""
    return tuple(_body_problems(held))


def _body_problems(held: HeldMandate) -> Iterator[str]:
    message = held.message
    unknown = [*message.extra, *message.extensions]
    if unknown:
        names = ", ".join(ascii(name)[1:61] for name in unknown[:10])
        yield f"it has fields that this version does not know: {names}"
    if len(set(message.nodes)) != len(message.nodes):
        yield "it names a node twice"
    if problem := flaw(message):
        yield f"it {problem}"
    bare = attrs.evolve(message, extra={}, extensions={}) if unknown else message
    if not unknown and encode(bare).body != held.frame.body:
        yield "its bytes are not those that deploykit writes for what it says"


def require_canonical(held: HeldMandate) -> None:
    """Accept a mandate whose body we would write ourselves.

    Raises:
        PolicyRefused: it has unknown fields, or its bytes are others.
    """
    found = body_problems(held)
    if found:
        raise PolicyRefused(
            f"this mandate is not signed here: {'; '.join(found)}", "have it proposed again, by the same version"
        )


def read_mandate_file(path: Path) -> HeldMandate:
    """Return the mandate in a file. What its body says may yet be refused by `require_canonical`.

    Raises:
        UsageError: the file cannot be read, or holds no mandate.
        MessageError: its body is no message, or the signatures are malformed.
    """
    try:
        with os.fdopen(os.open(path, _FLAGS), "rb") as file:
            raw = file.read(_MOST + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", "give the file that --output wrote") from error
    return parse_mandate(raw, str(path))


def parse_mandate(raw: bytes, name: str = "the file") -> HeldMandate:
    """Return the mandate in the bytes of a file.

    Raises:
        UsageError, MessageError: as `read_mandate_file`.
    """
    try:
        value = json.loads(raw) if len(raw) <= _MOST else None
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise UsageError(f"{name} holds no mandate", "give the file that --output wrote")
        if value["version"] != VERSION:
            raise UsageError(f"{name} was written by a newer deploykit", "use that one")
        body, signatures = base64.b64decode(value["body"], validate=True), value["signatures"]
        if not isinstance(signatures, str):
            raise TypeError("signatures")
    except (ValueError, TypeError, KeyError, RecursionError, binascii.Error) as error:
        raise UsageError(f"{name} holds no mandate that can be read", "give the file that --output wrote") from error
    if signatures:
        decode_headers(signatures)
    return HeldMandate.of_frame(mandate_frame(body, signatures))


def mandate_text(held: HeldMandate) -> bytes:
    """Return the bytes of the file that holds a mandate; the rollout is named for people, and is not read back."""
    value = {
        "format": FORMAT,
        "version": VERSION,
        "rollout": held.message.rollout,
        "body": base64.b64encode(held.frame.body).decode(),
        "signatures": held.frame.headers.get(HEADER, ""),
    }
    return json.dumps(value, ensure_ascii=True, indent=1).encode() + b"\n"


def write_mandate_file(path: Path, held: HeldMandate) -> None:
    """Write a mandate to a file, durably, in place of what was there.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        replace_file(path, mandate_text(held))
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", "give another --output") from error


def blobs_of(held: HeldMandate) -> tuple[bytes, ...]:
    """Return the signatures of a mandate, verified or not.

    Raises:
        SignatureError: the header is malformed.
    """
    value = held.frame.headers.get(HEADER, "")
    return tuple(decode_headers(value)) if value else ()


def with_blobs(held: HeldMandate, blobs: Iterator[bytes] | tuple[bytes, ...]) -> HeldMandate:
    """Return a mandate with these signatures alone: one of each key, the last that stands there.

    Raises:
        SignatureError: there are more than a header may hold, or one is malformed.
    """
    by_key = {decode_blob(blob).key: blob for blob in blobs}
    if len(by_key) > MAX_SIGNATURES:
        raise SignatureError(f"a mandate has at most {MAX_SIGNATURES} signatures, not {len(by_key)}")
    value = ",".join(map(encode_header, by_key.values()))
    return HeldMandate.of_frame(mandate_frame(held.frame.body, value))


def merged(held: HeldMandate, other: HeldMandate, name: str = "the other file") -> HeldMandate:
    """Return a mandate with the signatures of both.

    Raises:
        PolicyRefused: they are of different bodies.
        SignatureError: there are too many signatures.
    """
    if held.frame.body != other.frame.body:
        same = held.message.rollout == other.message.rollout
        what = "another wording of this mandate" if same else f"a mandate for rollout {other.message.rollout[:80]!a}"
        raise PolicyRefused(f"{name} holds {what}: its signatures do not count for this one", "sign this one again")
    return with_blobs(held, (*blobs_of(held), *blobs_of(other)))


__all__ = [
    "blobs_of",
    "body_problems",
    "mandate_frame",
    "mandate_text",
    "merged",
    "parse_mandate",
    "read_mandate_file",
    "require_canonical",
    "with_blobs",
    "write_mandate_file",
]
