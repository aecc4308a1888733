"""Regular expressions from settings and operators, searched in time linear in the text.

They meet texts that others choose: ref names, facts of nodes. So google-re2 reads them, which never goes back in the
text, and never `re`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from deploykit.errors import UsageError

#: Memory for one compiled expression, in bytes: enough for any list of names.
_MOST_MEMORY = 1 << 20


@lru_cache(maxsize=256)
def compile_regex(text: str) -> Callable[[str], bool]:
    """Return what tells whether an expression is found anywhere in a text.

    Raises:
        UsageError: google-re2 is not installed, or does not accept the expression.
    """
    try:
        import re2
    except ImportError:
        raise UsageError("a regular expression needs the package google-re2", "pip install deploykit[re2]") from None
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MOST_MEMORY
    options.never_capture = True  # finding groups would take time, and nobody asks for them
    try:
        compiled = re2.compile(text, options=options)
    except re2.error as error:
        why = error.args[0] if error.args else ""
        shown = why.decode("utf-8", "replace") if isinstance(why, bytes) else str(why)
        raise UsageError(
            f"{text!a} is not accepted by google-re2: {shown}", "it knows no lookaround and no backreferences"
        ) from None
    except UnicodeEncodeError:
        raise UsageError(f"{text!a} is not a regular expression: half of a surrogate pair") from None

    def found(name: str) -> bool:
        return compiled.search(name.encode("utf-8", "replace")) is not None

    return found
