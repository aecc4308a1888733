"""What a check found: one value for `doctor` and `hooks check` alike, and the line that shows it."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import attrs

#: `note` and `warning` stop nothing; `error` does, and the command ends with 1.
Verdict: TypeAlias = Literal["ok", "note", "warning", "error"]

_WIDTH: Final = len("warning")


@attrs.frozen(kw_only=True, slots=True)
class Finding:
    """One thing that was checked.

    Args:
        check: what was looked at, e.g. `receipts` or `spool`.
        verdict: how it is.
        text: what was seen.
        remedy: the way out, where there is one.
        broker: the broker or build server it was seen at, where it was one.
    """

    check: str
    verdict: Verdict
    text: str
    remedy: str = ""
    broker: str = ""

    @property
    def failed(self) -> bool:
        """Whether something does not work."""
        return self.verdict == "error"

    def __str__(self) -> str:
        where = f"{self.broker}  " if self.broker else ""
        return f"{self.verdict:<{_WIDTH}} {where}{self.check}: {self.text}{f'. {self.remedy}' if self.remedy else ''}"


__all__ = ["Finding", "Verdict"]
