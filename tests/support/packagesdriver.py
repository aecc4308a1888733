"""The packages daemon as a process of its own, with the package manager of a test: `ROOT ADDRESS TOPIC`."""

from __future__ import annotations

import sys
from pathlib import Path

from deploykit.daemons.packages.daemon import PackagesDaemon
from deploykit.daemons.service import lifecycle
from tests.support.packagesworld import DirectoryManager, packages_settings


def main() -> None:
    """Run it until TERM, as `deploykit packages` does."""
    root, address, topic = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    manager = DirectoryManager(root / "manager")
    lifecycle.serve_one(
        "packages",
        lambda: packages_settings(root, address, topic=topic),
        lambda settings, metrics: PackagesDaemon(settings, metrics=metrics, manager=manager),
        on_ready=lambda name: print(f"ready: {name}", flush=True),
    )


if __name__ == "__main__":
    main()
