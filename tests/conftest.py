"""Fixtures for all tests, and how far generated tests go: the same cases each time in CI, new ones everywhere else.

No example has a deadline: how long one takes says how busy the machine is.
"""

from __future__ import annotations

import importlib
import pkgutil
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

import deploykit
from tests.support.needs import in_ci

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling

pytest_plugins = ["tests.brokers.fixtures", "tests.support.hookfixtures"]

settings.register_profile("explore", deadline=None)
# A run that lands or blocks a change must not hang on chance; a developer's machine and `nox -s sweep` look for more.
settings.register_profile("repeat", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("repeat" if in_ci() else "explore")


def pytest_configure() -> None:
    """Let what tests start be interrupted, however they were started themselves.

    A shell starts what is to run in the background, and `nohup` anything, with SIGINT ignored, and whatever is started
    from there inherits that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # pytest rewrites our modules too, for they hold a plugin. CPython 3.11 cannot do that in two threads at once ("AST
    # constructor recursion depth mismatch"), and many are imported where they are used: so all of it is done here.
    for module in pkgutil.walk_packages(deploykit.__path__, "deploykit."):
        if module.name != "deploykit.__main__":
            importlib.import_module(module.name)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Let each file of `tests/integration` run in one process, and every other test wherever there is room.

    They share what is dear to start: browsers, brokers, fleets. Markers of xdist (`xdist_group`) have no effect here:
    its release 3.8 does not know how pytest 9.2 names a test.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            return nodeid.partition("::")[0] if nodeid.startswith("tests/integration/") else nodeid

    return ByFile(config, log)
