"""Whatever is broken, the push succeeds, and one clear line says what and where."""

from __future__ import annotations

import ast
import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.outbox import Outbox
from tests.support.hookworld import GROUP, OWNER, PUSHER, World, lines
from tests.support.needs import missing, needs


def pushed(world: World, work: Path, *, env: dict[str, str] | None = None) -> str:
    """Push a new commit: it must succeed and say exactly one line of ours, which is returned."""
    commit = world.commit(work)
    done = world.git("push", "origin", "main", cwd=work, env=env)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert world.git("ls-remote", "origin", "refs/heads/main", cwd=work).stdout.split()[0] == commit
    (line,) = lines(done)
    return line


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
        ('topics = { sourc = "/topic/x" }', "topics: sourc: unknown topic"),
        ('topics = { preset = "nope" }', "topics: preset"),
        ("timeout = -1", "timeout: expected a number of seconds"),
        ('refs = "refs/heads/*"', "refs: expected a list of texts"),
        ("a = 1\nb = 2", "and 1 more mistakes"),
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


# -- the spool ---------------------------------------------------------------------------------------------------------


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


# -- the installation --------------------------------------------------------------------------------------------------


def test_a_missing_package_is_one_line_and_the_other_hooks_still_run(world: World) -> None:
    origin = world.origin()
    work = world.clone(origin)
    copy = world.root / "venv"
    shutil.copytree(world.python.parent.parent, copy, symlinks=True)
    shutil.rmtree(next(copy.glob("lib/*/site-packages/deploykit")))
    script = origin / "hooks" / "post-receive"
    world.write(script, script.read_text().replace(str(world.python.parent.parent), str(copy)), 0o755)
    chained = world.directory("shop.git/hooks/post-receive.d")
    world.write(chained / "60-after", f"#!/bin/sh\ncat > {world.root}/work/heard\n", 0o755)
    line = pushed(world, work)
    assert f"nothing queued: no deploykit in {copy}/bin/python (No module named 'deploykit')" in line
    assert "run `deploykit hooks install` again" in line
    assert "refs/heads/main" in (world.root / "work" / "heard").read_text()


def test_an_environment_that_moved_is_found_by_the_interpreter_itself(world: World) -> None:
    origin = world.origin()
    work = world.clone(origin)
    script = origin / "hooks" / "post-receive"
    library = str(next(world.python.parent.parent.glob("lib/*/site-packages")))
    assert library in script.read_text()
    world.write(script, script.read_text().replace(library, "/nonexistent"), 0o755)
    assert "1 event queued" in pushed(world, work)


def test_an_environment_that_is_gone_is_one_line(world: World) -> None:
    """What happens to most installations some day: somebody removes the virtual environment."""
    origin = world.origin()
    work = world.clone(origin)
    script = origin / "hooks" / "post-receive"
    gone = world.root / "gone"
    world.write(script, script.read_text().replace(str(world.python.parent.parent), str(gone)), 0o755)
    line = pushed(world, work)  # git finds some python3, as most machines have one
    assert line.startswith("deploykit: nothing queued: ")
    assert "run `deploykit hooks install` again" in line
    world.settle(origin, f'python = "{world.python}"\n')
    assert "1 event queued" in pushed(world, work)
    feed = f"{'0' * 40} {'1' * 40} refs/heads/main\n".encode()
    done = world.run(script, cwd=origin, data=feed, env={"PATH": "/nonexistent"})
    said = f"deploykit: nothing queued: {gone}/bin/python is gone; run `deploykit hooks install` again"
    assert (done.returncode, done.stdout, done.stderr.splitlines()) == (0, "", [said])


def by_hand(world: World, name: str, target: Path, python: str | Path) -> Path:
    """Copy one script as it is shipped, for an interpreter that stands for the machine's python3."""
    (source,) = world.python.parent.parent.glob(f"lib/*/site-packages/deploykit/_hooks/{name}")
    text = source.read_text()
    assert text.startswith("#!/usr/bin/env python3\n")
    return world.write(target, text.replace("/usr/bin/env python3", f"{python} -I", 1), 0o755)


@pytest.mark.parametrize("place", ["file", "single quotes", "git config"])
def test_a_script_copied_by_hand_finds_the_interpreter_in_its_settings(world: World, place: str) -> None:
    origin = world.origin(install=False)
    work = world.clone(origin)
    by_hand(world, "git/post-receive", origin / "hooks" / "post-receive", _bare_python(world))
    line = pushed(world, work)
    assert "nothing queued: no deploykit in" in line
    assert "python = " in line
    if place == "git config":
        world.git("config", "deploykit.python", world.python, cwd=origin)
    else:
        quote = "'" if "single" in place else '"'
        world.settle(origin, f"python={quote}{world.python}{quote}\n")
    assert "1 event queued" in pushed(world, work)


@pytest.mark.parametrize("tool", ["pipx/venvs", "uv/tools"])
def test_a_script_copied_by_hand_finds_what_a_tool_installed_for_its_user(world: World, tool: str) -> None:
    origin = world.origin(install=False)
    work = world.clone(origin)
    by_hand(world, "git/post-receive", origin / "hooks" / "post-receive", _bare_python(world))
    place = world.directory("home") / ".local" / "share" / tool
    place.mkdir(parents=True)
    (place / "deploykit").symlink_to(world.python.parent.parent)
    assert "1 event queued" in pushed(world, work, env={"HOME": str(world.root / "home")})


def test_an_interpreter_that_has_no_deploykit_either_is_named(world: World) -> None:
    origin = world.origin(install=False, settings='python = "/usr/bin/false"\n')
    bare = _bare_python(world)
    world.settle(origin, f'python = "{bare}"\n')
    by_hand(world, "git/post-receive", origin / "hooks" / "post-receive", bare)
    work = world.clone(origin)
    assert f"no deploykit in {bare} and {bare} (" in pushed(world, work)


@pytest.mark.parametrize("kind", ["svn", "jenkins", "debian"])
def test_every_script_copied_by_hand_finds_the_interpreter_in_its_settings(world: World, kind: str) -> None:
    bare = _bare_python(world)
    where = world.directory("place")
    settings = world.write(where / "deploykit.toml", f'spool = "{world.spool}"\npython = "{world.python}"\n')
    name = {"svn": "post-commit", "jenkins": "jenkins-notify", "debian": "reprepro-incoming"}[kind]
    script = by_hand(world, f"{kind}/{name}", world.root / name, bare)
    words = {"svn": (where, "7"), "jenkins": ("--config", settings, "begin"), "debian": (f"--config={settings}",)}[kind]
    says = {"svn": "svnlook", "jenkins": "JOB_NAME is not set", "debian": "incoming, archive, reprepro not set"}[kind]
    done = world.run(script, *words)
    assert done.returncode == 0
    (line,) = lines(done)
    assert says in line


def test_the_directory_a_build_runs_in_chooses_no_interpreter(world: World) -> None:
    """Threat 34: a build's workspace holds what anybody may have committed."""
    workspace = world.directory("workspace")
    evil = world.write(workspace / "evil", f"#!/bin/sh\ntouch {workspace}/pwned\n", 0o755)
    world.write(workspace / "deploykit.toml", f'python = "{evil}"\n')
    world.directory("workspace/begin")
    world.write(workspace / "begin" / "deploykit.toml", f'python = "{evil}"\n')
    script = by_hand(world, "jenkins/jenkins-notify", world.root / "jenkins-notify", _bare_python(world))
    done = world.run(script, "begin", cwd=workspace)
    assert "no deploykit in" in lines(done)[0]
    assert not (workspace / "pwned").exists()


def _bare_python(world: World) -> Path:
    """An interpreter without deploykit."""
    where = world.root / "bare"
    subprocess.run([world.python, "-m", "venv", "--without-pip", str(where)], check=True)
    return where / "bin" / "python"


def test_a_script_copied_long_ago_works_with_the_library_of_today(world: World) -> None:
    """The first version that was handed out, kept as it was: what it calls must stay."""
    origin = world.origin(install=False)
    old = (Path(__file__).parents[2] / "data" / "hooks-v1" / "post-receive").read_text()
    text = old.replace("#!/usr/bin/env python3\n", f"#!{world.python} -I\n", 1)
    script = world.write(origin / "hooks" / "post-receive", text, 0o755)
    work = world.clone(origin)
    assert "1 event queued" in pushed(world, work)
    renewed = world.deploykit("hooks", "install", origin)
    assert (renewed.returncode, renewed.stdout) == (0, f"updated (git): {script}\n")
    assert "1 event queued" in pushed(world, work)


def test_an_old_python_says_one_line(world: World) -> None:
    """The script itself is plain enough for Python 3.6; what it needs of newer ones is found missing."""
    for source in world.python.parent.parent.glob("lib/*/site-packages/deploykit/_hooks/*/*"):
        ast.parse(source.read_text(), feature_version=(3, 6))


def test_a_library_that_is_broken_is_one_line(world: World) -> None:
    """Half an upgrade, a package that came without what it needs: whatever it is, the push stands."""
    origin = world.origin()
    work = world.clone(origin)
    copy = world.root / "venv"
    shutil.copytree(world.python.parent.parent, copy, symlinks=True)
    script = origin / "hooks" / "post-receive"
    world.write(script, script.read_text().replace(str(world.python.parent.parent), str(copy)), 0o755)
    (library,) = copy.glob("lib/*/site-packages")
    spoilt = f"nothing queued: deploykit is not whole in {library} ("
    (library / "attr").rename(library / "attr-gone")
    line = pushed(world, work)
    assert spoilt in line
    assert "No module named 'attr'): install it there again" in line
    (library / "attr-gone").rename(library / "attr")
    (library / "deploykit" / "hooking" / "git.py").write_text("this is no python\n")
    assert spoilt in pushed(world, work)
    (library / "deploykit" / "hooking" / "git.py").unlink()
    assert spoilt in pushed(world, work)


# -- git ---------------------------------------------------------------------------------------------------------------


def _git_that(world: World, does: str) -> dict[str, str]:
    where = world.directory("bin")
    world.write(where / "git", f"#!/bin/sh\n{does}\n", 0o755)
    return {"PATH": str(where)}


@pytest.mark.parametrize(
    ("does", "says"),
    [
        ("echo 'fatal: no luck today' >&2; exit 128", "git cat-file failed (128): fatal: no luck today"),
        ("exec /bin/sleep 60", "git cat-file took too long"),
        ("exit 0", "git cat-file ended too early"),
        ("kill -9 $$", "git cat-file failed (-9)"),
    ],
)
def test_a_git_that_fails_costs_the_commits_and_not_the_event(world: World, does: str, says: str) -> None:
    origin = world.origin(settings=f"timeout = {1 if 'sleep' in does else 60}\n")
    work = world.clone(origin)
    commit = world.commit(work)
    world.git("push", "origin", "main", cwd=work)
    world.empty_spool()
    feed = f"{'0' * 40} {commit} refs/heads/main\n".encode()
    done = world.run(origin / "hooks" / "post-receive", cwd=origin, data=feed, env=_git_that(world, does))
    assert done.returncode == 0
    (line,) = lines(done)
    assert "1 event queued" in line
    assert says in line
    (event,) = world.events()
    assert (event.new, event.commits) == (commit, ())


def test_no_git_on_path_is_said(world: World) -> None:
    origin = world.origin()
    feed = f"{'0' * 40} {'1' * 40} refs/heads/main\n".encode()
    env = {"PATH": "/nonexistent"}
    done = world.run(origin / "hooks" / "post-receive", cwd=origin, data=feed, env=env)
    (line,) = lines(done)
    assert "1 event queued" in line
    assert "git is not on PATH (/nonexistent)" in line


@pytest.mark.parametrize(
    "feed", [b"", b"\n\n", b"nonsense\n", b"\xff\xfe\x00", b"a b c d\n" * 3, b"0 0 refs/heads/x\n"]
)
def test_any_input_is_taken(world: World, feed: bytes) -> None:
    origin = world.origin()
    done = world.run(origin / "hooks" / "post-receive", cwd=origin, data=feed)
    assert done.returncode == 0
    (line,) = lines(done)
    assert "0 events queued" in line
    assert "Traceback" not in done.stderr


def test_nobody_listening_is_no_trouble(world: World) -> None:
    """The pusher's connection broke: the event is queued all the same."""
    origin = world.origin()
    work = world.clone(origin)
    commit = world.commit(work)
    world.git("push", "origin", "main", cwd=work)
    world.empty_spool()
    feed = f"{'0' * 40} {commit} refs/heads/main\n"
    shell = needs("sh", package="dash")
    hook = origin / "hooks" / "post-receive"
    done = world.run(shell, "-c", f"printf '{feed}' | {hook} 2>&- >&-; echo $?", cwd=origin)
    assert done.stdout.strip() == "0"
    assert [e.new for e in world.events()] == [commit]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- 2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_standard_descriptors_are_no_trouble(world: World, closed: str) -> None:
    """What the hook opens itself must not be taken for one of them: a record is no place for our line to the pusher."""
    work = world.directory("work")
    script = world.directory("bin") / "jenkins-notify"
    assert world.deploykit("hooks", "install", "--kind", "jenkins", world.root / "bin").returncode == 0
    settings = world.write(work / "hooks.toml", f'spool = "{world.spool}"\nrelay = ""\n')
    command = f"{script} --config {settings} success {closed}; echo $? > {work}/code"
    world.run(needs("sh", package="dash"), "-c", command, env={"JOB_NAME": "shop"})
    assert (work / "code").read_text().strip() == "0"
    assert [type(event).__name__ for event in world.events()] == ["BuildFinished"]
    origin = world.origin()
    world.git("clone", "--quiet", origin, work / "clone")
    commit = world.commit(work / "clone")
    world.git("push", "origin", "HEAD:main", cwd=work / "clone")
    world.empty_spool()
    feed = f"{commit} {commit} refs/heads/main\n"
    command = f"printf '{feed}' | {origin}/hooks/post-receive {closed.replace('<&-', '')}; echo $? > {work}/code"
    world.run(needs("sh", package="dash"), "-c", command, cwd=origin)
    assert (work / "code").read_text().strip() == "0"
    assert [event.new for event in world.events()] == [commit]


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


@pytest.mark.parametrize("who", ["git", "a chained hook"])
def test_what_others_say_reaches_the_pushers_terminal_in_printable_characters(world: World, who: str) -> None:
    """Threat 23: what a program printed, or a file is called, could clear the screen or pose as our line."""
    origin = world.origin()
    evil = "\x1b[2J\x07\rdeploykit: all is well"
    if who == "git":
        env = _git_that(world, f"printf 'fatal: {evil}' >&2; exit 1")
    else:
        env = {}
        place = world.directory("shop.git/hooks/post-receive.d")
        world.write(place / f"60-{evil}", "#!/bin/sh\nexit 3\n", 0o755)
    feed = b"%s %s refs/heads/\x1b[31mx\n%s %s refs/heads/main\n" % ((b"0" * 40, b"1" * 40) * 2)
    done = world.run(origin / "hooks" / "post-receive", cwd=origin, data=feed, env=env)
    assert ("failed (1): fatal: " in done.stderr) == (who == "git")
    assert ("ended with 3" in done.stderr) == (who != "git")
    assert "left out" in done.stderr
    assert [line for line in done.stderr.split("\n") if not line.isprintable()] == []


# -- the environment ---------------------------------------------------------------------------------------------------


def test_the_hooks_environment_does_not_reach_the_programs_it_starts(world: World) -> None:
    """Threat 34: only an allow-list is handed on, so that no variable can choose a library or another repository."""
    origin = world.origin()
    work = world.clone(origin)
    commit = world.commit(work)
    world.git("push", "origin", "main", cwd=work)
    seen = world.write(world.root / "seen", "", 0o666)
    git = needs("git", package="git")
    env = _git_that(world, f'/usr/bin/env > {seen}\nexec {git} "$@"') | {
        "GIT_DIR": str(origin),
        "GIT_OBJECT_DIRECTORY": "/nonexistent",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.fsmonitor",
        "GIT_CONFIG_VALUE_0": f"touch {world.root}/work/pwned",
        "GIT_TRACE": f"{world.root}/work/traced",
        "GIT_SSH_COMMAND": "false",
        "LD_LIBRARY_PATH": "/nonexistent",
        "BASH_ENV": "/nonexistent",
        "SECRET_TOKEN": "canary",
    }
    world.empty_spool()
    feed = f"{'0' * 40} {commit} refs/heads/main\n".encode()
    done = world.run(origin / "hooks" / "post-receive", cwd=world.root, data=feed, env=env)
    assert done.returncode == 0, done.stderr
    (event,) = world.events()
    assert event.commit_count == 1
    names = {line.partition("=")[0] for line in seen.read_text().splitlines()} - {"PWD", "_", "SHLVL", "OLDPWD"}
    assert names == {"PATH", "LC_ALL", "GIT_DIR", "GIT_NO_REPLACE_OBJECTS", "GIT_OPTIONAL_LOCKS", "GIT_NO_LAZY_FETCH"}
    assert not (world.root / "work" / "pwned").exists()
    assert not (world.root / "work" / "traced").exists()


def test_the_environment_cannot_choose_what_the_hook_imports(world: World) -> None:
    """Threat 34: PYTHONPATH and its kin are not looked at."""
    origin = world.origin()
    work = world.clone(origin)
    evil = world.directory("evil")
    world.write(evil / "deploykit.py", f"open('{world.root}/work/pwned', 'w')\n")
    world.write(evil / "os.py", f"open('{world.root}/work/pwned', 'w')\n")
    for script in ("sitecustomize.py", "usercustomize.py"):
        world.write(evil / script, f"open('{world.root}/work/pwned', 'w')\n")
    env = {"PYTHONPATH": str(evil), "PYTHONHOME": str(evil), "PYTHONSTARTUP": str(evil / "os.py"), "PYTHONINSPECT": "1"}
    commit = world.commit(work)
    feed = f"{'0' * 40} {commit} refs/heads/main\n".encode()
    done = world.run(origin / "hooks" / "post-receive", cwd=origin, data=feed, env=env)
    assert "1 event queued" in done.stderr
    assert not (world.root / "work" / "pwned").exists()


def test_a_relative_path_never_finds_a_program(world: World) -> None:
    """Threat 34: with `.` on PATH, a file in the repository's directory would be run as git."""
    origin = world.origin()
    work = world.clone(origin)
    commit = world.commit(work)
    world.git("push", "origin", "main", cwd=work)
    world.empty_spool()
    world.write(origin / "git", f"#!/bin/sh\ntouch {world.root}/work/pwned\n", 0o755)
    feed = f"{'0' * 40} {commit} refs/heads/main\n".encode()
    env = {"PATH": ".::/usr/local/bin:/usr/bin:/bin"}
    world.run(origin / "hooks" / "post-receive", cwd=origin, data=feed, env=env)
    assert [e.commit_count for e in world.events()] == [1]
    assert not (world.root / "work" / "pwned").exists()


# -- other hooks -------------------------------------------------------------------------------------------------------


def test_chained_hooks_run_in_order_each_with_the_whole_input_and_none_stops_another(world: World) -> None:
    origin = world.origin()
    work = world.clone(origin)
    place = world.directory("shop.git/hooks/post-receive.d")
    log = world.write(world.root / "log", "", 0o666)
    for name in ("10-mail", "40-fails", "60-after", "70-last"):
        end = "exit 3" if "fails" in name else ":"
        world.write(place / name, f'#!/bin/sh\necho "{name} $(cat | wc -l) $GIT_DIR" >> {log}\n{end}\n', 0o755)
    world.write(place / "20-not-executable", f"#!/bin/sh\necho no >> {log}\n", 0o644)
    world.write(place / ".hidden", f"#!/bin/sh\necho no >> {log}\n", 0o755)
    world.write(place / "30-no-interpreter", "#!/nonexistent/thing\n", 0o755)
    world.commit(work)
    world.git("tag", "v1", cwd=work)
    done = world.git("push", "origin", "main", "v1", cwd=work)
    assert done.returncode == 0
    assert [line.split()[:2] for line in log.read_text().splitlines()] == [
        ["10-mail", "2"],
        ["40-fails", "2"],
        ["60-after", "2"],
        ["70-last", "2"],
    ]
    said = lines(done)
    assert [line for line in said if "40-fails ended with 3" in line]
    assert [line for line in said if "30-no-interpreter did not run" in line]
    assert [line for line in said if "2 events queued" in line]


def test_a_kept_hook_without_a_first_line_runs_as_git_ran_it(world: World) -> None:
    origin = world.origin(install=False)
    log = world.write(world.root / "log", "", 0o666)
    world.write(origin / "hooks" / "post-receive", f'echo "$(cat | wc -l) $GIT_DIR" >> {log}\n', 0o755)
    work = world.clone(origin)
    for said in ("1 .\n", "1 .\n1 .\n"):
        world.commit(work)
        done = world.git("push", "origin", "main", cwd=work)
        assert log.read_text() == said
        world.deploykit("hooks", "install", "--chain", origin)
    (line,) = lines(done)
    assert "1 event queued" in line


def test_a_hook_that_reads_nothing_of_a_long_input_stops_nothing(world: World) -> None:
    origin = world.origin()
    place = world.directory("shop.git/hooks/post-receive.d")
    world.write(place / "10-deaf", "#!/bin/sh\nexit 0\n", 0o755)
    feed = f"{'0' * 40} {'1' * 40} refs/heads/main\n".encode() * 5_000
    done = world.run(origin / "hooks" / "post-receive", cwd=origin, data=feed)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert "5000 events queued" in done.stderr
