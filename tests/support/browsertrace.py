"""What a trace of Chromium says of a page's main thread."""

from __future__ import annotations

import json
from typing import Any, Final

#: What to record, for `Browser.start_tracing`.
CATEGORIES: Final = ("disabled-by-default-devtools.timeline",)
#: Drags the scroll bar of a log to the top (0) or the bottom (1) of what is loaded until a line is on top.
DRAG_LOG: Final = """async ([bottom, line]) => {
  const box = document.getElementById("log-lines"), range = document.getElementById("log-range");
  const top = () => Number(range.textContent.split(" ")[1].replaceAll(",", ""));
  while (bottom ? top() < line : top() > line) {
    box.scrollTop = bottom ? box.scrollHeight : 0;
    await new Promise((done) => setTimeout(done, 20));
  }
}"""


def main_thread_tasks(trace: bytes) -> list[float]:
    """Return the processor time of each task of pages' main threads, in milliseconds.

    Processor time, not the clock's: a machine that is busy with other things makes no page worse.
    """
    events: list[dict[str, Any]] = json.loads(trace)["traceEvents"]
    mains = {
        (event["pid"], event["tid"])
        for event in events
        if event.get("name") == "thread_name" and event["args"].get("name") == "CrRendererMain"
    }
    return [
        event.get("tdur", 0) / 1000
        for event in events
        if event.get("ph") == "X" and event["name"] == "RunTask" and (event["pid"], event["tid"]) in mains
    ]
