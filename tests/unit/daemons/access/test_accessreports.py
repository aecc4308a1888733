"""What a node reports of an access: enough for consoles, which hear no command."""

from __future__ import annotations

import pytest

from deploykit.daemons.access.accessreports import AccessReportMaker
from deploykit.messages import AccessGrantRequested, AccessRevokeRequested
from deploykit.names import NodeName, SiteName
from deploykit.wire import encode

HASH = "$6$saltsalt$" + "a" * 86
MAKER = AccessReportMaker(node=NodeName("web1"))


@pytest.mark.parametrize("kind", [AccessGrantRequested, AccessRevokeRequested])
def test_it_says_who_asked_and_nothing_of_the_password(
    kind: type[AccessGrantRequested | AccessRevokeRequested],
) -> None:
    more = {"password_hash": HASH} if kind is AccessGrantRequested else {}
    command = kind(site=SiteName("shop"), user="bob", requested_by="eve\n" + "x" * 1000, **more)  # type: ignore[arg-type]  # by kind
    report = MAKER.refused(command, "SHA256:abc", "no grant")
    assert report.requested_by.startswith("eve")
    assert "\n" not in report.requested_by
    assert len(report.requested_by) <= 300
    assert b"saltsalt" not in encode(report).body
    assert MAKER.for_copy(report, "SHA256:other").requested_by == report.requested_by
