"""Fixtures of the hook tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hookworld import World, make_venv, make_world, temporary_root


@pytest.fixture(scope="session")
def hook_python() -> Iterator[Path]:
    """An interpreter with deploykit, off PATH; made once."""
    for root in temporary_root():
        yield make_venv(root / "venv")


@pytest.fixture
def world(hook_python: Path) -> Iterator[World]:
    """A world of its own for a test."""
    for root in temporary_root():
        yield make_world(root, hook_python)
