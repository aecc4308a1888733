"""What docs/console.md and docs/console-actions.md say of the pages is so: addresses, states, keys, pictures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from starlette.routing import Route

from deploykit.web.pages.assets import assets
from deploykit.web.pages.routes import routes
from deploykit.web.pages.words import shown_state
from deploykit.web.projection.views import SiteStanding
from tests.screenshots import PICTURES

DOCS = Path(__file__).parents[4] / "docs"
TEXT = (DOCS / "console.md").read_text() + (DOCS / "console-actions.md").read_text()


def test_every_page_is_listed() -> None:
    patterns = [route.path for route in routes() if isinstance(route, Route)]
    assert len(patterns) > 15
    listed = set(re.findall(r"`(/[^`?]*)(?:\?[^`]*)?`", TEXT))
    shown = {re.sub(r"\{(\w+)(?::\w+)?\}", lambda name: name[1].upper(), pattern) for pattern in patterns}
    known = {re.sub(r"/ID\b", "/ROLLOUT", address) for address in listed}
    missing = {re.sub(r"/(ID|ROLLOUT|DEPLOY)\b", "/ROLLOUT", address) for address in shown} - known
    # Files, what people type for the fleet, and the plain text of a log are no pages of their own.
    assert {one for one in missing if not re.search(r"^/static/|^/sites$|/log/.|\.txt$|/raw$|/text$", one)} == set()


def test_every_state_of_a_site_is_explained() -> None:
    for state in get_args(SiteStanding):
        assert re.search(rf"^\|[^|]*\b{shown_state(state).label}\b[^|]*\|", TEXT, re.MULTILINE), state


def test_every_key_is_listed() -> None:
    script = assets()["console.mjs"].content.decode()
    keys = re.search(r"const KEYS = \{(.*?)\n\};", script, re.DOTALL)
    assert keys is not None
    names = re.findall(r'^  (?:"(.)"|(\w+)):', keys[1], re.MULTILINE)
    assert len(names) == 8
    for name in names:
        assert f"`{''.join(name)}`" in TEXT


def test_every_picture_is_taken_by_the_session_and_every_one_that_is_taken_is_here() -> None:
    taken = {f"{picture.name}.png" for picture in PICTURES}
    assert {file.name for file in (DOCS / "images").glob("console-*.png")} == taken
    for file in DOCS.glob("*.md"):
        assert set(re.findall(r"\(images/(console-[^)]*)\)", file.read_text())) <= taken
