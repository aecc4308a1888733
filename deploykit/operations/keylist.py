"""The keys that are trusted: each line of `allowed_signers`, whether it counts now, and what its principals may do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path

import attrs

from deploykit.errors import KeyFileError
from deploykit.settings.trust import GrantSettings
from deploykit.trust.allowed_signers import AllowedSigner, AllowedSigners, matches
from deploykit.trust.certificatefile import load_certificate
from deploykit.trust.keyfiles import load_public_key
from deploykit.trust.keyformat import ED25519, fingerprint, key_type, parse_key, parse_public_line
from deploykit.trust.signaturerules import SignatureRules
from deploykit.trust.sshsig import NAMESPACE


@attrs.frozen(kw_only=True, slots=True)
class ListedKey:
    """A line of an `allowed_signers` file.

    Args:
        line: as it stands there.
        problem: why it does not count now; empty when it does.
        grants: those that a principal of the line has. Of an authority: that one of its certificates may have.
    """

    line: AllowedSigner
    problem: str
    grants: tuple[GrantSettings, ...]

    @property
    def fingerprint(self) -> str:
        """The key's SHA-256 name."""
        return fingerprint(self.line.key)

    @property
    def kind(self) -> str:
        """The key's type."""
        return key_type(self.line.key)


def list_keys(
    allowed: AllowedSigners, grants: Iterable[GrantSettings], now: datetime, *, rules: SignatureRules | None = None
) -> tuple[ListedKey, ...]:
    """Return each line that this program can use, in the file's order.

    Args:
        allowed: the trusted keys, and those that are revoked.
        grants: of the settings.
        now: aware.
        rules: of the settings: which passkeys count; None where that is not known.
    """
    kept = tuple(grants)
    return tuple(
        ListedKey(
            line=line,
            problem=_problem(allowed, line, now, rules),
            grants=tuple(grant for grant in kept if matches(line.principals, grant.principal)),
        )
        for line in allowed.signers
    )


def _problem(allowed: AllowedSigners, line: AllowedSigner, now: datetime, rules: SignatureRules | None) -> str:
    if allowed.is_revoked(line.key):
        return "revoked"
    objection = line.objection(NAMESPACE, now)
    if objection or rules is None or key_type(line.key) == ED25519:
        return objection
    return rules.never(parse_key(line.key))


def line_matcher(who: str) -> Callable[[AllowedSigner], bool]:
    """Return what finds the lines of a person's key, or of a person.

    Args:
        who: a fingerprint (`SHA256:…`), a public key line, a .pub file, or a principal: then the lines that name it and
            nobody else.

    Raises:
        KeyFileError: the file cannot be read, or is no public key.
    """
    if who.startswith("SHA256:"):
        return lambda line: fingerprint(line.key) == who
    key = public_key(who)
    if key is not None:
        return lambda line: line.key == key[0]
    return lambda line: line.principals == (who,)


def public_key(who: str) -> tuple[bytes, str] | None:
    """Return the key blob and comment of a public key line or a .pub file; None for a fingerprint or a principal.

    Of the file of a certificate it is the key that is certified.

    Raises:
        KeyFileError: the file cannot be read, or is no public key.
    """
    if who.startswith("SHA256:") or _is_principal(who):
        return None
    if " " in who.strip():
        return parse_public_line(who)
    certificate = load_certificate(Path(who))
    if certificate is not None:
        return certificate.key, certificate.key_id.decode("utf-8", "replace")
    return load_public_key(Path(who))


def _is_principal(who: str) -> bool:
    """Return whether a word names a person or a node, and not a key in one of its forms."""
    return not (who.startswith("SHA256:") or " " in who.strip() or "/" in who or who.endswith(".pub"))


def others_of(who: str, lines: Iterable[AllowedSigner]) -> tuple[AllowedSigner, ...]:
    """Return the lines that let somebody sign as a principal and name others too, or patterns; none for a key."""
    if not _is_principal(who):
        return ()
    return tuple(line for line in lines if line.principals != (who,) and matches(line.principals, who))


def nothing_found(who: str, file: Path, lines: Iterable[AllowedSigner]) -> KeyFileError:
    """Return the error for a key or a principal that no line has to itself."""
    shared = others_of(who, lines)
    if shared:
        numbers = ", ".join(str(line.line) for line in shared)
        if all(line.authority for line in shared):
            return KeyFileError(
                f"{file} has no line of {who} alone: line {numbers} is an authority's, which certifies others too",
                f"revoke the certificate of {who}: `deploykit keys revoke --key-id ID --authority CA.pub`",
            )
        return KeyFileError(
            f"{file} has no line of {who} alone: line {numbers} is for others too", "give the key's fingerprint"
        )
    return KeyFileError(f"{file} has no line of {who}", "see `deploykit keys list`")


__all__ = ["ListedKey", "line_matcher", "list_keys", "nothing_found", "others_of", "public_key"]
