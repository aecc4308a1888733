"""Whether a request was made by who knows the secret: one function for each scheme. Pure.

Rules:

* The bytes that came are verified, before anything is parsed.
* All secrets are compared, each in constant time: how long it takes says nothing.
* A header that is absent, empty or not of its form never verifies. An empty secret verifies nothing.
* Nothing here returns or raises a digest, a token or a secret.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from deploykit.errors import WebhookRefused
from deploykit.settings.webhook import Forge
from deploykit.settings.webhooksecrets import SIGNING_TOKEN, signing_key_of

#: Seconds by which the sender's clock may differ, where the time is signed.
TOLERANCE: Final = 300
#: Header and what stands before the hex digits, for each forge that signs so: the first that is there counts.
HEX_HEADERS: Final[Mapping[Forge, tuple[tuple[str, str], ...]]] = {
    "github": (("x-hub-signature-256", "sha256="),),
    "gitea": (("x-gitea-signature", ""), ("x-hub-signature-256", "sha256=")),
    "forgejo": (
        ("x-forgejo-signature", ""),
        ("x-gitea-signature", ""),
        ("x-hub-signature-256", "sha256="),
    ),
    "gogs": (("x-gogs-signature", ""),),
    "bitbucket": (("x-hub-signature", "sha256="),),
    "bitbucket-dc": (("x-hub-signature", "sha256="),),
}
_STANDARD: Final = ("webhook-id", "webhook-timestamp", "webhook-signature")
_HEX: Final = re.compile(r"[0-9A-Fa-f]{64}\Z").match
_SECONDS: Final = re.compile(r"[0-9]{1,12}\Z").match
#: Signatures of one header that are looked at: a sender that changes its key sends two.
_MOST_SIGNATURES: Final = 16
#: Headers by which a sender shows who it is, and with which it names event and delivery: a log may name them.
KNOWN_HEADERS: Final = frozenset(
    {
        *("authorization", "x-hub-signature", "x-hub-signature-256", "x-gitlab-token", *_STANDARD),
        *("x-gitea-signature", "x-forgejo-signature", "x-gogs-signature"),
        *("x-github-event", "x-gitlab-event", "x-gitea-event", "x-forgejo-event", "x-gogs-event", "x-event-key"),
        *("x-github-delivery", "x-gitea-delivery", "x-forgejo-delivery", "x-gogs-delivery", "idempotency-key"),
        *("x-request-uuid", "x-request-id", "x-attempt-number", "content-type", "content-encoding", "user-agent"),
    }
)


@attrs.frozen(kw_only=True, slots=True)
class WebhookSecret:
    """A secret that a sender and we share; never shown."""

    value: bytes = attrs.field(repr=False)

    @classmethod
    def of(cls, text: str) -> WebhookSecret:
        """Return the secret that stands in a file."""
        return cls(value=text.encode())


def verify(
    forge: Forge,
    header: str,
    secrets: Sequence[WebhookSecret],
    headers: Mapping[str, str],
    bodies: Sequence[bytes],
    *,
    now: float,
) -> str:
    """Return the delivery's id if the signature covers it, else an empty text; refuse who knows none of the secrets.

    Args:
        forge: who sends.
        header: of the source's settings; empty where the forge has its own.
        secrets: those that count.
        headers: by lower-case name.
        bodies: what may be signed: the raw body, and of a form the JSON text inside.
        now: wall clock, seconds since 1970.

    Raises:
        WebhookRefused: it does not; status 401.
    """
    signed_id = ""
    if forge == "gitlab":
        problem, signed_id = _gitlab_problem(secrets, headers, bodies[0], now)
    elif forge == "azure":
        problem = azure_problem(secrets, headers, header)
    else:
        problem = hex_problem(secrets, headers, bodies, HEX_HEADERS.get(forge) or ((header.lower(), ""),))
    if problem:
        raise WebhookRefused(problem, "compare the secret at the sender with secret_files", status=401)
    return signed_id


def hex_problem(
    secrets: Sequence[WebhookSecret],
    headers: Mapping[str, str],
    bodies: Sequence[bytes],
    places: Sequence[tuple[str, str]],
) -> str:
    """Return why no header holds the HMAC-SHA256 of a body as hex digits; empty if one does.

    Args:
        places: header and what stands before the digits; `sha256=` may stand before them where nothing must.
    """
    name, prefix = next(((name, prefix) for name, prefix in places if name in headers), ("", ""))
    if not name:
        return f"no header {' or '.join(name for name, _ in places)}: the sender has no secret"
    given = headers[name]
    if not given:
        return f"header {name} is empty: the sender has no secret"
    if not given.startswith(prefix):
        return f"header {name} does not begin with {prefix}"
    digits = given.removeprefix(prefix or "sha256=")
    if _HEX(digits) is None:
        return f"header {name} holds no SHA-256 in hex digits"
    digest = bytes.fromhex(digits)
    found = False
    for secret in secrets:
        for body in bodies:
            mine = hmac.new(secret.value, body, hashlib.sha256).digest()
            found |= hmac.compare_digest(mine, digest) and bool(secret.value)
    return "" if found else f"header {name}: the signature is wrong"


def standard_problem(keys: Sequence[bytes], headers: Mapping[str, str], body: bytes, now: float) -> str:
    """Return why a request is not signed as Standard Webhooks says; empty if it is.

    Args:
        keys: any of them counts.
    """
    for name in _STANDARD:
        if not headers.get(name):
            return f"no header {name}: the sender has no signing token"
    signed_id, at, signatures = (headers[name] for name in _STANDARD)
    if _SECONDS(at) is None:
        return "header webhook-timestamp: not a number of seconds"
    if abs(now - int(at)) > TOLERANCE:
        return f"header webhook-timestamp: {abs(now - int(at)):.0f} s away from our clock, at most {TOLERANCE} count"
    # A header is latin-1 on the wire; these are the bytes that came.
    signed = b".".join((signed_id.encode("latin-1", "replace"), at.encode(), body))
    mine = [hmac.new(key, signed, hashlib.sha256).digest() for key in keys if key]
    found = False
    for each in signatures.split(" ")[:_MOST_SIGNATURES]:
        version, _, text = each.partition(",")
        given = _base64(text)
        if version != "v1" or given is None:
            continue
        for digest in mine:
            found |= hmac.compare_digest(digest, given)
    return "" if found else "header webhook-signature: the signature is wrong"


def token_problem(secrets: Sequence[WebhookSecret], headers: Mapping[str, str], name: str) -> str:
    """Return why a header does not hold one of the secrets themselves; empty if it does."""
    given = headers.get(name, "")
    if not given:
        return f"no header {name}: the sender has no secret" if name not in headers else f"header {name} is empty"
    return "" if _is_one_of(secrets, given) else f"header {name}: the token is wrong"


def azure_problem(secrets: Sequence[WebhookSecret], headers: Mapping[str, str], header: str) -> str:
    """Return why a request has neither the header's value nor Basic authentication; empty if it has.

    Args:
        header: carries the secret itself; empty: Basic authentication, and a secret is `USER:PASSWORD`.
    """
    if header:
        return token_problem(secrets, headers, header.lower())
    kind, _, text = headers.get("authorization", "").partition(" ")
    if kind.lower() != "basic":
        return "no Basic authentication: give user name and password at the sender"
    given = _base64(text.strip())
    if not given:
        return "header authorization: not the base64 of USER:PASSWORD"
    found = False
    for secret in secrets:
        found |= _same(secret.value, given)
    return "" if found else "header authorization: user name or password is wrong"


def _gitlab_problem(
    secrets: Sequence[WebhookSecret], headers: Mapping[str, str], body: bytes, now: float
) -> tuple[str, str]:
    """Return why neither a signing token nor a plain token verifies, and the id that the signature covers, if it does.

    Each secret counts as what it is.
    """
    keys = [signing_key_of(secret.value.decode()) for secret in secrets if secret.value.startswith(SIGNING_TOKEN)]
    plain = [secret for secret in secrets if not secret.value.startswith(SIGNING_TOKEN)]
    problems = []
    if keys:
        problems.append(standard_problem(keys, headers, body, now))
        if not problems[0]:
            return "", headers[_STANDARD[0]]
    if plain:
        problems.append(token_problem(plain, headers, "x-gitlab-token"))
    return ("; ".join(problems) or "no secret" if all(problems) else ""), ""


def _is_one_of(secrets: Sequence[WebhookSecret], given: str) -> bool:
    found, raw = False, given.encode("latin-1", "replace")
    for secret in secrets:
        found |= _same(secret.value, raw)
    return found


def _same(secret: bytes, given: bytes) -> bool:
    """Compare digests, so that the time taken does not show a length either."""
    mine, theirs = (hashlib.sha256(each).digest() for each in (secret, given))
    return hmac.compare_digest(mine, theirs) and bool(secret)


def _base64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return None


__all__ = [
    "HEX_HEADERS",
    "KNOWN_HEADERS",
    "TOLERANCE",
    "WebhookSecret",
    "azure_problem",
    "hex_problem",
    "standard_problem",
    "token_problem",
    "verify",
]
