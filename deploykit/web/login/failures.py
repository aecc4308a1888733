"""Why nobody was logged in. The text is for the person; the audit has it first."""

from __future__ import annotations

from deploykit.errors import ActionRefused


class IdentityError(ActionRefused):
    """A provider or a passkey does not show who somebody is. Nobody was logged in; begin anew.

    `status` is that of the page: 503 the provider is away, else 403.
    """


class UnknownSigner(IdentityError):
    """No key that we know has signed an ID token. Ask for the provider's keys anew, and try once more."""


__all__ = ["IdentityError", "UnknownSigner"]
