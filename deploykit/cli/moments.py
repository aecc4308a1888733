"""Times that a person gives on the command line: `2h`, `30m`, or a date with its zone."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    _Parameter = click.ParamType[Any]
else:  # not generic before click 8.2
    _Parameter = click.ParamType


class MomentType(_Parameter):
    """An instant: so far ahead of now (`90m`, `2h`, `1d`), or `2026-01-31T12:00Z`, or with an offset (`+01:00`)."""

    name = "2h|TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the instant, aware; fail where the text is none."""
        from deploykit.errors import UsageError
        from deploykit.messages import utc_now
        from deploykit.operations.moments import parse_moment

        if isinstance(value, datetime):
            return value
        try:
            return parse_moment(str(value), utc_now())
        except UsageError as error:
            self.fail(error.problem, param, ctx)


__all__ = ["MomentType"]
