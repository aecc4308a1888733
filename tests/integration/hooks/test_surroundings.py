"""Whatever git, a terminal, the environment and other hooks do, the push succeeds."""

from __future__ import annotations

import pytest

from tests.support.hookworld import World, lines
from tests.support.needs import needs

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
