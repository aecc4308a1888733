"""Signatures on what a ref points to: taken out of tags and commits here, judged by ssh-keygen.

Rules:

* Unsigned is refused where a signature is required; so is what cannot be judged (no key file, no program).
* A tag's signature counts only for the name it was made for.
* The signer must be in OpenSSH's `allowed_signers` for the namespace `git`, at the time of the signature, as for git.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import attrs

from deploykit.errors import OriginError
from deploykit.git.objectformat import COMMIT, TAG, Found, HashKind
from deploykit.git.transport.pktline import printable
from deploykit.git.transport.remote import ssh_signature_problem
from deploykit.mirror.refplan import ref_matcher
from deploykit.names import ObjectId
from deploykit.settings.mirror import MirrorSettings

_BEGIN: Final = b"-----BEGIN SSH SIGNATURE-----"
_ANY_BEGIN: Final = re.compile(rb"^-----BEGIN (?:SSH|PGP|SIGNED) (?:SIGNATURE|MESSAGE)-----$", re.MULTILINE)
_LAST_SECOND: Final = 253402300799  # of the year 9999
_WHEN: Final = re.compile(rb"^(?:committer|tagger) .*? (\d{1,12}) [+-]\d{4}$", re.MULTILINE)


@attrs.frozen(slots=True)
class SignedPayload:
    """What was signed, by which signature, and when by its own word (seconds since 1970)."""

    payload: bytes
    signature: bytes
    when: int


def take_apart(kind: int, plain: bytes, hash_kind: HashKind) -> SignedPayload | None:
    """Return a tag's or a commit's signature apart from what it signs; None when there is no SSH signature."""
    if kind == TAG:
        starts = [match.start() for match in _ANY_BEGIN.finditer(plain)]
        cut = starts[-1] if starts else len(plain)
        payload, signature = plain[:cut], plain[cut:]
    else:
        payload, signature = _from_commit(plain, b"gpgsig" if hash_kind.name == "sha1" else b"gpgsig-sha256")
    if not signature.startswith(_BEGIN):
        return None
    when = _WHEN.search(payload.partition(b"\n\n")[0])
    return SignedPayload(payload, signature, int(when[1]) if when else 0)


def _from_commit(plain: bytes, header: bytes) -> tuple[bytes, bytes]:
    head, blank, body = plain.partition(b"\n\n")
    payload: list[bytes] = []
    signature: list[bytes] = []
    into: list[bytes] | None = payload
    for line in head.split(b"\n"):
        if not line.startswith(b" "):
            if line.startswith(header + b" "):
                into = signature
                line = line[len(header) :]  # noqa: PLW2901 - the rest is read like a continuation
            else:
                into = None if line.startswith(b"gpgsig") else payload
        if into is signature:
            signature.append(line[1:])
        elif into is payload:
            payload.append(line)
    return b"\n".join(payload) + blank + body, b"".join(line + b"\n" for line in signature)


def tag_name(plain: bytes) -> str:
    """Return the name a tag object was made for."""
    found = re.search(rb"^tag (.*)$", plain.partition(b"\n\n")[0], re.MULTILINE)
    return found[1].decode("utf-8", "surrogateescape") if found else ""


class SignatureCheck:
    """Judges refs whose patterns require a signature.

    Args:
        settings: `signed` and `allowed_signers` of it.
        find: reads an object.
        hash_kind: the repository's object format.
    """

    def __init__(self, settings: MirrorSettings, find: Callable[[bytes], Found | None], hash_kind: HashKind) -> None:
        self._patterns = ref_matcher(settings.signed)
        self._signers = settings.allowed_signers
        self._find = find
        self._hash = hash_kind

    def objection(self, ref: str, oid: ObjectId) -> str:
        """Return why a ref may not move to `oid`, or an empty string when it may."""
        if not self._patterns.match(ref):
            return ""
        found = self._find(bytes.fromhex(oid))
        if self._signers is None:
            return "a signature is required, and no allowed_signers file is set"
        if found is None or found[0] not in (COMMIT, TAG):
            return "a signature is required, and this is neither a tag nor a commit"
        kind, plain = found
        if ref.startswith("refs/tags/"):
            if kind != TAG:
                return "a signed tag is required, and this tag has no object of its own"
            if tag_name(plain) != ref[len("refs/tags/") :]:
                return f"the signed tag was made for another name ({printable(tag_name(plain).encode(), 60)})"
        return _verdict(take_apart(kind, plain, self._hash), self._signers)


def _verdict(signed: SignedPayload | None, signers: Path) -> str:
    if signed is None:
        return "a signature is required, and it has none (by an SSH key)"
    when = datetime.fromtimestamp(min(signed.when, _LAST_SECOND), UTC).strftime("%Y%m%d%H%M%SZ")
    try:
        problem = ssh_signature_problem(signed.payload, signed.signature, signers, when)
    except OriginError as exc:
        return f"its signature cannot be judged: {exc.problem}"
    return f"its signature is not good: {problem}" if problem else ""
