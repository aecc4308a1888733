"""Every committed payload means what is written beside it, field by field.

`tests/data/webhooks/NAME.json` is a body; `expected.json` has its headers and what it means: of a commit the first four
digits of its id, author, time, message. Change an expectation only when a forge changed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_args

import pytest

from deploykit.settings.webhook import Forge, GenericMapping
from deploykit.web.receiver.forges import ForgeDelivery, parse

DATA = Path(__file__).parents[3] / "data" / "webhooks"
CASES: Mapping[str, Mapping[str, Any]] = json.loads((DATA / "expected.json").read_text())


def plain(delivery: ForgeDelivery) -> dict[str, object]:
    """The delivery as `expected.json` writes it."""
    return {
        "id": delivery.id,
        "event": delivery.event,
        "repository": delivery.repository,
        "ignored": delivery.ignored,
        "notice": delivery.notice,
        "pushes": [
            {
                "ref": push.ref,
                "old": push.old,
                "new": push.new,
                "forced": push.forced,
                "pusher": push.pusher,
                "commits": [[c.id[:4], c.author, c.time, c.message] for c in push.commits],
                "count": push.commit_count,
            }
            for push in delivery.pushes
        ],
    }


@pytest.mark.parametrize("name", CASES)
def test_a_committed_payload_means_what_is_written_beside_it(name: str) -> None:
    case = CASES[name]
    mapping = GenericMapping(**case.get("mapping", {}))
    body = json.loads((DATA / f"{name}.json").read_text())
    assert plain(parse(cast("Forge", case["forge"]), case["headers"], body, mapping)) == case["expected"]


def test_every_payload_is_expected_and_every_forge_has_some() -> None:
    assert {file.stem for file in DATA.glob("*.json")} == {*CASES, "expected"}
    assert {case["forge"] for case in CASES.values()} == set(get_args(Forge))
