"""Which keys are trusted, and for what."""

from __future__ import annotations

from pathlib import Path

import attrs

from deploykit.messages.deploy import DeployPhase
from deploykit.settings.problems import LONGEST


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
        phases: for `deploy.requested`, `rollout.run`, `rollout.approved` and `without-build`: the phases that this
            principal may ask for or approve; all by default. Who may prepare may discard what was prepared.
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
        revoked_keys: public keys, one a line, that are no longer accepted.
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
        """Return what is wrong with the times; the grants are checked by `trust.policy`, which knows the types."""
        times = (("max_expiry", self.max_expiry, 1), ("skew", self.skew, 0), ("mandate_max", self.mandate_max, 1))
        return tuple(
            f"{name}: expected seconds, at least {least} and at most {LONGEST:g}, not {value!r}"
            for name, value, least in times
            if not least <= value <= LONGEST
        )
