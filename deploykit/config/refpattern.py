"""The original's `ignore_refs`: a regular expression for refs, searched in time linear in the name.

It comes from settings and meets names that anybody who pushes may choose. So it is read by google-re2, which never goes
back in the text, and never by `re`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from deploykit.errors import SettingsError

#: Memory for one compiled expression, in bytes: enough for any list of branch names.
_MOST_MEMORY = 1 << 20


@lru_cache(maxsize=256)
def compile_ref_pattern(text: str) -> Callable[[str], bool]:
    """Return what tells whether an expression is found anywhere in a name; an empty one is found nowhere.

    Raises:
        SettingsError: google-re2 is not installed, or does not accept the expression.
    """
    if not text:
        return lambda _name: False
    try:
        import re2
    except ImportError:
        raise SettingsError(
            "needs the package google-re2", "pip install deploykit[re2], or use globs in ignore"
        ) from None
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MOST_MEMORY
    try:
        compiled = re2.compile(text, options=options)
    except re2.error as error:
        why = error.args[0] if error.args else ""
        shown = why.decode("utf-8", "replace") if isinstance(why, bytes) else str(why)
        raise SettingsError(
            f"{text!a} is not accepted by google-re2: {shown}", "it knows no lookaround and no backreferences"
        ) from None

    def found(name: str) -> bool:
        return compiled.search(name) is not None

    return found
