"""A new passkey that signs: what is asked for, what a browser answers, and what operators distribute. Pure.

Rules:

* Its name says what it releases, and for whom: the browser shows that name wherever a page asks for the key.
* It is ES256, is kept by the authenticator, and knows the person. Where it was made is not asked for.
* Nothing here makes it count. It does once the operators have added its line and its grant.
"""

from __future__ import annotations

import json
import re
from typing import Final

import attrs

from deploykit.errors import ActionRefused, KeyFileError
from deploykit.trust.keyformat import SK_ECDSA, PublicKey, decode_key_text, encode_key, parse_key
from deploykit.trust.signersfile import trusted_line
from deploykit.web.signing.places import SigningPlace

_SITES: Final = re.compile(r"(?!.{101})[A-Za-z0-9_.*?-]+(?:,[A-Za-z0-9_.*?-]+)*")
_PRINCIPAL: Final = re.compile(r"[A-Za-z0-9@._:/+-]{1,255}")
#: Characters of a person's name in the name of a key.
_WHO: Final = 60
#: Characters of the name of a key, as the ledger keeps it.
_MOST_LABEL: Final = 200
_AGAIN: Final = "begin again, in this browser"


@attrs.frozen(kw_only=True, slots=True)
class KeyWanted:
    """What somebody wants a passkey for, checked.

    Args:
        sites: names and patterns of sites, with commas between them.
        principal: the name in `allowed_signers`.
        who: the person, as the console knows them.
    """

    sites: str
    principal: str
    who: str

    @property
    def label(self) -> str:
        """The name under which the passkey is kept."""
        return key_label(self.sites, self.who)

    @property
    def text(self) -> str:
        """This, for the ledger."""
        return json.dumps({"sites": self.sites, "principal": self.principal, "who": self.who})

    @classmethod
    def of_text(cls, text: str) -> KeyWanted:
        """Return what `text` holds."""
        return cls(**json.loads(text))


@attrs.frozen(kw_only=True, slots=True)
class NewKey:
    """A passkey that a browser has made.

    Args:
        credential: its id, in base64url.
        blob: the public key, as OpenSSH writes it.
        cose: the same, as WebAuthn writes it.
        counter: as the authenticator counts.
    """

    credential: str
    blob: bytes
    cose: bytes
    counter: int = 0


def key_wanted(sites: str, principal: str, who: str) -> KeyWanted:
    """Return what somebody wants a passkey for.

    Args:
        sites: as typed: names and patterns, with commas or blanks between them.
        principal: as typed; empty: as `who`, where that can be one.
        who: the person.

    Raises:
        ActionRefused: a field is wrong.
    """
    wanted, name = ",".join(sites.replace(",", " ").split()), principal.strip() or who
    problems = {}
    if not _SITES.fullmatch(wanted):
        problems["sites"] = "expected sites or patterns such as shop*, with commas between them, in 100 characters"
    if not _PRINCIPAL.fullmatch(name):
        problems["principal"] = "expected one name without blanks, such as ann@example.com"
    if problems:
        raise ActionRefused("this cannot be the purpose of a key", "correct the fields", status=422, **problems)
    key = KeyWanted(sites=wanted, principal=name, who=who)
    if len(key.label) > _MOST_LABEL:
        raise ActionRefused(
            "the name of the key is too long", "make two keys", status=422, sites="name fewer sites, or a pattern"
        )
    return key


def key_label(sites: str, who: str) -> str:
    """Return the name of a passkey, as the script in the browser makes it.

    >>> key_label("shop", "ann")
    'SIGN shop releases (ann)'
    """
    shown = "".join(c if c.isprintable() else f"\\u{{{ord(c):x}}}" for c in who[:_WHO])
    shown += f"… ({len(who)} characters)" if len(who) > _WHO else ""
    return f"SIGN {sites.replace(',', ', ')} releases ({shown})"


def challenge_of(registration: str) -> str:
    """Return the challenge that a registration claims to answer; empty where it is none. Nothing of it is checked."""
    from webauthn.helpers import base64url_to_bytes, parse_client_data_json

    try:
        answer = json.loads(registration)["response"]["clientDataJSON"]
        return parse_client_data_json(base64url_to_bytes(answer)).challenge.decode("ascii")
    except Exception:  # noqa: BLE001 - parsers of another package get what a stranger sent: it is none, however they fail
        return ""


def read_registration(registration: str, challenge: str, place: SigningPlace) -> NewKey:
    """Return the passkey of a registration, which a browser made for a challenge on the page where people sign.

    Raises:
        ActionRefused: it is about something else, of another page or kind, or the person was not verified.
    """
    from webauthn import verify_registration_response
    from webauthn.helpers import bytes_to_base64url, decode_credential_public_key
    from webauthn.helpers.cose import COSEAlgorithmIdentifier
    from webauthn.helpers.decode_credential_public_key import DecodedEC2PublicKey

    try:
        found = verify_registration_response(
            credential=registration,
            expected_challenge=challenge.encode(),
            expected_rp_id=place.rp_id,
            expected_origin=place.origin,
            require_user_verification=True,
            supported_pub_key_algs=[COSEAlgorithmIdentifier.ECDSA_SHA_256],
        )
        key = decode_credential_public_key(found.credential_public_key)
    except Exception as error:  # parsers of another package get what a stranger sent: it is refused, however they fail
        raise ActionRefused(f"the browser's answer does not count: {str(error)[:200]!a}", _AGAIN, status=422) from error
    point = b"\x04" + key.x + key.y if isinstance(key, DecodedEC2PublicKey) else b""
    blob = encode_key(PublicKey(key_type=SK_ECDSA, point=point, application=place.rp_id))
    try:
        parse_key(blob)
    except KeyFileError as error:
        raise ActionRefused(f"the browser's answer does not count: {error.problem}", _AGAIN, status=422) from error
    return NewKey(
        credential=bytes_to_base64url(found.credential_id),
        blob=blob,
        cose=found.credential_public_key,
        counter=found.sign_count,
    )


def signers_line(wanted: KeyWanted, key: NewKey) -> str:
    """Return the line for `allowed_signers`.

    Raises:
        KeyFileError: the principal is none.
    """
    return trusted_line(wanted.principal, key.blob, wanted.label)


def settings_text(sites: str, principal: str, place: SigningPlace) -> str:
    """Return the settings with which nodes heed the key, as TOML for the operators."""
    listed = ", ".join(json.dumps(site) for site in sites.split(","))
    return (
        "[trust]\n"
        f"origins = [{json.dumps(place.origin)}]\n"
        f"rp_ids = [{json.dumps(place.rp_id)}]\n"
        "verify_required = true\n\n"
        "[[trust.grants]]\n"
        f"principal = {json.dumps(principal)}\n"
        'types = ["rollout.approved"]\n'
        f"sites = [{listed}]\n"
    )


def blob_of_line(line: str) -> bytes:
    """Return the public key blob in a line that `signers_line` made; empty where there is none."""
    try:
        blob = decode_key_text(line.partition(f" {SK_ECDSA} ")[2].partition(" ")[0])
        parse_key(blob)
    except KeyFileError:
        return b""
    return blob


__all__ = [
    "KeyWanted",
    "NewKey",
    "blob_of_line",
    "challenge_of",
    "key_label",
    "key_wanted",
    "read_registration",
    "settings_text",
    "signers_line",
]
