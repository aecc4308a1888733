"""Which keys are trusted, and for what."""

from __future__ import annotations

from pathlib import Path

import attrs

from deploykit.settings.problems import LONGEST


@attrs.frozen(kw_only=True, slots=True)
class GrantSettings:
    """Permission for a principal (of `allowed_signers`) to send message types for some sites. Default deny.

    Args:
        principal: one name, no pattern; `allowed_signers` has the keys that may use it.
        types: `deploy.requested`, its full wire type, or the class's name.
        sites: patterns as in ssh_config(5) (`*`, `?`, `!not-this`).
        speaks_for: for replies: patterns of the nodes this principal may report for. A principal that is
            named like a node speaks for that node without any grant.
        repos, jobs: for `build.finished`: patterns of the repositories and jobs whose results this principal may
            report. Both are needed; with the default it may report none.
        without_build: for `deploy.requested`: this principal may deploy without the builds that a site requires.
    """

    principal: str
    types: tuple[str, ...]
    sites: tuple[str, ...] = ("*",)
    speaks_for: tuple[str, ...] = ()
    repos: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()
    without_build: bool = False


@attrs.frozen(kw_only=True, slots=True)
class TrustSettings:
    """Whose commands a node accepts, and how fresh they must be.

    Args:
        allowed_signers: an OpenSSH allowed_signers file; without one no command is accepted.
        revoked_keys: public keys, one a line, that are no longer accepted.
        max_expiry: seconds that a command's expiry may lie ahead when it arrives.
        skew: seconds that clocks may differ.
    """

    allowed_signers: Path | None = None
    revoked_keys: Path | None = None
    grants: tuple[GrantSettings, ...] = ()
    max_expiry: float = 3600.0
    skew: float = 30.0

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong with the times; the grants are checked by `trust.policy`, which knows the types."""
        times = (("max_expiry", self.max_expiry, 1), ("skew", self.skew, 0))
        return tuple(
            f"{name}: expected seconds, at least {least} and at most {LONGEST:g}, not {value!r}"
            for name, value, least in times
            if not least <= value <= LONGEST
        )
