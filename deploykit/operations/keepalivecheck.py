"""Try each login that a destination of `[keepalive]` has of its own: one finding for each.

Rules:

* Nothing is sent: the destination is somebody's, and an empty line there is the daemon's business.
* A broker that cannot be reached is an error here, too; the checks of `doctor` say more about it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from deploykit.bus.client import Bus
from deploykit.daemons.keepaliveplan import KeepaliveLogin, logins_of
from deploykit.errors import BusError, SettingsError
from deploykit.operations.findings import Finding
from deploykit.settings.node import Settings

_PATIENCE: Final = 5.0


def check_keepalive_logins(
    settings: Settings, on_finding: Callable[[Finding], object] = lambda _: None
) -> tuple[Finding, ...]:
    """Return a finding for each login of its own; `on_finding` is called with each as it is made."""
    findings = []
    for login in logins_of(settings):
        if login.own:
            findings.append(_tried(login))
            on_finding(findings[-1])
    return tuple(findings)


def _tried(login: KeepaliveLogin) -> Finding:
    check = f"login for keepalives to {login}"
    patience = min(login.broker.connect_timeout, _PATIENCE)
    try:
        with Bus(attrs.evolve(login.broker.at_once(), connect_timeout=patience)) as bus:
            if bus.wait_connected(patience + 1):
                return Finding(check=check, verdict="ok", text="accepted")
            problem = bus.problem
            text = problem.problem if problem is not None else "no broker answers"
            return Finding(
                check=check, verdict="error", text=text, remedy=problem.remedy if problem is not None else ""
            )
    except (BusError, SettingsError) as error:
        return Finding(check=check, verdict="error", text=error.problem, remedy=error.remedy)


__all__ = ["check_keepalive_logins"]
