"""What the hook scripts run. Each script is one small file in a repository, and calls `run` alone.

Rules:

* A hook never fails a push, whatever is wrong with us or our settings: it prints one line and ends with 0. Only with
  `strict = true` it ends with an error.
* One line on standard error, control characters made visible, no traceback.
* Nothing is imported that a push does not use: an interpreter start is what a hook costs at least, and each module
  comes on top.
* `run(kind, argv, stdin)` stays as it is: scripts are copied by hand and forgotten.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from deploykit.errors import DeploykitError
from deploykit.hooking.console import print_line

__all__ = ["KINDS", "run"]

KINDS = ("git", "svn", "jenkins", "debian")


def run(kind: str, argv: Sequence[str] = (), stdin: bytes = b"") -> int:
    """Run the hook of one kind and return its exit code. Never raises.

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
        return _failure(str(error), strict=strict[0], code=error.exit_code)
    except (ImportError, SyntaxError) as error:
        where = __file__.rpartition("/deploykit/")[0]
        return _failure(f"incomplete installation in {where} ({error}): install it there again", strict=strict[0])
    except KeyboardInterrupt:
        return _failure("interrupted", strict=strict[0])
    except Exception as error:  # noqa: BLE001 - whatever is wrong with us must not break a push
        return _failure(f"{type(error).__name__}: {error}", strict=strict[0])


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
    """Open the standard descriptors that are closed: else a file of ours would get the number of one of them."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free: this one


def _failure(text: str, *, strict: bool, code: int = 1) -> int:
    """Print that nothing was queued, and why; return the exit code."""
    print_line(f"nothing queued: {text}")
    return code if strict else 0
