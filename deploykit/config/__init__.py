"""`deploykit.toml` -> `Settings`: read, converted, checked as a whole.

`files` reads them, `merge` makes one of several, `passcodes` replaces references to secrets, `convert` makes the
classes, `explain` puts errors into words, and `crosschecks` finds what does not go together. `load` does all of it.
"""

from __future__ import annotations

from deploykit.config.files import DEFAULT_PATH, settings_files
from deploykit.config.load import load_settings, load_site, load_site_settings, locator, parse_settings

__all__ = [
    "DEFAULT_PATH",
    "load_settings",
    "load_site",
    "load_site_settings",
    "locator",
    "parse_settings",
    "settings_files",
]
