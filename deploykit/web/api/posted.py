"""Bodies that only the API has; the others are the classes of `actions.asked`."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True, slots=True)
class SignatureAsked:
    """Add a signature to a proposal.

    Args:
        signature: a value of the signature header, made over the bytes in `body` of the proposal.
    """

    signature: str


@attrs.frozen(kw_only=True, slots=True)
class RelayAsked:
    """Publish a message that was signed elsewhere: a lock, an unlock, an access grant or revocation.

    Args:
        body: the very bytes that were signed, in base64.
        signature: the value of the signature header.
    """

    body: str
    signature: str


@attrs.frozen(kw_only=True, slots=True)
class RetryAsked:
    """Roll out again to what failed, refused or was silent.

    Args:
        plan: `digest` of the plan that was shown; a plan that came out otherwise is not carried out. Empty: any.
        approval: have people sign it although the site does not ask for that; as in the plan.
        reason: for the others.
    """

    plan: str = ""
    approval: bool = False
    reason: str = ""


@attrs.frozen(kw_only=True, slots=True)
class NothingAsked:
    """A request whose path says it all."""


__all__ = ["NothingAsked", "RelayAsked", "RetryAsked", "SignatureAsked"]
