"""Passkeys that sign, as the console keeps them: enrol, list, offer for a mandate, remove.

Rules:

* Kept are the credential's id and the public line. Nothing in the ledger signs anything.
* A key signs or logs in, never both: one that is known as the other is refused.
* Whether a key counts, nodes decide by their own files. The list says what this machine's files say.
* A challenge is good once, for ten minutes, for whoever asked for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final, Literal

import attrs

from deploykit.errors import ActionRefused, DeploykitError
from deploykit.messages import utc_now
from deploykit.settings.web import ROLES, WebSettings
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.keyformat import fingerprint
from deploykit.trust.sshsig import NAMESPACE
from deploykit.web.actions.auditing import ActionAudit
from deploykit.web.actions.shown import ProposalShown
from deploykit.web.ledger.once import OnceLedger
from deploykit.web.ledger.passkeys import KeptPasskey, PasskeyLedger
from deploykit.web.signing.enrolment import (
    KeyWanted,
    blob_of_line,
    challenge_of,
    key_wanted,
    read_registration,
    settings_text,
    signers_line,
)
from deploykit.web.signing.offers import SigningOffer, signing_offer
from deploykit.web.signing.places import SigningPlace, signing_place
from deploykit.web.viewer import Viewer

_PURPOSE: Final = "enrol"
_SECONDS: Final = 600.0
#: Keys of one person; they are to remove old ones.
_MOST_KEYS: Final = 20
_ACTION: Final = "signing key"

#: What this machine's own files say of a key: it may sign, it was revoked, it is in none, or they cannot be read.
KeyStanding = Literal["trusted", "revoked", "unknown", "unread"]


@attrs.frozen(kw_only=True, slots=True)
class ShownKey:
    """A passkey that signs, for its page.

    Args:
        kept: as the ledger has it.
        fingerprint: as OpenSSH prints it.
        standing: what this machine's files say of it.
        here: it belongs to the page where people sign now.
        made: when it was enrolled.
        settings: with which nodes heed it, as TOML.
    """

    kept: KeptPasskey
    fingerprint: str
    standing: KeyStanding
    here: bool
    made: datetime
    settings: str = ""


@attrs.frozen(kw_only=True, slots=True)
class EnrolmentBegun:
    """A key that is about to be made.

    Args:
        wanted: what for.
        place: where.
        challenge: what the browser's answer must name.
    """

    wanted: KeyWanted
    place: SigningPlace
    challenge: str


class SigningDesk:
    """Use it from any thread.

    Args:
        settings: `[web]`.
        passkeys, once: of the ledger.
        audit: where it is written who enrolled and removed what.
        signers: returns the keys that sign, by this machine's files; None: it has none.
        now: wall clock, aware.
    """

    def __init__(
        self,
        settings: WebSettings,
        passkeys: PasskeyLedger,
        once: OnceLedger,
        audit: ActionAudit,
        *,
        signers: Callable[[], AllowedSigners] | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._settings = settings
        self._passkeys = passkeys
        self._once = once
        self._audit = audit
        self._signers = signers
        self._now = now

    def place(self, address: str) -> SigningPlace:
        """Return where people sign; `address` as for `signing_place`."""
        return signing_place(self._settings, address)

    def offer(self, viewer: Viewer, proposal: ProposalShown, address: str) -> SigningOffer | None:
        """Return what the page of a proposal needs for a passkey of the viewer to sign it; None where one has.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        keys = self._passkeys.list(viewer.name, "signing")
        signed = {each.fingerprint for each in proposal.signatures if not each.problem}
        if signed.intersection(self._shown(key, self.place(address)).fingerprint for key in keys):
            return None
        return signing_offer(self.place(address), proposal.rollout, proposal.body, keys)

    def keys(self, viewer: Viewer, address: str) -> Sequence[ShownKey]:
        """Return the viewer's passkeys that sign, oldest first.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        place = self.place(address)
        return tuple(self._shown(key, place) for key in self._passkeys.list(viewer.name, "signing"))

    def key(self, viewer: Viewer, credential: str, address: str) -> ShownKey | None:
        """Return a passkey of the viewer, with the settings for its line; None where there is none.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        found = self._passkeys.find(credential, "signing")
        if found is None or found.name != viewer.name:
            return None
        shown, (sites, principal) = self._shown(found, self.place(address)), _purpose_of(found)
        return attrs.evolve(shown, settings=settings_text(sites, principal, self.place(address)))

    def begin(self, viewer: Viewer, sites: str, principal: str, address: str) -> EnrolmentBegun:
        """Return what the browser needs to make a passkey.

        Raises:
            ActionRefused: a field is wrong, the viewer may sign nothing, has too many keys, or none can be made there.
            LedgerError: the ledger cannot be used.
        """
        place = self.place(address)
        with self._audit.judging(viewer, _ACTION):
            _require_signer(viewer)
            if place.problem:
                raise ActionRefused("no passkey can be made here", place.problem, status=409)
            if len(self._passkeys.list(viewer.name, "signing")) >= _MOST_KEYS:
                raise ActionRefused(f"you have {_MOST_KEYS} signing keys", "remove one first", status=409)
            wanted = key_wanted(sites, principal, viewer.name)
            return EnrolmentBegun(wanted=wanted, place=place, challenge=self._once.put(_PURPOSE, wanted.text, _SECONDS))

    def finish(self, viewer: Viewer, registration: str, address: str) -> KeptPasskey:
        """Keep the passkey that a browser has made.

        Raises:
            ActionRefused: the answer does not count, or the key is known already.
            LedgerError: the ledger cannot be used.
        """
        place = self.place(address)
        with self._audit.judging(viewer, _ACTION):
            _require_signer(viewer)
            challenge = challenge_of(registration)
            text = self._once.take(challenge, _PURPOSE) if challenge else None
            wanted = KeyWanted.of_text(text) if text is not None else None
            if wanted is None or wanted.who != viewer.name:
                raise ActionRefused("this answers no question of ours, or came too late", "begin again", status=409)
            key = read_registration(registration, challenge, place)
            self._require_new(key.credential, key.cose)
            line = signers_line(wanted, key)
            kept = self._passkeys.add(
                KeptPasskey(
                    credential=key.credential,
                    purpose="signing",
                    name=viewer.name,
                    label=wanted.label,
                    public_key=key.cose,
                    rp_id=place.rp_id,
                    counter=key.counter,
                    line=line,
                )
            )
        self._audit.done(viewer, _ACTION, f"enrolled {wanted.label}, {fingerprint(key.blob)}, for {place.origin}")
        return kept

    def remove(self, viewer: Viewer, credential: str) -> None:
        """Forget a passkey of the viewer. Where its line was distributed it counts on: operators revoke it there.

        Raises:
            ActionRefused: there is none.
            LedgerError: the ledger cannot be written.
        """
        with self._audit.judging(viewer, _ACTION):
            found = self._passkeys.find(credential, "signing")
            if found is None or not self._passkeys.remove(credential, viewer.name):
                raise ActionRefused("there is no such signing key of yours", "see the list", status=404)
        self._audit.done(viewer, _ACTION, f"removed {found.label}, {fingerprint(blob_of_line(found.line))}")

    def _require_new(self, credential: str, cose: bytes) -> None:
        """Accept a key that is neither known as one that logs in nor as another that signs."""
        from deploykit.web.login.passkeyrules import same_key  # slow to import, and most processes enrol nothing

        for known in self._passkeys.list():
            if known.credential == credential or same_key(known.public_key, cose):
                what = "logs in" if known.purpose == "login" else "signs already"
                raise ActionRefused(f"this passkey {what}", "make a new one: a key logs in or signs", status=409)

    def _shown(self, kept: KeptPasskey, place: SigningPlace) -> ShownKey:
        blob = blob_of_line(kept.line)
        return ShownKey(
            kept=kept,
            fingerprint=fingerprint(blob),
            standing=self._standing(blob),
            here=kept.rp_id == place.rp_id,
            made=datetime.fromtimestamp(kept.made, UTC),
        )

    def _standing(self, blob: bytes) -> KeyStanding:
        if self._signers is None:
            return "unread"
        try:
            allowed = self._signers()
        except DeploykitError:
            return "unread"  # whoever reads the log learns why; the page is for the person's own keys
        if allowed.is_revoked(blob):
            return "revoked"
        lines = allowed.lines_for(blob)
        return "trusted" if any(not line.objection(NAMESPACE, self._now()) for line in lines) else "unknown"


def _require_signer(viewer: Viewer) -> None:
    if not any(ROLES.index(grant.role) >= ROLES.index("stage") for grant in viewer.grants):
        raise ActionRefused(
            f"{viewer.name or 'nobody'} may not sign: the role stage is needed on some site",
            "ask whoever keeps [[web.access]]",
        )


def _purpose_of(kept: KeptPasskey) -> tuple[str, str]:
    """Return the sites and the principal for which a key was made: its name and its line have them."""
    sites = kept.label.removeprefix("SIGN ").rpartition(" releases (")[0]
    return sites.replace(", ", ","), kept.line.partition(" ")[0]


__all__ = ["EnrolmentBegun", "KeyStanding", "ShownKey", "SigningDesk"]
