"""A signed build result as it came: the exact body and its signature; and many of them as lines of a file. Pure.

Rules:

* Nothing in it counts before `judge` verified it.
* It has one signature: whose result it is, is one key's word.
* It is known by its body and its key. A key can make several good signatures of one body.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from typing import Final

import attrs

from deploykit.errors import MessageError, SignatureError, UsageError
from deploykit.messages import BuildEvidence, BuildFinished
from deploykit.trust.signature import HEADER, copy_digest, frame_digest
from deploykit.trust.sshsig import MAX_SIGNATURE
from deploykit.wire import CONTENT_TYPE, Frame, decode
from deploykit.wire.strictjson import parse

#: Bytes of the longest body that is kept or carried.
MAX_RESULT: Final = 65_536


@attrs.frozen(kw_only=True, slots=True)
class SignedResult:
    """The exact bytes of a `BuildFinished`, and the value of its signature header."""

    body: bytes = attrs.field(repr=False)
    signature: str = attrs.field(repr=False)

    @classmethod
    def from_frame(cls, frame: Frame) -> SignedResult:
        """Return the signed result in a received frame.

        Raises:
            MessageError: it is not signed, has several signatures, or is too large.
        """
        signature = frame.headers.get(HEADER, "")
        if not signature:
            raise MessageError("the build result is not signed", "only a signed one can be kept")
        if "," in signature:
            raise MessageError("the build result has several signatures", "sign it with one key")
        if len(frame.body) > MAX_RESULT or len(signature) > MAX_SIGNATURE:
            raise MessageError("the build result is too large", f"at most {MAX_RESULT} bytes")
        return cls(body=frame.body, signature=signature)

    @classmethod
    def from_evidence(cls, evidence: BuildEvidence) -> SignedResult:
        """Return the signed result that a command carries.

        Raises:
            MessageError: it is no base64, or too large.
        """
        try:
            body = base64.b64decode(evidence.body, validate=True)
        except binascii.Error:
            raise MessageError("the body of a build result is no base64") from None
        return cls.from_frame(Frame({HEADER: evidence.signature}, body))

    @property
    def evidence(self) -> BuildEvidence:
        """The same for a command to carry."""
        return BuildEvidence(body=base64.b64encode(self.body).decode(), signature=self.signature)

    @property
    def frame(self) -> Frame:
        """The same as a frame that can be verified."""
        return Frame({"content-type": CONTENT_TYPE, HEADER: self.signature}, self.body)

    @property
    def digest(self) -> bytes:
        """The name of the body and the key (SHA-256); of a malformed signature, of the body and its bytes.

        Before the result is verified, the key is only a claim: a bad copy may have the name of a good one.
        """
        try:
            name = copy_digest(self.frame)
        except SignatureError:
            name = frame_digest(self.frame)
        return bytes.fromhex(name)

    def unverified(self) -> BuildFinished:
        """Return what the body claims.

        Raises:
            MessageError: it is no build result.
        """
        message = decode({"content-type": CONTENT_TYPE}, self.body)
        if not isinstance(message, BuildFinished):
            raise MessageError(f"a {type(message).__name__} is no build result")
        return message


def write_results(results: Iterable[SignedResult]) -> str:
    """Return results as text: one JSON object a line, body and signature in base64."""
    lines = ({"body": each.evidence.body, "signature": each.signature} for each in results)
    return "".join(f"{json.dumps(line)}\n" for line in lines)


def read_results(text: bytes, where: str) -> tuple[SignedResult, ...]:
    """Return the results that `write_results` wrote. Nothing is verified.

    Args:
        text: the file's content.
        where: its name, for errors.

    Raises:
        UsageError: a line is no such result; `problems` has every such line.
    """
    found, problems = list[SignedResult](), list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            found.append(_read_line(line))
        except MessageError as error:
            problems.append(f"{where}, line {number}: {error.problem}")
    if problems:
        raise UsageError(f"{problems[0]}", "write such files with `deploykit builds export`", problems=tuple(problems))
    return tuple(found)


def _read_line(line: bytes) -> SignedResult:
    value = parse(line)
    if not isinstance(value, dict) or not all(isinstance(value.get(key), str) for key in ("body", "signature")):
        raise MessageError("expected an object with body and signature")
    return SignedResult.from_evidence(BuildEvidence(body=value["body"], signature=value["signature"]))
