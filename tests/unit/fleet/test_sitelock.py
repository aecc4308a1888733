"""One rollout per site: the lock says who holds it, and ends with its holder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deploykit.errors import RolloutBusy, RolloutError
from deploykit.fleet.sitelock import LockHolder, SiteLock, lock_path, read_holder
from deploykit.names import SiteName

SHOP = SiteName("shop")
HOLDER = LockHolder(rollout="shop-1", by="ada", since="2026-03-01T12:00:00Z")


def test_the_error_says_who_holds_it_and_how_to_end_it(tmp_path: Path) -> None:
    with SiteLock(tmp_path, SHOP, HOLDER), pytest.raises(RolloutBusy) as caught:
        SiteLock(tmp_path, SHOP, HOLDER).__enter__()
    for part in ("shop-1 by ada", f"pid {HOLDER.pid}", HOLDER.host, "2026-03-01T12:00:00Z", "rollout abort shop-1"):
        assert part in str(caught.value)


def test_another_site_is_free(tmp_path: Path) -> None:
    with SiteLock(tmp_path, SHOP, HOLDER), SiteLock(tmp_path, SiteName("blog"), HOLDER):
        pass


def test_it_ends_with_its_holder(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from deploykit.fleet.sitelock import *; "
        "SiteLock(pathlib.Path(sys.argv[1]), 'shop', LockHolder(rollout='r', by='b', since='s')).__enter__(); "
        "print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RolloutBusy, match=f"pid {other.pid}"):
            SiteLock(tmp_path, SHOP, HOLDER).__enter__()
        other.kill()
    with SiteLock(tmp_path, SHOP, HOLDER):
        assert read_holder(lock_path(tmp_path, SHOP)) == HOLDER


@pytest.mark.parametrize("text", ["", "no json", "[]", '{"rollout": 1, "more": 2}', "\0" * 10])
def test_a_file_that_says_nothing_names_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / "shop.lock").write_text(text)
    assert read_holder(tmp_path / "shop.lock") is None


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RolloutError, match="set `rollouts`"):
        SiteLock(tmp_path / "file", SHOP, HOLDER).__enter__()


def test_a_directory_that_everybody_may_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(RolloutError, match="by everybody"):
        SiteLock(tmp_path, SHOP, HOLDER).__enter__()
