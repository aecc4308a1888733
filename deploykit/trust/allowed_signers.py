"""Whose signatures count: an ordinary OpenSSH `allowed_signers` file, and what was revoked since. Pure: text in.

Rules:

* A line that cannot be read refuses the whole file, with every such line by its number. A key that is silently ignored
  is a bad surprise during an incident; a revocation that is silently ignored is worse.
* Lines that we do not support are ignored, so that one file can serve git too. `unused` lists them.
* Lookups take the same time for ten lines and for 50,000. Public keys are no secrets: a dictionary finds them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import tzinfo

import attrs

from deploykit.errors import KeyFileError
from deploykit.trust.krl import Revocations, is_krl, parse_krl
from deploykit.trust.signaturerules import SignatureRules
from deploykit.trust.signerlines import MAX_TEXT, MOST_PROBLEMS, AllowedSigner, matches, parse_revoked, parse_signers


@attrs.frozen(kw_only=True, slots=True)
class AllowedSigners:
    """An `allowed_signers` file and what was revoked since. The empty one allows nobody.

    Args:
        signers: the lines that count, in order; those of certificate authorities among them.
        revoked: keys and certificates that count for nothing, whatever `signers` says.
        unused: lines that were read and do not count (other key types, other options), as `line N: why`.
        rules: what signatures by security keys and passkeys must show; by default no passkey counts.
    """

    signers: tuple[AllowedSigner, ...] = ()
    revoked: Revocations = attrs.field(factory=Revocations)
    unused: tuple[str, ...] = ()
    rules: SignatureRules = attrs.field(factory=SignatureRules)
    _keys: Mapping[bytes, tuple[AllowedSigner, ...]] = attrs.field(init=False, repr=False, eq=False)
    _authorities: Mapping[bytes, tuple[AllowedSigner, ...]] = attrs.field(init=False, repr=False, eq=False)

    @_keys.default
    def _index_keys(self) -> Mapping[bytes, tuple[AllowedSigner, ...]]:
        return _by_key(line for line in self.signers if not line.authority)

    @_authorities.default
    def _index_authorities(self) -> Mapping[bytes, tuple[AllowedSigner, ...]]:
        return _by_key(line for line in self.signers if line.authority)

    @classmethod
    def parse(cls, text: str, *, revoked: str | bytes = "", zone: tzinfo | None = None) -> AllowedSigners:
        """Read the text of an `allowed_signers` file.

        Args:
            text: the file.
            revoked: public keys, one a line, or the bytes of a KRL, as `ssh-keygen -Y verify -r` takes either.
            zone: of times written without a Z; None is the machine's own. As in ssh-keygen they are standard time
                all the year round, which surprises people: write the Z.

        Raises:
            KeyFileError: with every line that cannot be read in `problems`, up to some hundreds.
        """
        problems: list[str] = []
        unused: list[str] = []
        signers = list(parse_signers(text, zone, problems, unused))
        gone = _parse_revocations(revoked, problems)
        if problems:
            count = f"{len(problems)}{' or more' * (len(problems) >= MOST_PROBLEMS)}"
            head = problems[0] if len(problems) == 1 else f"{count} mistakes in the trusted keys"
            raise KeyFileError(
                head, "see ALLOWED SIGNERS in ssh-keygen(1), or use `deploykit keys trust`", problems=tuple(problems)
            )
        return cls(signers=tuple(signers), revoked=gone, unused=tuple(unused))

    def lines_for(self, key: bytes) -> tuple[AllowedSigner, ...]:
        """Return every line that lets this key sign messages, in order."""
        return self._keys.get(key, ())

    def authorities_for(self, key: bytes) -> tuple[AllowedSigner, ...]:
        """Return every line that lets this key sign certificates, in order."""
        return self._authorities.get(key, ())

    def is_revoked(self, key: bytes) -> bool:
        """Return whether this key was revoked."""
        return self.revoked.has_key(key)


def _parse_revocations(revoked: str | bytes, problems: list[str]) -> Revocations:
    if isinstance(revoked, bytes):
        if is_krl(revoked):
            return _parse_krl(revoked, problems)
        try:
            revoked = revoked.decode()
        except UnicodeDecodeError:
            problems.append("the list of revoked keys is neither text in UTF-8 nor a KRL")
            return Revocations()
    return Revocations(keys=frozenset(parse_revoked(revoked, problems)))


def _parse_krl(data: bytes, problems: list[str]) -> Revocations:
    try:
        return parse_krl(data)
    except KeyFileError as error:
        problems.append(error.problem)
        return Revocations()


def _by_key(lines: Iterable[AllowedSigner]) -> Mapping[bytes, tuple[AllowedSigner, ...]]:
    found: dict[bytes, list[AllowedSigner]] = {}
    for line in lines:
        found.setdefault(line.key, []).append(line)
    return {key: tuple(named) for key, named in found.items()}


__all__ = ["MAX_TEXT", "AllowedSigner", "AllowedSigners", "matches"]
