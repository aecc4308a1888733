"""A certificate next to its key: `KEY-cert.pub` and `KEY`, as `ssh-keygen -s` leaves them.

A key signs with a certificate only where somebody names the certificate's file, as with `ssh-keygen -Y sign`: people
have certificates for logins, which no node knows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from deploykit.errors import KeyFileError
from deploykit.trust.certificate import Certificate, certified_key, is_certificate, parse_certificate
from deploykit.trust.guardedfile import MAX_KEY, as_text, opened, read_bounded
from deploykit.trust.keyformat import decode_key_text, key_type

_SUFFIX: Final = "-cert.pub"


def certificate_line(path: Path, text: str) -> bytes:
    """Return the certificate in a public key file; empty where the file holds a key without one.

    Raises:
        KeyFileError: a certificate that is malformed, or of a key type that cannot sign.
    """
    words = text.split(None, 2)
    if len(words) < 2 or "-cert-" not in words[0]:
        return b""
    try:
        blob = decode_key_text(words[1])
        if key_type(blob) != words[0] or not is_certificate(blob):
            raise KeyFileError(
                f"certificates of type {words[0][:60]!a} cannot sign messages",
                "use one for a key of `ssh-keygen -t ed25519`, or of a security key",
            )
        certified_key(blob)
    except KeyFileError as error:
        raise KeyFileError(f"{path}: {error.problem}", error.remedy) from error
    return blob


def load_certificate(path: Path) -> Certificate | None:
    """Return the certificate in a file that a key signs with; None where the file is no certificate's.

    Raises:
        KeyFileError: unreadable, or a certificate that is malformed.
    """
    if not path.name.endswith(_SUFFIX):
        return None
    with opened(path, "certificate") as file:
        blob = certificate_line(path, as_text(path, read_bounded(path, file, MAX_KEY)))
    return parse_certificate(blob) if blob else None


def private_half(path: Path) -> Path | None:
    """Return the private key file that a certificate's file stands next to; None where there is none.

    >>> private_half(Path("/nowhere/key-cert.pub")) is None
    True
    """
    if not path.name.endswith(_SUFFIX) or path.name == _SUFFIX:
        return None
    private = path.with_name(path.name.removesuffix(_SUFFIX))
    return private if private.exists() else None


__all__ = ["certificate_line", "load_certificate", "private_half"]
