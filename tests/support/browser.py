"""Debian's Chromium, driven by playwright: one browser for a test process, a fresh profile for each test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import attrs

from tests.support.needs import missing

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

#: Widths of a phone, a tablet and a desk; the height of each.
WIDTHS: Final = {320: 640, 768: 1024, 1280: 860}
_PATHS: Final = ("/usr/bin/chromium", "/usr/bin/chromium-browser")

Scheme = Literal["light", "dark"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Chromium; skip the test where it is missing, or fail it in CI."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright (pip install playwright)")
    path = next((path for path in _PATHS if Path(path).exists()), None)
    if path is None:
        missing("Chromium (apt-get install chromium)")
    with sync_playwright() as playwright:
        # Without its sandbox only as root, where it cannot start with one.
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=path, args=[*flags, "--disable-dev-shm-usage"])
        try:
            yield browser
        finally:
            browser.close()


@attrs.frozen(kw_only=True)
class Tab:
    """A page in a fresh profile.

    Args:
        requests: the addresses of all requests.
        problems: what the browser complained about: uncaught errors, blocked by policy, failed loads.
    """

    page: Page
    requests: list[str] = attrs.field(factory=list)
    problems: list[str] = attrs.field(factory=list)


@contextmanager
def tab(
    browser: Browser, *, width: int = 1280, scheme: Scheme = "light", script: bool = True, zone: str = "Europe/Berlin"
) -> Iterator[Tab]:
    """Open a tab; its clock's zone is `zone`."""
    context = browser.new_context(
        viewport={"width": width, "height": WIDTHS.get(width, 860)},
        color_scheme=scheme,
        java_script_enabled=script,
        timezone_id=zone,
        locale="en-GB",
        reduced_motion="reduce",
    )
    context.set_default_timeout(60_000)  # for what must come, on a busy machine, too
    try:
        opened = Tab(page=context.new_page())
        opened.page.on("request", lambda request: opened.requests.append(request.url))
        opened.page.on("pageerror", lambda error: opened.problems.append(f"error: {error}"))
        opened.page.on(
            "console",
            lambda message: opened.problems.append(message.text) if message.type in ("error", "warning") else None,
        )
        yield opened
    finally:
        context.close()


def serious_findings(page: Page) -> list[str]:
    """Return what axe calls serious or critical, one line each."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page)
    return [
        f"{one['id']} ({one['impact']}): {one['help']}: {[node['target'] for node in one['nodes']][:4]}"
        for one in found.response["violations"]
        if one["impact"] in ("serious", "critical")
    ]
