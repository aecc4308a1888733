"""The original's `ignore_refs`: a regular expression for refs, searched in time linear in the name (`system/regex.py`).

It comes from settings and meets names that anybody who pushes may choose.
"""

from __future__ import annotations

from collections.abc import Callable

from deploykit.errors import SettingsError, UsageError
from deploykit.system.regex import compile_regex


def compile_ref_pattern(text: str) -> Callable[[str], bool]:
    """Return what tells whether an expression is found anywhere in a name; an empty one is found nowhere.

    Raises:
        SettingsError: google-re2 is not installed, or does not accept the expression.
    """
    if not text:
        return lambda _name: False
    try:
        return compile_regex(text)
    except UsageError as error:
        raise SettingsError(error.problem, f"{error.remedy}, or use globs in ignore") from None
