"""Run deploykit's command line as another user, started by root: `python -m tests.chaos.become UID GROUP relay …`.

Everything is imported before the user is changed: an interpreter in root's home cannot be read by others.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence

import deploykit

_PACKAGES = ("bus", "cli", "config", "daemons", "messages", "outbox", "settings", "system", "trust", "wire")


def become(uid: int, groups: Sequence[int]) -> None:
    """Import what a relay or a writer may need, then become that user, for good."""
    importlib.import_module("encodings.idna")
    for name in _PACKAGES:
        package = importlib.import_module(f"{deploykit.__name__}.{name}")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    os.setgroups(groups)
    os.setgid(uid)
    os.setuid(uid)


if __name__ == "__main__":
    become(int(sys.argv.pop(1)), [int(sys.argv.pop(1))])
    from deploykit.cli import main

    main()
