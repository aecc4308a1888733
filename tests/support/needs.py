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


def other_clock(offset: str) -> dict[str, str]:
    """Return the variables with which a program sees another wall clock, `+1h` or `-1h`, and the true monotonic one."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        missing("libfaketimeMT.so.1 (apt-get install libfaketime)")
    return {"LD_PRELOAD": str(found[0]), "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def needs_file(path: str, *, package: str) -> Path:
    """Return `path`, or say that Debian package `package` is missing."""
    if not Path(path).exists():
        missing(f"{path} (apt-get install {package})")
    return Path(path)
