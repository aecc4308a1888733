"""Check the build gates of a node: whether some trusted key can open each, and whether results can be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from deploykit.builds.store import builds_of
from deploykit.daemons.agent.trustcheck import closed_for_ever
from deploykit.errors import DeploykitError
from deploykit.messages import utc_now
from deploykit.operations.findings import Finding
from deploykit.settings.node import Settings
from deploykit.trust.keyfiles import load_trusted

_CHECK = "build gate"


def check_gates(settings: Settings, on_finding: Callable[[Finding], object] = lambda _: None) -> tuple[Finding, ...]:
    """Return a finding for each gate that cannot open, or one that all can; none where no site requires a build.

    Args:
        settings: of this node.
        on_finding: called with each finding as it is made.
    """
    found = tuple(_findings(settings))
    for finding in found:
        on_finding(finding)
    return found


def _findings(settings: Settings) -> Iterator[Finding]:
    gated = [name for name, site in settings.sites.items() if site.gated]
    if not gated:
        return
    try:
        count = builds_of(settings.state).count()
        lost = list(closed_for_ever(settings, load_trusted(settings.trust), utc_now()))
    except DeploykitError as error:
        yield Finding(check=_CHECK, verdict="error", text=error.problem, remedy=error.remedy)
        return
    for text in lost:
        yield Finding(check=_CHECK, verdict="error", text=text)
    if not lost:
        yield Finding(check=_CHECK, verdict="ok", text=f"{', '.join(gated)}; {count} results are known")
