"""Whether something is wrong, in one line: the first thing a page shows. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from deploykit.web.pages.filters import counted
from deploykit.web.pages.words import TONES, Tone
from deploykit.web.projection.views import Problem, ProjectionHealth

#: How bad a problem of a kind is.
PROBLEM_TONES: Final[Mapping[str, Tone]] = {
    "broker": "bad",
    "database": "bad",
    "site": "bad",
    "rollout": "bad",
    "node": "warn",
    "build": "warn",
    "mirror": "warn",
    "distrust": "warn",
    "lock": "hold",
}
_ICONS: Final[Mapping[Tone, str]] = {
    "bad": "bad",
    "warn": "warn",
    "hold": "lock",
    "run": "run",
    "ok": "ok",
    "off": "silent",
}


@attrs.frozen(kw_only=True, slots=True)
class Headline:
    """Whether something is wrong: in words, tone and icon."""

    tone: Tone
    title: str
    text: str

    @property
    def icon(self) -> str:
        """The symbol that says the same as the tone."""
        return _ICONS[self.tone]


def headline(
    problems: Sequence[Problem], health: ProjectionHealth, sites: int, nodes: int | None, limit: int
) -> Headline:
    """Return the headline over everything that a viewer may see.

    Args:
        sites, nodes: how many there are; None where nobody counted.
        limit: how many problems were asked for; so many mean: or more.
    """
    known = counted(sites, "site") + (f", {counted(nodes, 'node')}" if nodes is not None else "")
    if not health.connected:
        return Headline(
            tone="bad",
            title="The console hears nothing",
            text="Below is what was known last. Nodes go on without the console.",
        )
    if problems:
        tone = min((PROBLEM_TONES.get(one.kind, "warn") for one in problems), key=TONES.index)
        count = f"{len(problems)} or more things need" if len(problems) >= limit else _need(len(problems))
        return Headline(tone=tone, title=f"{count} a look", text=f"{known}.")
    if not sites:
        return _no_sites(asking=health.rebuilding)
    if health.rebuilding:
        return Headline(tone="run", title="Nothing wrong so far", text=f"{known}; nodes are still being asked.")
    if health.distrusted:
        return Headline(tone="warn", title="Not all messages are believed", text=f"{known}; see the line above.")
    return Headline(tone="ok", title="All is well", text=f"{known}.")


def _no_sites(*, asking: bool) -> Headline:
    if asking:
        return Headline(tone="run", title="Asking the nodes", text="Sites appear here as nodes answer.")
    return Headline(
        tone="off",
        title="No site was heard of yet",
        text="Sites appear here as soon as an agent answers, or something is deployed.",
    )


def _need(count: int) -> str:
    return "One thing needs" if count == 1 else f"{count} things need"


def problem_tone(problem: Problem) -> Tone:
    """Return how bad a problem is."""
    return PROBLEM_TONES.get(problem.kind, "warn")
