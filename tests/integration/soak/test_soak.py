"""Some seconds of a soak: every daemon works, reloads, shows its pages, and ends. `nox -s soak` measures for longer."""

from __future__ import annotations

from pathlib import Path

from tests.soak.__main__ import SoakOptions, soak
from tests.soak.daemons import DAEMONS, available


def test_every_daemon_works_under_load_and_shows_its_pages(tmp_path: Path) -> None:
    assert set(available()) == set(DAEMONS)
    options = SoakOptions(daemons=available(), seconds=6.0, every=0.0, pause=0.2, reload=2.0)
    outcome = soak(options, tmp_path)
    assert outcome.wrong == ()
    assert {series.name for series in outcome.series} == set(DAEMONS)
    for series in outcome.series:
        assert len(series.times) >= 2
        assert min(series.values["threads"]) >= 3
        assert max(series.values["files"]) < 100
    assert all(outcome.counts.values()), outcome.counts
