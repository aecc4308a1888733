"""Passkeys that log in: what browsers are asked for, and what counts of their answers (WebAuthn). Pure.

Rules:

* The authenticator verifies the person itself (PIN, finger, face); presence alone is not enough.
* A key that signs rollouts never logs in: its challenge is chosen by whoever runs the page.
* A counter that does not grow shows a copy of the key; it is refused. Passkeys that are synchronised count nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

import attrs
from webauthn import (
    generate_authentication_options,
    generate_registration_options,
    options_to_json,
    verify_authentication_response,
    verify_registration_response,
)
from webauthn.helpers import (
    base64url_to_bytes,
    bytes_to_base64url,
    decode_credential_public_key,
    parse_authentication_credential_json,
)
from webauthn.helpers.cose import COSEAlgorithmIdentifier
from webauthn.helpers.decode_credential_public_key import DecodedEC2PublicKey, DecodedOKPPublicKey
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.keyformat import raw_key
from deploykit.web.ledger.passkeys import KeptPasskey
from deploykit.web.login.failures import IdentityError

#: Seconds in which a browser has to answer.
ANSWER_WITHIN: Final = 300
_ALGORITHMS: Final = [
    COSEAlgorithmIdentifier.EDDSA,
    COSEAlgorithmIdentifier.ECDSA_SHA_256,
    COSEAlgorithmIdentifier.RSASSA_PKCS1_v1_5_SHA_256,
]
#: Characters of an answer, and of a credential's id in base64url.
_MOST_ANSWER: Final = 20_000
_MOST_CREDENTIAL: Final = 1400


@attrs.frozen(kw_only=True, slots=True)
class RelyingParty:
    """For whom a browser keeps passkeys, and the origin of our pages."""

    id: str
    origin: str

    @classmethod
    def of(cls, url: str) -> RelyingParty:
        """Return that of a setting `[web] url`."""
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port not in (None, {"http": 80, "https": 443}.get(parts.scheme)) else ""
        host = (parts.hostname or "").lower()
        return cls(id=host, origin=f"{parts.scheme}://{host}{port}")


def challenge_of(id_: str) -> bytes:
    """Return the challenge that belongs to an id of the ledger, which has neither."""
    return hashlib.sha256(b"deploykit passkey\0" + id_.encode(errors="surrogatepass")).digest()


def login_options(party: RelyingParty, challenge: bytes) -> str:
    """Return what a browser is asked for at a login, as JSON: any passkey that it has for us."""
    return options_to_json(
        generate_authentication_options(
            rp_id=party.id,
            challenge=challenge,
            timeout=ANSWER_WITHIN * 1000,
            user_verification=UserVerificationRequirement.REQUIRED,
        )
    )


def registration_options(party: RelyingParty, name: str, challenge: bytes, have: Iterable[KeptPasskey]) -> str:
    """Return what a browser is asked for to make a passkey, as JSON.

    Args:
        party: who asks.
        name: of the person.
        challenge: of this registration.
        have: those the person has: no device makes a second one.
    """
    return options_to_json(
        generate_registration_options(
            rp_id=party.id,
            rp_name="deploykit",
            user_name=name,
            user_id=user_handle(name),
            user_display_name=f"LOG IN ({name})",
            challenge=challenge,
            timeout=ANSWER_WITHIN * 1000,
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.REQUIRED,
                require_resident_key=True,
                user_verification=UserVerificationRequirement.REQUIRED,
            ),
            exclude_credentials=[
                PublicKeyCredentialDescriptor(id=base64url_to_bytes(each.credential)) for each in have
            ],
            supported_pub_key_algs=_ALGORITHMS,
        )
    )


def user_handle(name: str) -> bytes:
    """Return what a passkey for the login keeps of whose it is; a signing one has another."""
    return hashlib.sha256(b"deploykit login\0" + name.encode()).digest()


def registered(answer: str, party: RelyingParty, challenge: bytes, *, name: str, label: str) -> KeptPasskey:
    """Return the passkey that a browser has made.

    Raises:
        IdentityError: the answer does not count, and why.
    """
    try:
        found = verify_registration_response(
            credential=_object(answer),
            expected_challenge=challenge,
            expected_rp_id=party.id,
            expected_origin=party.origin,
            require_user_verification=True,
            supported_pub_key_algs=_ALGORITHMS,
        )
        point_of(found.credential_public_key)
    except (WebAuthnException, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise _not_counted(error) from error
    credential = bytes_to_base64url(found.credential_id)
    if len(credential) > _MOST_CREDENTIAL:
        raise IdentityError("the passkey's id is too long", "use another device")
    return KeptPasskey(
        credential=credential,
        purpose="login",
        name=name,
        label=label,
        public_key=found.credential_public_key,
        rp_id=party.id,
        counter=found.sign_count,
    )


def credential_in(answer: str) -> str:
    """Return the id of the passkey that a browser has answered with.

    Raises:
        IdentityError: the answer cannot be read.
    """
    try:
        return bytes_to_base64url(parse_authentication_credential_json(_object(answer)).raw_id)
    except (WebAuthnException, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise _not_counted(error) from error


def counted(answer: str, party: RelyingParty, challenge: bytes, passkey: KeptPasskey) -> int:
    """Return the counter of an answer that was made with a passkey for this login.

    Raises:
        IdentityError: the answer does not count, and why.
    """
    try:
        credential = parse_authentication_credential_json(_object(answer))
        handle = credential.response.user_handle
        if handle is not None and handle != user_handle(passkey.name):
            raise IdentityError("the passkey was made for another name", "use the one for this console")
        found = verify_authentication_response(
            credential=credential,
            expected_challenge=challenge,
            expected_rp_id=party.id,
            expected_origin=party.origin,
            credential_public_key=passkey.public_key,
            credential_current_sign_count=passkey.counter,
            require_user_verification=True,
        )
    except (WebAuthnException, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise _not_counted(error) from error
    return found.new_sign_count


def point_of(public_key: bytes) -> bytes:
    """Return a public key as `trust` compares it: 32 bytes of Ed25519, 65 of P-256; empty for others.

    Raises:
        WebAuthnException, ValueError, KeyError: it is no public key.
    """
    key = decode_credential_public_key(public_key)
    match key:
        case DecodedOKPPublicKey():
            return key.x
        case DecodedEC2PublicKey():
            return b"\x04" + key.x + key.y
        case _:
            return b""


def same_key(one: bytes, other: bytes) -> bool:
    """Return whether two public keys, as COSE, are one key: it can be written in more than one way."""
    try:
        return one == other or b"" != point_of(one) == point_of(other)
    except (WebAuthnException, ValueError, TypeError, KeyError, IndexError, AttributeError):
        return False  # one of them is damaged, so nobody can use it


def is_signing_key(public_key: bytes, signers: AllowedSigners) -> bool:
    """Return whether a key counts for signatures, by whatever name and application `allowed_signers` has it."""
    point = point_of(public_key)
    return bool(point) and any(raw_key(each.key) == point for each in signers.signers)


def _object(answer: str) -> dict[str, object]:
    if len(answer) > _MOST_ANSWER:
        raise ValueError("it is too long")
    try:
        found = json.loads(answer)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(found, dict):
        raise TypeError("it is no JSON object")
    return found


def _not_counted(error: Exception) -> IdentityError:
    why = (
        " ".join(str(error).split())[:120] if isinstance(error, (WebAuthnException, ValueError)) else "it is not whole"
    )
    return IdentityError(f"the passkey's answer does not count: {why or type(error).__name__}", "try again")


__all__ = [
    "ANSWER_WITHIN",
    "RelyingParty",
    "challenge_of",
    "counted",
    "credential_in",
    "is_signing_key",
    "login_options",
    "point_of",
    "registered",
    "registration_options",
    "same_key",
    "user_handle",
]
