"""Times that a person gives on the command line: `2h`, `30m`, or a date with its zone."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    _Parameter = click.ParamType[Any]
else:  # not generic before click 8.2
    _Parameter = click.ParamType

_AHEAD: Final = re.compile(r"\+?([0-9]{1,6})([smhd])\Z", re.ASCII).match
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class MomentType(_Parameter):
    """An instant: so far ahead of now (`90m`, `2h`, `1d`), or `2026-01-31T12:00Z`, or with an offset (`+01:00`)."""

    name = "2h|TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the instant, aware; fail where the text is none."""
        from deploykit.messages import utc_now

        if isinstance(value, datetime):
            return value
        ahead = _AHEAD(str(value))
        if ahead is not None:
            return utc_now() + timedelta(seconds=int(ahead[1]) * _SECONDS[ahead[2]])
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no time: write 2h, 30m, or 2026-01-31T12:00Z", param, ctx)
        if moment.tzinfo is None:
            self.fail(f"{value!r} has no zone: add Z, or an offset such as +01:00", param, ctx)
        return moment


__all__ = ["MomentType"]
