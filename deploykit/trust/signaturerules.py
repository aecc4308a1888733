"""What a good signature by a security key or a passkey must show before it counts. Pure.

Rules:

* Somebody touched the key: always. The key knew the person, by a PIN or a finger: where the settings ask for it.
* A security key's plain signature counts only for a key that was made for `ssh:`, as `ssh-keygen -t ed25519-sk` does.
* A passkey's signature counts only where a listed web page asked for it, and the key was made for a listed site.
* So no key counts in two ways, and whatever a browser signs elsewhere (a login, a strange page) is no command.

ssh-keygen looks at none of these.
"""

from __future__ import annotations

from typing import Final, Self

import attrs

from deploykit.settings.trust import TrustSettings
from deploykit.trust.keyformat import ED25519, SK_ECDSA, PublicKey
from deploykit.trust.sshsig import WEBAUTHN, SignatureParts

#: How the applications of keys for OpenSSH begin.
SSH_APPLICATION: Final = "ssh:"


@attrs.frozen(kw_only=True, slots=True)
class SignatureRules:
    """Which signatures by security keys and passkeys count. The default accepts no passkey.

    Args:
        origins: web pages that may ask for signatures, as browsers write them.
        rp_ids: the sites (relying parties) whose passkeys count.
        verify_required: the key must have known the person.
    """

    origins: frozenset[str] = frozenset()
    rp_ids: frozenset[str] = frozenset()
    verify_required: bool = False

    @classmethod
    def from_settings(cls, trust: TrustSettings) -> Self:
        """Make them from the `[trust]` table."""
        return cls(
            origins=frozenset(trust.origins), rp_ids=frozenset(trust.rp_ids), verify_required=trust.verify_required
        )

    def objection(self, parts: SignatureParts) -> str:
        """Return why a signature does not count; empty when it does. A plain Ed25519 key shows nothing and may."""
        asked = parts.certificate is not None and parts.certificate.verify_required
        if asked and not parts.verified:
            return "it does not show that the key knew the person (PIN or finger): its certificate has verify-required"
        if parts.kind == ED25519:
            return ""
        if made_for := self._made_for_another_purpose(parts):
            return made_for
        if not parts.present:
            return "it does not show that somebody touched the key"
        if self.verify_required and not parts.verified:
            return "it does not show that the key knew the person (PIN or finger), which trust.verify_required asks for"
        return ""

    def never(self, key: PublicKey) -> str:
        """Return why no signature by a key can count; empty where one may."""
        if key.key_type == ED25519 or key.application.startswith(SSH_APPLICATION):
            return ""
        if key.application not in self.rp_ids:
            return f"its passkey was made for {key.application[:80]!a}, which is not in trust.rp_ids"
        return "" if key.key_type == SK_ECDSA else f"passkeys count only as {SK_ECDSA}"

    def _made_for_another_purpose(self, parts: SignatureParts) -> str:
        application = parts.public.application
        if parts.kind != WEBAUTHN:
            if application.startswith(SSH_APPLICATION):
                return ""
            return f"its security key was made for {application[:80]!a}, not for {SSH_APPLICATION!r}"
        if application not in self.rp_ids:
            return f"its passkey was made for {application[:80]!a}, which is not in trust.rp_ids"
        if parts.origin not in self.origins:
            return f"the web page {parts.origin[:80]!a} asked for it, which is not in trust.origins"
        return ""


__all__ = ["SSH_APPLICATION", "SignatureRules"]
