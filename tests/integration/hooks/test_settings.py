"""Whatever is broken in the settings, the push succeeds, and one clear line says what and where."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.hookpush import pushed
from tests.support.hookworld import OWNER, World, lines
from tests.support.needs import missing

# -- settings ----------------------------------------------------------------------------------------------------------


def test_without_any_settings_it_queues_in_a_spool_of_the_users_own_and_says_where(world: World) -> None:
    origin = world.origin()
    (origin / "deploykit.toml").unlink()
    work = world.clone(origin)
    state = world.directory("state")
    line = pushed(world, work, env={"XDG_STATE_HOME": str(state)})
    spool = state / "deploykit" / "spool"
    system = Path("/var/spool/deploykit")
    if not os.access(system, os.W_OK):
        assert f"1 event queued in {spool}" in line
        assert "no relay is at work" in line
        assert [e.ref for e in world.events(spool)] == ["refs/heads/main"]
        assert spool.stat().st_mode & 0o777 == 0o700


def test_without_settings_or_home_it_says_what_it_cannot_do(world: World) -> None:
    origin = world.origin()
    (origin / "deploykit.toml").unlink()
    work = world.clone(origin)
    line = pushed(world, work, env={"HOME": "/nonexistent"})
    assert "queued in /" in line or "nothing queued: cannot create spool /nonexistent" in line


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("spool = [", "deploykit.toml is not TOML"),
        ('spol = "/x"', "spol: unknown setting"),
        ('spool = "relative"', "spool: expected an absolute path"),
        ("strict = 7", "strict: expected true or false"),
        ('repo = "../x"', "repo: not a repository name"),
        ('topics = { sourc = "/topic/x" }', "topics.sourc: unknown topic"),
        ('topics = { preset = "nope" }', "topics.preset"),
        ("timeout = -1", "timeout: expected a number of seconds"),
        ('refs = "refs/heads/*"', "refs: expected a list of texts"),
        ("a = 1\nb = 2", "and 1 more problems"),
    ],
)
def test_broken_settings_are_named_with_file_and_key(world: World, text: str, says: str) -> None:
    origin = world.origin()
    work = world.clone(origin)
    world.write(origin / "deploykit.toml", text)
    line = pushed(world, work)
    assert line.startswith("deploykit: nothing queued: ")
    assert str(origin / "deploykit.toml") in line
    assert says in line


def test_settings_the_pusher_cannot_read(world: World) -> None:
    if not world.is_root:
        missing("root, to become other users")
    origin = world.origin()
    work = world.clone(origin)
    (origin / "deploykit.toml").chmod(0o600)
    os.chown(origin / "deploykit.toml", OWNER, OWNER)
    assert f"nothing queued: cannot read {origin}/deploykit.toml: Permission denied" in pushed(world, work)


def test_strict_makes_trouble_an_error_and_the_push_stands_all_the_same(world: World) -> None:
    origin = world.origin(settings="strict = true\n")
    work = world.clone(origin)
    assert "1 event queued" in pushed(world, work)
    world.write(origin / "deploykit.toml", 'strict = true\nspool = "/proc/none"\nrelay = ""\n')
    assert "nothing queued: cannot create spool /proc/none" in pushed(world, work)
    feed = f"{'0' * 40} {'1' * 40} refs/heads/main\n".encode()
    assert world.run(origin / "hooks" / "post-receive", cwd=origin, data=feed).returncode == 1


# -- settings that block ----------------------------------------------------------------------------------------------


def test_a_settings_file_that_nobody_writes_to_holds_no_push(world: World) -> None:
    """Whoever may write to the repository's directory could else let every push into it hang."""
    origin = world.origin()
    work = world.clone(origin)
    (origin / "deploykit.toml").unlink()
    os.mkfifo(origin / "deploykit.toml")
    (origin / "deploykit.toml").chmod(0o666)
    assert f"nothing queued: cannot read {origin}/deploykit.toml: not a plain file" in pushed(world, work)
    (origin / "deploykit.toml").unlink()
    (origin / "deploykit.toml").symlink_to("/dev/zero")
    assert f"nothing queued: cannot read {origin}/deploykit.toml: not a plain file" in pushed(world, work)


def test_a_git_that_hangs_on_its_own_settings_holds_no_push(world: World) -> None:
    origin = world.origin(settings="timeout = 1\n")
    home = world.directory("home")
    os.mkfifo(home / ".gitconfig")
    (home / ".gitconfig").chmod(0o666)
    feed = f"{'0' * 40} {'1' * 40} refs/heads/main\n".encode()
    done = world.run(origin / "hooks" / "post-receive", cwd=origin, data=feed, env={"HOME": str(home)}, timeout=60)
    (line,) = lines(done)
    assert "1 event queued" in line
    assert "git cat-file took too long" in line
