"""The site's own memory: whole or refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deploykit.errors import ReleaseError
from deploykit.release.model import Operation, Release, StepRecord
from deploykit.release.site import Site, release_name
from deploykit.release.state import SiteRecord, load_state, load_steps, save_state, save_steps


def _release(seq: int, **more: object) -> Release:
    return Release(seq=seq, name=f"n{seq}", ref="r", tag="t", commit="c", tree="t", status="good", **more)  # type: ignore[arg-type]


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    state = SiteRecord().with_release(_release(2)).with_release(_release(1, pinned=True))
    state = state.with_operation(Operation(number=7, phase="deploy", release="n1", outcome="success"))
    save_state(tmp_path / "s", state)
    assert load_state(tmp_path / "s") == state
    assert [r.seq for r in state.releases] == [1, 2]
    assert (state.next_seq, state.next_operation) == (3, 8)
    assert load_state(tmp_path / "none") == SiteRecord()


def test_numbers_are_never_used_twice_even_when_the_last_release_is_forgotten() -> None:
    state = SiteRecord()
    for seq in range(1, 500):
        state = state.with_release(_release(seq, present=seq == 3)).trimmed()
    assert state.next_seq == 500
    assert len(state.releases) <= 200
    assert state.get("n3") is not None, "what is on disk is never forgotten"


def test_the_last_operations_are_kept() -> None:
    state = SiteRecord()
    for number in range(1, 500):
        state = state.with_operation(Operation(number=number, phase="deploy", release="x")).trimmed()
    assert [o.number for o in state.operations] == list(range(300, 500))
    assert state.next_operation == 500


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"[" * 100_000,
        b"{}",
        b'{"format":2}',
        b'{"format":1}',
        b'{"format":1,"releases":[{}],"operations":[],"next_seq":1,"next_operation":1}',
        b'{"format":1,"releases":[],"operations":[{"x":1}],"next_seq":1,"next_operation":1}',
    ],
)
def test_a_damaged_or_foreign_state_is_refused_with_a_way_out(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s").write_bytes(content)
    with pytest.raises(ReleaseError) as caught:
        load_state(tmp_path / "s")
    assert caught.value.remedy


def test_a_pipe_in_the_place_of_the_state_is_damage_and_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "s")
    with pytest.raises(ReleaseError, match="damaged"):
        load_state(tmp_path / "s")
    with pytest.raises(ReleaseError, match="damaged"):
        load_steps(tmp_path / "s")


def test_steps_are_kept_with_their_output(tmp_path: Path) -> None:
    steps = (StepRecord(name="pre-deploy", outcome="failed", exit_code=2, seconds=1.5, output="ünï\x1b[2J\n"),)
    save_steps(tmp_path / "1.json", Operation(number=1, phase="deploy", release="x"), steps)
    assert load_steps(tmp_path / "1.json") == steps
    assert load_steps(tmp_path / "2.json") == ()


def test_threat_11_release_names_are_one_safe_component_each() -> None:
    tags = ["a/b", "a_b", "..", "-x", "v1;id", "\u202e", "x" * 500, "A", "a", "a%2Fb"]
    names = [release_name(seq, tag, "c" * 40) for seq, tag in enumerate(tags)]
    assert len(set(names)) == len(tags)
    for name in names:
        assert name.isascii()
        assert "/" not in name
        assert len(name) <= 255
        assert name[0].isdigit()


def test_current_that_points_outside_the_releases_is_not_a_release(tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    site.releases_dir.mkdir(parents=True)
    for target, name in [
        ("releases/x", "x"),
        (str(site.releases_dir / "x"), "x"),
        ("./releases/../releases/x", "x"),
        ("elsewhere", ""),
        ("releases", ""),
        ("releases/x/y", ""),
        ("../site/releases/x", "x"),
        ("releases/..", ""),
    ]:
        site.current_link.unlink(missing_ok=True)
        site.current_link.symlink_to(target)
        assert site.live_name() == name, target
