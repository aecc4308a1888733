"""Whatever is broken about the spool, the push succeeds, and one clear line says what and where."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.outbox import Outbox
from tests.support.hookpush import pushed
from tests.support.hookworld import GROUP, OWNER, PUSHER, World
from tests.support.needs import missing


@contextlib.contextmanager
def small_disk(where: Path, options: str) -> Iterator[Path]:
    """A tmpfs of its own."""
    if os.geteuid() != 0:
        missing("root (to mount a tmpfs)")
    where.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(where)], capture_output=True, text=True)
    if done.returncode != 0:
        missing(f"the right to mount a tmpfs ({done.stderr.strip()})")
    try:
        yield where
    finally:
        subprocess.run(["umount", str(where)], check=True)


@pytest.mark.parametrize("options", ["size=64k", "size=1m,nr_inodes=5"])
def test_a_full_spool(world: World, options: str) -> None:
    origin = world.origin()
    work = world.clone(origin)
    with small_disk(world.root / "small", options) as disk:
        spool = disk / "spool"
        Outbox(spool)
        for path in (spool, *spool.iterdir()):
            os.chown(path, OWNER, GROUP)
            path.chmod(0o3770)
        world.write(origin / "deploykit.toml", f'spool = "{spool}"\nrelay = ""\n')
        if "inodes" not in options:
            with contextlib.suppress(OSError), (disk / "filler").open("wb") as file:
                file.write(b"x" * 100_000)
        else:
            with contextlib.suppress(OSError):
                (disk / "one").touch()
                (disk / "two").touch()
        line = pushed(world, work)
        assert f"nothing queued: cannot write to spool {spool}: No space left on device" in line
        assert "free space or inodes" in line
        assert not list(spool.glob("*.rec"))
        assert not list(spool.glob(".tmp*"))


def test_a_spool_the_pusher_may_not_write_to(world: World) -> None:
    if not world.is_root:
        missing("root, to become other users")
    origin = world.origin()
    work = world.clone(origin)
    os.chown(world.spool, OWNER, OWNER)
    world.spool.chmod(0o3770)
    line = pushed(world, work)
    assert f"nothing queued: cannot open spool {world.spool}: Permission denied" in line
    assert "add this user to the group of the spool" in line


def test_a_spool_that_is_too_open_is_refused(world: World) -> None:
    """Threat 27: others could read what is queued."""
    origin = world.origin()
    work = world.clone(origin)
    world.spool.chmod(0o3777)
    assert f"nothing queued: spool {world.spool} has mode 3777, which is too open" in pushed(world, work)


def test_records_belong_to_the_group_and_not_to_the_world(world: World) -> None:
    work = world.clone(world.origin())
    pushed(world, work)
    (record,) = world.spool.glob("*.rec")
    assert record.stat().st_mode & 0o777 == 0o640
    if world.is_root:
        assert (record.stat().st_uid, record.stat().st_gid) == (PUSHER, GROUP)
