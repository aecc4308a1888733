"""Which keys are trusted, and for what."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from deploykit.messages.deploy import DeployPhase
from deploykit.settings.problems import LONGEST

_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST: Final = rf"(?:{_LABEL}\.)*(?=[a-z0-9-]*[a-z]){_LABEL}"  # the last label is no number: no IP address
_RP_ID: Final = re.compile(_HOST)
#: An origin, as browsers write it.
ORIGIN: Final = re.compile(rf"(?:https://{_HOST}|http://(?:{_LABEL}\.)*localhost)(?::(?!0|80\Z|443\Z)\d{{1,5}})?")


@attrs.frozen(kw_only=True, slots=True)
class GrantSettings:
    """Permission for a principal (of `allowed_signers`) to send message types for some sites. Default deny.

    Args:
        principal: one name, no pattern; `allowed_signers` has the keys that may use it.
        types: message types: `deploy.requested`, its full wire type, or the class's name; and rights: `rollout.run`
            (commands inside a mandate), `lock.release`, `lock.override`, and `without-build` (deploy, or approve,
            without the builds that a site requires).
        sites: patterns as in ssh_config(5) (`*`, `?`, `!not-this`).
        speaks_for: for replies: patterns of the nodes this principal may report for. A principal that is
            named like a node speaks for that node without any grant.
        repos: patterns of repositories: the grant is for their sites alone; by default for all. For `build.finished`
            the repositories whose results this principal may report; there the default is none.
        jobs: for `build.finished`: patterns of the jobs whose results this principal may report; by default none.
        phases: for `deploy.requested`, `rollout.run`, `rollout.approved`, `without-build` and `lock.override`: the
            phases that this principal may ask for or approve; all by default. Who may prepare may discard what was
            prepared.
    """

    principal: str
    types: tuple[str, ...]
    sites: tuple[str, ...] = ("*",)
    speaks_for: tuple[str, ...] = ()
    repos: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()
    phases: tuple[DeployPhase, ...] = ()


@attrs.frozen(kw_only=True, slots=True)
class TrustSettings:
    """Whose commands a node accepts, and how fresh they must be.

    Args:
        allowed_signers: an OpenSSH allowed_signers file; without one no command is accepted.
        revoked_keys: what is no longer accepted: public keys, one a line, or OpenSSH's binary list (`ssh-keygen -k`).
        max_expiry: seconds that a command's expiry may lie ahead when it arrives.
        skew: seconds that clocks may differ.
        mandate_max: seconds from now to the latest end of a `RolloutApproved`; commands have `max_expiry`.
        origins: web pages whose passkey signatures count: `https://deploy.example.org`; none by default.
        rp_ids: relying parties (names of web sites) whose passkeys count: `deploy.example.org`; none by default.
        verify_required: signatures by security keys and passkeys count only where the key knew the person, by a PIN or
            a finger. That somebody touched it, they must always show.
    """

    allowed_signers: Path | None = None
    revoked_keys: Path | None = None
    grants: tuple[GrantSettings, ...] = ()
    max_expiry: float = 3600.0
    skew: float = 30.0
    mandate_max: float = 86_400.0
    origins: tuple[str, ...] = ()
    rp_ids: tuple[str, ...] = ()
    verify_required: bool = False

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong, save in the grants, which `trust.policy` checks: it knows the types."""
        times = (("max_expiry", self.max_expiry, 1), ("skew", self.skew, 0), ("mandate_max", self.mandate_max, 1))
        wrong = tuple(
            f"{name}: expected seconds, at least {least} and at most {LONGEST:g}, not {value!r}"
            for name, value, least in times
            if not least <= value <= LONGEST
        )
        return wrong + tuple(self._passkey_problems())

    def _passkey_problems(self) -> Iterator[str]:
        """Yield what no browser would write: it would match no signature, and nobody would know why."""
        for origin in self.origins:
            if not ORIGIN.fullmatch(origin):
                yield (
                    f"origins: expected https://HOST, with :PORT where it is not the usual one, or http://localhost, "
                    f"in lower case and with nothing behind it, not {origin!a}"
                )
        for name in self.rp_ids:
            if not _RP_ID.fullmatch(name):
                yield f"rp_ids: expected the name of a host in lower case, no address, not {name!a}"
        if bool(self.origins) != bool(self.rp_ids):
            given, missing = ("origins", "rp_ids") if self.origins else ("rp_ids", "origins")
            yield f"{missing}: {given} is given, but passkeys count only where both are"
