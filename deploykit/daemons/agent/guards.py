"""What must be settled before an authorized command is obeyed, beyond who signed it: mandate, lock, rollout.

    authorize -> each guard's `enter` -> claim the id -> audit -> lock the site -> each guard's `objection` -> deploy

Rules:

* Guards are asked in their order, and the first objection counts. Those behind it are not asked.
* What `enter` objects to is refused for good: the id is claimed, so that no copy of the command is obeyed later.
* Where something is only missing, the command is neither claimed nor answered: it comes again with what it lacks.
* A command that is resumed may be carried out already. `enter` refuses none, `objection` asks the site's records.
* `objection` is asked under the site's lock, when nothing is cut off: then it is decided.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TypeAlias

import attrs

from deploykit.messages import DeployReported, DeployRequested
from deploykit.release import Site
from deploykit.trust.check import Authorized, Verified


@attrs.frozen(kw_only=True, slots=True)
class AuthorizedCommand:
    """A command that its signer may send.

    Args:
        request: the command.
        command: who signed it.
        authorized: by which grant.
        judged_at: the instant by which times are judged: of the first claim of its id, or else now.
        claimed_at: when its id was first claimed, if it comes again.
    """

    request: DeployRequested
    command: Verified
    authorized: Authorized
    judged_at: datetime
    claimed_at: datetime | None = None


@attrs.frozen(kw_only=True, slots=True)
class Objection:
    """Why a command is not obeyed.

    Args:
        why: for the report and the audit; every subscriber reads it.
        missing: something is not here yet, and was asked for: no refusal.
    """

    why: str
    missing: bool = False


class CommandGuard:
    """Asked about one command. A guard overrides what it has to say something about."""

    def enter(self, now: datetime) -> Objection | None:
        """Return why the command is not obeyed, before its id is claimed.

        Raises:
            RolloutMemoryError: what must be noted first cannot be written. Do not act; try again.
        """
        return None

    def objection(self, site: Site, now: datetime) -> str:
        """Return why it may not begin now, or an empty string. The site's lock is held."""
        return ""

    @property
    def details(self) -> Mapping[str, str]:
        """What the records of the command say besides."""
        return {}

    def complete(self, report: DeployReported) -> DeployReported:
        """Return the report with what this guard knows."""
        return report


#: Makes a guard for a command. It may raise `PolicyRefused`: then the command is refused, and its id is not claimed.
GuardMaker: TypeAlias = Callable[[AuthorizedCommand], CommandGuard]


class CommandGuards:
    """The guards of one command.

    Args:
        guards: in the order in which they are asked.
        now: the wall clock, aware UTC.
    """

    def __init__(self, guards: Sequence[CommandGuard], now: Callable[[], datetime]) -> None:
        self._guards = tuple(guards)
        self._now = now

    def enter(self, now: datetime) -> Objection | None:
        """Return the first objection before the claim, if there is one."""
        return next(filter(None, (guard.enter(now) for guard in self._guards)), None)

    def objection(self, site: Site) -> str:
        """Return the first objection when the command's turn has come, or an empty string."""
        return next(filter(None, (guard.objection(site, self._now()) for guard in self._guards)), "")

    @property
    def details(self) -> Mapping[str, str]:
        """What the records of the command say besides."""
        return {name: text for guard in self._guards for name, text in guard.details.items()}

    def complete(self, report: DeployReported) -> DeployReported:
        """Return the report with what the guards know."""
        for guard in self._guards:
            report = guard.complete(report)
        return report
