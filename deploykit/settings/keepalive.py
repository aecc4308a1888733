"""Destinations that are kept alive with a login of their own. `[keepalive]`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs

from deploykit.errors import DialectError
from deploykit.messages.destinations import check_destination
from deploykit.settings.problems import below


@attrs.frozen(kw_only=True, slots=True)
class KeepaliveDestination:
    """One destination, `[keepalive.destinations.NAME]`.

    Args:
        destination: where the empty line goes.
        login, passcode: of its own; empty: those of `[broker]`, on the same connection.
        passcode_file: a file that holds the passcode instead, as `broker.passcode_file`.
    """

    destination: str
    login: str = attrs.field(default="", repr=False)
    passcode: str = attrs.field(default="", repr=False)
    passcode_file: Path | None = None

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong, one line each and none with a secret in it; empty when all is well."""
        return tuple(self._problems())

    def _problems(self) -> Iterator[str]:
        try:
            check_destination(self.destination)
        except DialectError as error:
            yield f"destination: {error}"
        if self.passcode and self.passcode_file is not None:
            yield "passcode, passcode_file: give one of them, not both"
        if not self.login and (self.passcode or self.passcode_file is not None):
            yield "login: needed where there is a passcode"
        for name in ("login", "passcode"):
            if re.search(r"[\r\n\x00]", getattr(self, name)):
                yield f"{name}: holds a line break or NUL"


@attrs.frozen(kw_only=True, slots=True)
class KeepaliveSettings:
    """What `deploykit keepalive` keeps alive besides `broker.keepalive`.

    Args:
        destinations: each with its login, by any name.
    """

    destinations: Mapping[str, KeepaliveDestination] = attrs.field(factory=dict)

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong, one line each; empty when all is well."""
        return tuple(
            line
            for name, destination in self.destinations.items()
            for line in below(f"destinations.{name}", destination.problems())
        )


__all__ = ["KeepaliveDestination", "KeepaliveSettings"]
