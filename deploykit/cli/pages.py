"""Where the pages are that errors and help texts name as `docs/NAME.md`: beside the code in a clone, else installed.

A wheel brings them as `share/doc/deploykit`, below the prefix it is installed to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

_PAGE = re.compile(r"(?<![\w/.-])docs/([a-z][a-z-]*\.md)\b")
_INSTALLED = Path("share", "doc", "deploykit")


def pages_directory(package: Path | None = None) -> Path | None:
    """Return the directory of the pages; None where this installation has none.

    Args:
        package: the directory of the package `deploykit`; that of this module by default.
    """
    package = package or Path(__file__).parents[1]
    return next((place for place in _places(package) if (place / "wire-format.md").is_file()), None)


def with_pages(text: str) -> str:
    """Return a text in which each `docs/NAME.md` is the path of that page on this machine, where it is here."""
    if "docs/" not in text or (directory := pages_directory()) is None:
        return text
    return _PAGE.sub(lambda found: str(page) if (page := directory / found[1]).is_file() else found[0], text)


def _places(package: Path) -> Iterator[Path]:
    yield package.parent / "docs"
    # lib/python3.11/site-packages/deploykit: the prefix is four levels above (pip --prefix and --user, too).
    yield from (parent / _INSTALLED for parent in package.parents[3:5])
    import sysconfig  # 3 ms, seldom needed

    yield Path(sysconfig.get_path("data")) / _INSTALLED
