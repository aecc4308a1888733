"""The options of a mandate: which go together, and which times a person may write."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import click
import pytest

from deploykit.cli.mandateoptions import check_mandate_options
from deploykit.cli.moments import MomentType
from deploykit.errors import UsageError
from deploykit.messages import utc_now

NONE: dict[str, Any] = {
    "propose": False,
    "approve_with": (),
    "not_before": None,
    "not_after": None,
    "reason": "",
    "yes": False,
}


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"propose": True},
        {"propose": True, "reason": "why", "not_after": utc_now()},
        {"approve_with": ("key",), "yes": True},
    ],
)
def test_these_go_together(given: dict[str, Any]) -> None:
    check_mandate_options({**NONE, **given})


@pytest.mark.parametrize(
    "given",
    [
        {"propose": True, "approve_with": ("key",)},
        {"reason": "why"},
        {"not_before": utc_now()},
        {"yes": True},
        {"propose": True, "yes": True},
    ],
)
def test_these_do_not(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        check_mandate_options({**NONE, **given})


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31T12:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31T12:00:30+01:00", datetime(2026, 1, 31, 11, 0, 30, tzinfo=UTC)),
        ("2026-01-31 12:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
    ],
)
def test_a_time_has_its_zone(text: str, moment: datetime) -> None:
    assert MomentType().convert(text, None, None) == moment


@pytest.mark.parametrize(("text", "ahead"), [("90s", 90), ("45m", 2700), ("+2h", 7200), ("1d", 86400)])
def test_a_time_may_be_so_far_ahead(text: str, ahead: int) -> None:
    found = MomentType().convert(text, None, None) - utc_now()
    assert timedelta(seconds=ahead - 60) < found <= timedelta(seconds=ahead)


@pytest.mark.parametrize("text", ["", "now", "12:00", "2026-01-31T12:00", "2h30", "-2h", "2 h", "9999999d", "\u0662h"])
def test_anything_else_is_no_time(text: str) -> None:
    with pytest.raises(click.BadParameter):
        MomentType().convert(text, None, None)
