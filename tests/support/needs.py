"""What a test needs beyond Python: named when missing, skipped on a developer's machine, a failure where CI=true."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

_SBIN = ("/usr/sbin", "/sbin", "/usr/local/sbin")


def in_ci() -> bool:
    """Tell whether a missing tool is a failure here."""
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")


def missing(what: str) -> None:
    """Skip the test, or fail it in CI, naming what is missing."""
    reason = f"missing: {what}"
    if in_ci():
        pytest.fail(reason + " (CI=true: install it in .ci/run)", pytrace=False)
    pytest.skip(reason)


def needs_root(why: str) -> pytest.MarkDecorator:
    """Mark a test that only root can run: skipped on a developer's machine; in CI it runs, and fails without."""
    return pytest.mark.skipif(os.geteuid() != 0 and not in_ci(), reason=f"needs root, {why}")


def needs(program: str, *, package: str) -> Path:
    """Return the path of `program`, or say that Debian package `package` is missing."""
    found = shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", ""), *_SBIN]))
    if found is None:
        missing(f"{program} (apt-get install {package})")
        raise AssertionError("unreachable")
    return Path(found)


def needs_file(path: str, *, package: str) -> Path:
    """Return `path`, or say that Debian package `package` is missing."""
    if not Path(path).exists():
        missing(f"{path} (apt-get install {package})")
    return Path(path)
