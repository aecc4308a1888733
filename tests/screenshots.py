"""Take pictures of the console for the documentation: `python -m tests.screenshots docs/images`.

The fleet is `tests.support.consoleworld`, its clock stands still: the same pages give the same pictures.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

from tests.support.actingworld import busy_actions
from tests.support.browser import Scheme, chromium, tab
from tests.support.consoleworld import small_world
from tests.support.served import console_of


@attrs.frozen(kw_only=True)
class Picture:
    """A picture: of which page, how wide, how high; 0: as high as the page; `acts`: of a console with buttons."""

    name: str
    path: str
    width: int = 1100
    height: int = 0
    scheme: Scheme = "light"
    acts: bool = False


PICTURES: Final = (
    Picture(name="console-overview", path="/"),
    Picture(name="console-fleet-dark", path="/fleet", scheme="dark", height=460),
    Picture(name="console-deploy", path="/deploys/r-7f31"),
    Picture(name="console-log-dark", path="/deploys/r-7f31/nodes/web-1/log", scheme="dark", height=620),
    Picture(name="console-plan", path="/sites/shop/deploy?ref=v2.4.1&who=all", acts=True, height=880),
    Picture(name="console-approve-phone", path="/deploys/r-docs/approve", width=360, height=780, acts=True),
    Picture(name="console-phone-dark", path="/", width=360, height=780, scheme="dark"),
)


def take(folder: Path, names: Sequence[str] = ()) -> list[Path]:
    """Return the files that were written; all pictures where no names are given."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    with chromium() as browser:
        for picture in PICTURES:
            if names and picture.name not in names:
                continue
            with (
                console_of(small_world(), actions=busy_actions().console if picture.acts else None) as served,
                tab(browser, width=picture.width, scheme=picture.scheme, zone="UTC") as one,
            ):
                one.page.set_viewport_size({"width": picture.width, "height": picture.height or 600})
                one.page.goto(served.url + picture.path)
                one.page.locator("#stream-words", has_text="live").wait_for()
                one.page.evaluate("scrollTo(0, 0)")  # the focus may have moved it
                files.append(folder / f"{picture.name}.png")
                one.page.screenshot(path=files[-1], full_page=not picture.height)
    return files


def main() -> None:
    """Take the pictures that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", help="only these pictures")
    chosen = parser.parse_args()
    for file in take(chosen.folder, chosen.names):
        print(f"{file} ({file.stat().st_size / 1000:.0f} kB)")


if __name__ == "__main__":
    main()
