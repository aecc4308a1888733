"""An outbox of a test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.outbox import Outbox
from tests.support.spools import Clocks


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    box = Outbox(tmp_path / "spool")
    yield box
    box.close()


@pytest.fixture
def spool(outbox: Outbox) -> Path:
    return Path(outbox.path)


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)
