"""Fixtures for all tests, and hypothesis without a deadline: what an example takes says how busy the machine is."""

from __future__ import annotations

from hypothesis import settings

pytest_plugins = ["tests.brokers.fixtures", "tests.support.hookfixtures"]

settings.register_profile("deploykit", deadline=None)
settings.load_profile("deploykit")
