"""A repository and a site of a test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.releasing import Shop


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)
