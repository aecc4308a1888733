"""The small fleet with more of what it did: histories, pushes of every kind, a log with colours; and a hostile twin."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

import attrs

from deploykit.web.projection.activityviews import CommitView, NoticeView, PushView
from deploykit.web.projection.rolloutviews import HistoryView, LogSlice
from deploykit.web.projection.views import PageRequested
from deploykit.web.viewer import Viewer
from tests.support.consoleworld import ago, small_world
from tests.support.fixedqueries import FixedQueries

#: Must reach a page as text and never as markup.
POISON: Final = "<img src=x onerror=alert(1)>'\"&{{7*7}}\u202e\x1b[31m<script>canary()</script>"
#: A commit for each of the two releases in the histories.
OLD, NEW = "5f" * 20, "9c" * 20
#: The rollout whose logs are here, and the node that failed in it.
ROLLOUT, FAILED_NODE = "r-7f31", "web-1"
_KEPT: Final = frozenset({"repo", "site", "node", "rollout", "id", "standing", "state", "kind", "decision", "what"})


@attrs.define(kw_only=True)
class LoggedQueries(FixedQueries):
    """As the small fleet; logs may be open, and may have lost their beginning."""

    open_logs: bool = False
    lost: int = 0

    def log(self, viewer: Viewer, rollout: str, node: str, first: int, limit: int) -> LogSlice | None:
        if not any(one.rollout == rollout for one in self.rollouts(viewer, "", PageRequested(limit=500)).items):
            return None
        found = FixedQueries.log(self, viewer, rollout, node, first, limit)
        return found if found is None else attrs.evolve(found, open=self.open_logs, lost=self.lost)


def activity_world(*, log_lines: int = 0) -> LoggedQueries:
    """Return the world; `log_lines`: of a long log of `web-2` in the failed rollout."""
    world = small_world()
    entries = [
        HistoryView(
            id=f"{node}:{number}", site="shop", node=node, number=number, phase="deploy", requested_by="ada",
            outcome="failure" if (node, number) == ("web-1", 12) else "success",
            detail="step check: exit code 7" if (node, number) == ("web-1", 12) else "",
            ref="refs/tags/v2.4.1" if number == 12 else "refs/tags/v2.4.0", commit=NEW if number == 12 else OLD,
            started=ago(days=2, hours=at), finished=ago(days=2, hours=at) + timedelta(seconds=75), rollout=ROLLOUT,
        )
        for at, (node, number) in enumerate(itertools.product(("web-1", "web-2"), (12, 11, 10)))
    ]  # fmt: skip
    pushes = (
        *world.push_list,
        PushView(
            id="p2", time=ago(hours=2), repo="shop/frontend", ref="refs/heads/main", kind="moved", old=OLD, new=NEW,
            pusher="grace", source="git/origin-1", commit_count=61,
            commits=tuple(
                CommitView(id=f"{n:040x}", author="Grace", message=f"Change {n}\n\nthe body") for n in range(1, 9)
            ),
        ),
        PushView(id="p3", time=ago(hours=3), repo="shop/frontend", ref="refs/heads/topic/x", kind="forced", old=OLD,
                 new=NEW, pusher="linus", source="webhook/forge"),
        PushView(id="p4", time=ago(hours=4), repo="shop/frontend", ref="refs/heads/gone", kind="deleted", old=OLD),
        PushView(id="p5", time=ago(hours=5), repo="legacy", revision=4711, projects=("trunk/app",), pusher="tim"),
    )  # fmt: skip
    log = (
        "\x1b[1m== migrate ==\x1b[0m",
        *(f"\x1b[32mok\x1b[0m   {n}: checked table items_{n}" for n in range(30)),
        "10 %\r100 %",
        "<script>alert(1)</script>",
        "check: exit code 7",
    )
    logs = {(ROLLOUT, FAILED_NODE): log}
    if log_lines:
        logs[ROLLOUT, "web-2"] = tuple(f"{n}: {'x' * (n % 90)} needle{n};" for n in range(1, log_lines + 1))
    return LoggedQueries(
        **{
            **{field.name: getattr(world, field.name) for field in attrs.fields(FixedQueries)},
            "history_list": tuple(entries),
            "push_list": pushes,
            "logs": logs,
            "notice_list": (*world.notice_list, NoticeView(id="n2", time=ago(hours=2), source="hook", text="a line")),
        }
    )


def poisoned(value: Any) -> Any:
    """Return a view, or a tuple or mapping of views, with hostile text in each field that may hold any text."""
    if isinstance(value, tuple):
        return tuple(POISON if isinstance(one, str) else poisoned(one) for one in value)
    if isinstance(value, Mapping):
        return {key: poisoned(one) for key, one in value.items()}
    if not attrs.has(type(value)):
        return value
    changed: dict[str, object] = {}
    for field in attrs.fields(type(value)):
        old = getattr(value, field.name)
        if isinstance(old, str):
            if field.name not in _KEPT:
                changed[field.name] = POISON
        else:
            changed[field.name] = poisoned(old)
    return attrs.evolve(value, **changed)


def poisoned_world() -> LoggedQueries:
    """Return the world with hostile text wherever text may be free."""
    world = activity_world()
    lists = {
        field.name: poisoned(getattr(world, field.name))
        for field in attrs.fields(FixedQueries)
        if field.name.endswith(("_list", "_nodes"))
    }
    return attrs.evolve(world, **lists, logs={key: (POISON, *lines) for key, lines in world.logs.items()})
