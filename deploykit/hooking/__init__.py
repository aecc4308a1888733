"""What the hook scripts run. Each script is one small file in somebody's repository; all it knows is `run`.

Rules:

* A hook never fails a push, whatever is wrong with us or our settings: it prints one line and ends with 0. Only
  `strict = true` makes trouble an error.
* One line on standard error, control characters made visible, no traceback.
* Nothing is imported that a push does not use: an interpreter start is what a hook costs at least, and each module
  comes on top.
* `run(kind, argv, stdin)` stays as it is: scripts are copied by hand and forgotten.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from deploykit.errors import DeploykitError

__all__ = ["KINDS", "run", "say"]

KINDS = ("git", "svn", "jenkins", "debian")


def run(kind: str, argv: Sequence[str] = (), stdin: bytes = b"") -> int:
    """Do what a hook script does, and return its exit code. Never raises.

    Args:
        kind: one of `KINDS`.
        argv: the script's arguments, without its own name.
        stdin: what the script read.
    """
    strict = [False]
    try:
        _open_standard()
        return _act(kind)(argv, stdin, strict)
    except DeploykitError as error:
        return trouble(str(error), strict=strict[0], code=error.exit_code)
    except (ImportError, SyntaxError) as error:
        where = __file__.rpartition("/deploykit/")[0]
        return trouble(f"deploykit is not whole in {where} ({error}): install it there again", strict=strict[0])
    except KeyboardInterrupt:
        return trouble("interrupted", strict=strict[0])
    except Exception as error:  # noqa: BLE001 - whatever is wrong with us must not break a push
        return trouble(f"{type(error).__name__}: {error}", strict=strict[0])


def _act(kind: str) -> Callable[[Sequence[str], bytes, list[bool]], int]:
    match kind:
        case "git":
            from deploykit.hooking import git

            return git.main
        case "svn":
            from deploykit.hooking import svn

            return svn.main
        case "jenkins":
            from deploykit.hooking import jenkins

            return jenkins.main
        case _:
            from deploykit.hooking import debian

            return debian.main


def _open_standard() -> None:
    """Open what is closed of the standard descriptors: what we open ourselves must not be taken for one of them."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free: this one


def trouble(text: str, *, strict: bool, code: int = 1) -> int:
    """Say that nothing was queued and why; return the exit code."""
    say(f"nothing queued: {text}")
    return code if strict else 0


def say(text: str) -> None:
    """Print one line to the person who pushes. Nobody to read it is no trouble."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in text)
    try:
        os.write(2, f"deploykit: {line}\n".encode("utf-8", "replace"))
    except OSError:
        return
