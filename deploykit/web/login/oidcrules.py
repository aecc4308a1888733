"""OpenID Connect, as far as it needs no network: addresses, answers, tokens. Pure.

Rules:

* Code flow with PKCE (S256), `state`, `nonce` and, where the provider has it, `iss` (RFC 9207).
* Only signatures by public keys count: never `none`, never an HMAC.
* Verifier and nonce are derived from what only the browser has, so that a stolen database finishes no login.
* What a provider answers is data: of a wrong type it is refused, and it is never shown but in one short line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import attrs
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from deploykit.settings.buildservers import is_loopback
from deploykit.settings.oidc import OidcSettings
from deploykit.system.passwordfile import is_login_name
from deploykit.web.login.failures import IdentityError, UnknownSigner
from deploykit.web.login.oidcsteps import OidcChallenge, OidcIdentity, host_of

#: Of ID tokens.
ALGORITHMS: Final = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
)  # fmt: skip
#: Seconds that the clocks of provider and console may differ.
SKEW: Final = 60
#: Groups of one person that are kept, and characters of one.
MOST_GROUPS: Final = 500
_MOST_GROUP: Final = 255


@attrs.frozen(kw_only=True, slots=True)
class OidcMetadata:
    """What a provider says of itself; addresses are https, or of this machine's loopback.

    Args:
        authorization, token, keys: addresses; people go to the first.
        userinfo, end_session: empty where it has none.
        answers_iss: its answers name it, so one without is refused.
        secret_in_body: it takes the client's secret in the form alone, not by Basic.
    """

    authorization: str
    token: str
    keys: str
    userinfo: str = ""
    end_session: str = ""
    answers_iss: bool = False
    secret_in_body: bool = False


def metadata_of(document: object, issuer: str) -> OidcMetadata:
    """Return what a discovery document says.

    Raises:
        IdentityError: it is of another issuer, names no usable address, or cannot do what is needed here.
    """
    if not isinstance(document, dict):
        raise IdentityError(f"{issuer} describes itself by something else than a JSON object", _ISSUER, status=503)
    if document.get("issuer") != issuer:
        raise IdentityError(
            f"the provider calls itself {shown(document.get('issuer'))}, not {issuer}", _ISSUER, status=503
        )
    if "code" not in _texts(document.get("response_types_supported")):
        raise IdentityError(f"{issuer} does not offer the code flow", status=503)
    if "S256" not in _texts(document.get("code_challenge_methods_supported", ["S256"])):
        raise IdentityError(f"{issuer} does not offer PKCE with S256", status=503)
    methods = _texts(document.get("token_endpoint_auth_methods_supported", ["client_secret_basic"]))
    return OidcMetadata(
        authorization=_address(document, "authorization_endpoint", issuer),
        token=_address(document, "token_endpoint", issuer),
        keys=_address(document, "jwks_uri", issuer),
        userinfo=_address(document, "userinfo_endpoint", issuer, needed=False),
        end_session=_address(document, "end_session_endpoint", issuer, needed=False),
        answers_iss=document.get("authorization_response_iss_parameter_supported") is True,
        secret_in_body="client_secret_basic" not in methods and "client_secret_post" in methods,
    )


_ISSUER: Final = "see [web.oidc] issuer"


def _address(document: Mapping[str, object], name: str, issuer: str, *, needed: bool = True) -> str:
    value = document.get(name)
    if value is None and not needed:
        return ""
    try:
        parts = urlsplit(value if isinstance(value, str) else "")
    except ValueError:
        parts = urlsplit("")
    safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts))
    if safe and parts.hostname and not parts.username and not parts.fragment:
        return str(value)
    if needed:
        raise IdentityError(f"{issuer}: {name} is no https address: {shown(value)}", status=503)
    return ""


def authorization_address(
    settings: OidcSettings, metadata: OidcMetadata, challenge: OidcChallenge, redirect: str
) -> str:
    """Return where the browser goes to log in."""
    return str(
        prepare_grant_uri(
            metadata.authorization,
            settings.client_id,
            "code",
            redirect_uri=redirect,
            scope=" ".join(dict.fromkeys(("openid", *settings.scopes))),
            state=challenge.state,
            nonce=challenge.nonce,
            code_challenge=create_s256_code_challenge(challenge.verifier),
            code_challenge_method="S256",
        )
    )


def code_of(answer: Mapping[str, str], settings: OidcSettings, metadata: OidcMetadata) -> str:
    """Return the code in the query with which the browser came back.

    Raises:
        IdentityError: the person or the provider refused, or the answer is of another provider.
    """
    iss = answer.get("iss", "")
    if (iss or metadata.answers_iss) and iss != settings.issuer:
        raise IdentityError(f"the answer is not from {settings.issuer}", "begin the login anew")
    if "error" in answer:
        why = ": ".join(filter(None, (answer["error"], answer.get("error_description", ""))))
        raise IdentityError(f"{host_of(settings.issuer)} did not log you in: {shown(why)}", "begin the login anew")
    if not answer.get("code"):
        raise IdentityError("the provider's answer has no code", "begin the login anew")
    return answer["code"]


def token_form(code: str, redirect: str, challenge: OidcChallenge) -> str:
    """Return the body of the request for the tokens, without what shows the client."""
    return str(
        prepare_token_request("authorization_code", code=code, redirect_uri=redirect, code_verifier=challenge.verifier)
    )


def claims_of(
    token: str, keys: KeySet, settings: OidcSettings, *, nonce: str, access_token: str, now: float
) -> Mapping[str, object]:
    """Return the claims of an ID token whose signature and contents are right.

    Args:
        token: as the token endpoint answered.
        keys: of the provider.
        settings: name the issuer and the client.
        nonce: that of this login.
        access_token: that came with it; empty for none.
        now: seconds since 1970.

    Raises:
        UnknownSigner: none of the keys has made it; the provider may have new ones.
        IdentityError: it does not count, and why.
    """
    try:
        decoded = jwt.decode(token, keys, list(ALGORITHMS))
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise UnknownSigner(f"the provider's ID token does not count: {_reason(error)}", _AGAIN) from error
    options = {"iss": {"essential": True, "value": settings.issuer}}
    parameters = {"nonce": nonce, "client_id": settings.client_id, "access_token": access_token}
    claims = CodeIDToken(decoded.claims, decoded.header, options, parameters)
    audience = claims.get("aud")
    if settings.client_id not in ([audience] if isinstance(audience, str) else _texts(audience)):
        raise IdentityError("the provider's ID token is for another client", "compare [web.oidc] client_id")
    if not isinstance(claims.get("sub"), str) or not claims["sub"]:
        raise IdentityError("the provider's ID token does not say who it is about (sub)")
    try:
        claims.validate(now=int(now), leeway=SKEW)
    except (JoseError, ValueError, TypeError) as error:
        raise IdentityError(f"the provider's ID token does not count: {_reason(error)}", _AGAIN) from error
    return dict(claims)


_AGAIN: Final = "begin the login anew; if that does not help, compare the clocks and [web.oidc]"


def needs_userinfo(claims: Mapping[str, object], settings: OidcSettings) -> bool:
    """Return whether the ID token lacks what the settings ask for, so that the userinfo endpoint must be asked."""
    return settings.name_claim not in claims or bool(settings.groups_claim and settings.groups_claim not in claims)


def with_userinfo(claims: Mapping[str, object], more: object) -> Mapping[str, object]:
    """Return the claims with those of the userinfo endpoint, which never replace signed ones.

    Raises:
        IdentityError: they are about somebody else.
    """
    if not isinstance(more, dict) or more.get("sub") != claims["sub"]:
        raise IdentityError("what the provider tells of you is about somebody else", "begin the login anew")
    return {**more, **claims}


def identity_of(claims: Mapping[str, object], settings: OidcSettings) -> OidcIdentity:
    """Return whom the claims are about.

    Raises:
        IdentityError: the claim with the name is missing, no name, or an e-mail address that nobody has verified.
    """
    name = claims.get(settings.name_claim)
    if not isinstance(name, str) or not is_login_name(name) or name.startswith("@"):
        raise IdentityError(
            f"the provider does not tell your name: no usable claim {settings.name_claim}",
            "compare [web.oidc] name_claim and scopes with what the provider sends",
        )
    if settings.name_claim == "email" and claims.get("email_verified") is not True:
        raise IdentityError("the provider has not verified your e-mail address", "verify it there, and log in again")
    found = claims.get(settings.groups_claim, ()) if settings.groups_claim else ()
    groups = [found] if isinstance(found, str) else _texts(found)
    usable = [group for group in groups if 0 < len(group) <= _MOST_GROUP and group.isprintable()]
    return OidcIdentity(name=name, groups=tuple(usable[:MOST_GROUPS]))


def shown(value: object, most: int = 120) -> str:
    """Return in one short line what a provider sent."""
    text = value if isinstance(value, str) else "nothing" if value is None else f"a {type(value).__name__}"
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:most]


def _texts(value: object) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, (list, tuple)) else []


def _reason(error: Exception) -> str:
    return shown(str(error).rstrip(": ") or type(error).__name__)


__all__ = [
    "ALGORITHMS",
    "SKEW",
    "OidcMetadata",
    "authorization_address",
    "claims_of",
    "code_of",
    "identity_of",
    "metadata_of",
    "needs_userinfo",
    "shown",
    "token_form",
    "with_userinfo",
]
