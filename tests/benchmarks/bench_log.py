"""A log of 100,000 lines in Chromium: the longest task of the page's main thread, and its memory.

`python tests/benchmarks/bench_log.py [--lines N] [--json] [--check]`

Opens the page, scrolls up by the wheel, drags the scroll bar to the first line and back to the last, and looks for a
text. Tasks are measured in processor time, which other work on the machine does not lengthen; the longest frame by the
clock stands beside it. With `--check` the exit code is 1 where a task takes longer than 100 ms.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from typing import Final

from tests.support.activityworld import ROLLOUT, activity_world
from tests.support.browser import chromium, tab
from tests.support.browsertrace import CATEGORIES, DRAG_LOG, main_thread_tasks
from tests.support.served import console_of

#: Milliseconds of the longest task.
LIMIT: Final = 100.0
_FRAMES: Final = """() => {
  let last = performance.now();
  window.worst = 0;
  const frame = (now) => {
    window.worst = Math.max(window.worst, now - last);
    last = now;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}"""


def measure(lines: int) -> dict[str, float]:
    """Return the figures of a log of so many lines."""
    with console_of(activity_world(log_lines=lines)) as served, chromium() as browser, tab(browser) as one:
        page = one.page
        browser.start_tracing(page=page, categories=[*CATEGORIES])
        page.goto(f"{served.url}/deploys/{ROLLOUT}/nodes/web-2/log")
        page.locator(".log.live").wait_for()
        page.evaluate(_FRAMES)
        page.locator("#log-lines").hover()
        for _ in range(100):
            page.mouse.wheel(0, -4000)
        page.evaluate(DRAG_LOG, [0, 1])
        page.evaluate(DRAG_LOG, [1, lines - 200])
        page.locator("#log-find input").fill(f"needle{lines - 100};")
        page.keyboard.press("Enter")
        page.locator("#log-found", has_text="line").wait_for()
        tasks = main_thread_tasks(browser.stop_tracing())
        session = page.context.new_cdp_session(page)
        heap = session.send("Runtime.getHeapUsage")["usedSize"]
        return {
            "longest task, ms": round(max(tasks), 1),
            "all tasks, s": round(sum(tasks) / 1000, 2),
            "longest frame by the clock, ms": round(float(page.evaluate("window.worst"))),
            "blocks in the page": page.locator(".block").count(),
            "heap of the script, MiB": round(heap / 2**20, 1),
        }


def main() -> int:
    """Print the figures; return the exit code."""
    parser = argparse.ArgumentParser(description="A long log in a browser.")
    parser.add_argument("--lines", type=int, default=100_000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true")
    chosen = parser.parse_args()
    figures = measure(chosen.lines)
    if chosen.json:
        print(json.dumps({"lines": chosen.lines, "python": platform.python_version(), **figures}))
    else:
        print(f"a log of {chosen.lines:,} lines, {platform.machine()}")
        for name, value in figures.items():
            print(f"  {name:32} {value:>10,}")
    return int(chosen.check and figures["longest task, ms"] > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
