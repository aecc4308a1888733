"""Old names of sites to ours, and old paths. Pure.

A name that ours does not allow is changed where that does no harm, or lost; it is never used as it stands.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from deploykit.config.migrate.oldtable import OldTable, is_clean
from deploykit.errors import InvalidName
from deploykit.names import SiteName, parse_site_name

_FOREIGN = re.compile(r"[^A-Za-z0-9_.-]+").sub


def site_name_of(text: str) -> SiteName:
    """Return the name of a site, what is not allowed in one replaced by a dash.

    >>> site_name_of("Example site (live)")
    'Example-site-live'

    Raises:
        InvalidName: nothing of it can stand in a name, or it is `..`.
    """
    try:
        return parse_site_name(text)
    except InvalidName:
        if ".." in text or not is_clean(text):
            raise
        return parse_site_name(_FOREIGN("-", text).strip("-."))


def absolute_path(table: OldTable, key: str) -> str | None:
    """Return an absolute path without `..`; another text is lost."""
    text = table.text(key)
    if text is None:
        return None
    path = PurePosixPath(text)
    if not path.is_absolute() or ".." in path.parts or not path.name:
        table.lose(key, "expected an absolute path without .., and not /: set it by hand")
        return None
    return str(path)


__all__ = ["absolute_path", "site_name_of"]
