"""Check what a node would say of itself: whether each source of facts can be read, and what is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from deploykit.daemons.agent.factsources import FactSources
from deploykit.operations.findings import Finding
from deploykit.settings.node import Settings

_CHECK = "facts"


def check_facts(settings: Settings, on_finding: Callable[[Finding], object] = lambda _: None) -> tuple[Finding, ...]:
    """Return a finding for each source that cannot be used and each fact that is left out, or one that all is sent.

    Args:
        settings: of this node.
        on_finding: called with each finding as it is made.
    """
    found = tuple(_findings(settings))
    for finding in found:
        on_finding(finding)
    return found


def _findings(settings: Settings) -> Iterator[Finding]:
    sources = FactSources(settings.facts)
    sources.refresh()
    known = sources.read()
    for problem in known.problems:
        yield Finding(check=_CHECK, verdict="error", text=problem)
    for line in known.cut:
        if not known.problems or "left out" in line:
            yield Finding(check=_CHECK, verdict="warning", text=line)
    for warning in settings.facts.warnings():
        yield Finding(check=_CHECK, verdict="warning", text=f"facts.{warning}")
    if (known.facts or known.classes) and not known.problems:
        sent = f"{len(known.facts)} facts and {len(known.classes)} classes are sent"
        yield Finding(check=_CHECK, verdict="ok", text=sent)
