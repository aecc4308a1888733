"""What a key may do, and why not: each right and each site, judged as a node judges it.

Rules:

* The grants are asked by the functions that decide (`trust.rights`). Nothing is judged here by other rules.
* This is for whoever may read the settings: unlike a node's refusals it names principals and lines of files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import attrs

from deploykit.errors import KeyNotTrusted, SettingsError, SignatureError, UsageError
from deploykit.operations.explainrights import ExplainedRight, explain_rights
from deploykit.settings.node import Settings
from deploykit.trust.allowed_signers import AllowedSigner, AllowedSigners, matches
from deploykit.trust.certificate import CERTIFIED_TYPES, Certificate, is_certificate, parse_certificate
from deploykit.trust.certificatefile import certificate_line
from deploykit.trust.guardedfile import MAX_KEY, as_text, opened, read_bounded
from deploykit.trust.keyfiles import is_private_key, load_public_key, load_trusted
from deploykit.trust.keyformat import KEY_TYPES, fingerprint, key_type, parse_key, parse_public_line
from deploykit.trust.signature import Signer
from deploykit.trust.signingprincipals import certificate_principals, key_principals
from deploykit.trust.sshsig import NAMESPACE


@attrs.frozen(kw_only=True, slots=True)
class KeyLine:
    """One line of allowed_signers that is about a key.

    Args:
        authority: the key signs certificates of these principals, and no message itself.
        objection: why it does not count now; empty where it does.
    """

    line: int
    principals: tuple[str, ...]
    comment: str
    authority: bool
    objection: str


@attrs.frozen(kw_only=True, slots=True)
class ExplainedKey:
    """What one key may do.

    Args:
        fingerprint, kind: of the key; of an authority for what it certifies.
        certificate: key id and serial of the certificate that it is judged with; empty for a plain key.
        lines: what allowed_signers says about it.
        principals: the names in grants that it may sign as.
        problem: why nothing that it signs counts; empty where it may count.
        rights: for each right and site.
    """

    fingerprint: str
    kind: str
    certificate: str
    lines: tuple[KeyLine, ...]
    principals: tuple[str, ...]
    problem: str
    rights: tuple[ExplainedRight, ...]


def explain_keys(settings: Settings, asked: Sequence[str], now: datetime) -> tuple[ExplainedKey, ...]:
    """Return what keys may do on this node.

    Args:
        settings: of this node; without sites the rights are explained for the sites that grants name.
        asked: for each a fingerprint, a file, a public key line, or a principal: then every key that may sign as it.
        now: aware.

    Raises:
        SettingsError: the settings name no allowed_signers.
        UsageError: nothing is known by such a name.
        KeyFileError: a file cannot be read.
    """
    if settings.trust.allowed_signers is None:
        raise SettingsError("no trust.allowed_signers is set: no key may do anything", "see `deploykit keys trust`")
    allowed = load_trusted(settings.trust)
    return tuple(found for text in asked for found in explain(settings, allowed, text, now))


def explain(settings: Settings, allowed: AllowedSigners, asked: str, now: datetime) -> Iterator[ExplainedKey]:
    """Yield what each key may do that is meant by one text. Reads no file but a named key's."""
    if asked.startswith("SHA256:"):
        of_key = [line for line in allowed.signers if fingerprint(line.key) == asked]
        yield _explained(settings, allowed, _Meant(fingerprint=asked, key=of_key[0].key if of_key else b""), now)
        return
    blob = _key_in(asked)
    if blob:
        certificate = parse_certificate(blob) if is_certificate(blob) else None
        key = certificate.key if certificate is not None else blob
        meant = _Meant(fingerprint=fingerprint(key), key=key, certificate=certificate)
        yield _explained(settings, allowed, meant, now)
        return
    keys = dict.fromkeys(line.key for line in allowed.signers if matches(line.principals, asked))
    for key in keys:
        # What an authority may certify is shown for the name that was asked for.
        authority = "" if allowed.lines_for(key) else asked
        yield _explained(settings, allowed, _Meant(fingerprint=fingerprint(key), key=key, certified=authority), now)
    if keys:
        return
    if all(grant.principal != asked for grant in settings.trust.grants):
        raise UsageError(
            f"{asked!a} is no fingerprint, no key file, and no principal of allowed_signers or of a grant",
            "name a key by SHA256:…, by its .pub file, or by a principal",
        )
    yield _explained(settings, allowed, _Meant(certified=asked), now)


@attrs.frozen(kw_only=True, slots=True)
class _Meant:
    """What is explained: a key, one with its certificate, or what an authority may certify for a name."""

    fingerprint: str = ""
    key: bytes = b""
    certificate: Certificate | None = None
    certified: str = ""

    def lines(self, allowed: AllowedSigners) -> tuple[AllowedSigner, ...]:
        """Return the lines that are about it."""
        if self.certificate is not None:
            return allowed.authorities_for(self.certificate.authority)
        return (*allowed.lines_for(self.key), *allowed.authorities_for(self.key))


def _key_in(asked: str) -> bytes:
    """Return the key or certificate in a file or in a line; empty where the text is neither."""
    path = Path(asked)
    if asked.startswith((*KEY_TYPES, *CERTIFIED_TYPES)) and " " in asked:
        return certificate_line(path, asked) or parse_public_line(asked)[0]
    if "/" not in asked and not path.is_file():
        return b""
    if is_private_key(path):  # what signs is not asked for: the public half says enough
        path = path.with_name(f"{path.name}.pub")
    return _certificate_in(path) or load_public_key(path)[0]


def _certificate_in(path: Path) -> bytes:
    with opened(path, "key") as file:
        return certificate_line(path, as_text(path, read_bounded(path, file, MAX_KEY)))


def _explained(settings: Settings, allowed: AllowedSigners, meant: _Meant, now: datetime) -> ExplainedKey:
    lines = meant.lines(allowed)
    patterns, problem = _principals(allowed, meant, now)
    kind = key_type(meant.key)
    signer = Signer(fingerprint=meant.fingerprint, principals=patterns, key_type=kind)
    return ExplainedKey(
        fingerprint=meant.fingerprint,
        kind=kind,
        certificate=meant.certificate.words if meant.certificate is not None else "",
        lines=tuple(
            KeyLine(
                line=line.line,
                principals=line.principals,
                comment=line.comment,
                authority=line.authority,
                objection=line.objection(NAMESPACE, now),
            )
            for line in lines
        ),
        principals=tuple(dict.fromkeys(g.principal for g in settings.trust.grants if signer.is_principal(g.principal))),
        problem=problem,
        rights=explain_rights(settings, signer, certified=bool(meant.certified), problem=problem),
    )


def _principals(allowed: AllowedSigners, meant: _Meant, now: datetime) -> tuple[tuple[tuple[str, ...], ...], str]:
    """Return as whom it may sign, and why nothing that it signs counts, whatever grants say; empty where it may."""
    try:
        if meant.certified and not meant.key:
            raise KeyNotTrusted(f"no key of allowed_signers may sign as {meant.certified}")
        if meant.certified:
            return _certifiable(allowed, meant, now), ""
        if meant.certificate is not None:
            found = certificate_principals(meant.certificate, allowed, now)
        elif not meant.key:
            raise KeyNotTrusted(f"key {meant.fingerprint} is not among the allowed signers")
        elif not allowed.lines_for(meant.key) and allowed.authorities_for(meant.key):
            raise KeyNotTrusted("an authority signs no message itself (name a principal that it certifies)")
        else:
            found = key_principals(meant.key, allowed, now)
    except SignatureError as error:
        return (), error.problem
    if never := allowed.rules.never(parse_key(meant.key)):
        return (), never
    return found, ""


def _certifiable(allowed: AllowedSigners, meant: _Meant, now: datetime) -> tuple[tuple[str, ...], ...]:
    """Return the name, where an authority may certify it now.

    Raises:
        KeyNotTrusted: it may not.
    """
    if allowed.is_revoked(meant.key):
        raise KeyNotTrusted(f"authority {meant.fingerprint} is revoked")
    if all(line.objection(NAMESPACE, now) for line in meant.lines(allowed)):
        raise KeyNotTrusted(f"authority {meant.fingerprint} does not count now")
    return ((meant.certified,),)


__all__ = ["ExplainedKey", "KeyLine", "explain", "explain_keys"]
