"""What must hold of a site after a process was killed, or the power cut: for the sweeps of `killsweep`."""

from __future__ import annotations

import json

import pytest

from deploykit.release import Runner, Site
from deploykit.trees import compare
from tests.support.killsweep import Report, Run


def assert_whole(site: Site) -> None:
    """Assert what must be true at every instant: current points at a release that verifies."""
    link = site.current_link
    if not link.is_symlink():
        assert not link.exists()
        return
    name = site.live_name()
    assert name
    assert link.is_dir(), f"current points at {link.readlink()}, which is not there"
    assert not compare(site.manifest(name), site.release_path(name), paranoid=True)


def assert_nothing_left(runner: Runner) -> None:
    """Assert that a start leaves nothing of what was cut off."""
    runner.recover()
    path = runner.site.path
    private = path / ".deploykit"
    assert not (private / "journal").exists()
    assert list((private / "building").iterdir()) == []
    assert list((private / "trash").iterdir()) == []
    present = {r.name for r in runner.releases() if r.present}
    assert {p.name for p in (path / "releases").iterdir()} == present
    assert {p.stem for p in (private / "manifests").iterdir() if p.suffix == ".manifest"} == present


def answer_to(site: Site, request: str) -> str:
    """Assert that a request has exactly one final outcome on record, and return it."""
    final = [o.outcome for o in site.history() if o.request == request and o.outcome != "interrupted"]
    assert len(final) == 1, final
    return final[0]


def outcome_said(run: Run) -> str:
    """Return the outcome that a run reported; empty where it was cut off before."""
    lines = [line for line in run.stdout.splitlines() if line.startswith("{")]
    return str(json.loads(lines[-1])["outcome"]) if lines else ""


def show(report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    """Print what a sweep found, and each point it was disturbed at."""
    with capsys.disabled():
        print(report)
        for point in report.hit:
            print(f"  at {point.call}#{point.nth} {point.kind}")


__all__ = ["answer_to", "assert_nothing_left", "assert_whole", "outcome_said", "show"]
