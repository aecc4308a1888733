"""Fixtures for all tests, and how far generated tests go: the same cases each time in CI, new ones everywhere else.

No example has a deadline: how long one takes says how busy the machine is.
"""

from __future__ import annotations

from hypothesis import settings

from tests.support.needs import in_ci

pytest_plugins = ["tests.brokers.fixtures", "tests.support.hookfixtures"]

settings.register_profile("explore", deadline=None)
# A run that lands or blocks a change must not hang on chance; a developer's machine and `nox -s sweep` look for more.
settings.register_profile("repeat", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("repeat" if in_ci() else "explore")
