"""`deploykit.toml` -> `Settings`: read, converted, checked as a whole.

`load` reads, `passcodes` replaces references to secrets, `convert` makes the classes, `explain` puts errors into words,
and `crosschecks` finds what does not go together.
"""

from __future__ import annotations

from deploykit.config.load import DEFAULT_PATH, load_settings, load_site_settings, parse_settings

__all__ = ["DEFAULT_PATH", "load_settings", "load_site_settings", "parse_settings"]
