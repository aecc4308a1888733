"""Fixtures for all tests, and how far generated tests go: the same cases each time in CI, new ones everywhere else."""

from __future__ import annotations

from hypothesis import settings

from tests.support.needs import in_ci

pytest_plugins = ["tests.brokers.fixtures", "tests.support.hookfixtures"]

# A run that lands or blocks a change must not hang on chance; a developer's machine and `nox -s sweep` look for more.
settings.register_profile("ci", derandomize=True, print_blob=True)
if in_ci():
    settings.load_profile("ci")
