"""Subversion's post-commit hook on real commits, which run it in an empty environment."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest

from deploykit.hooking.svn import changed_dirs, fitting, parse_date, parse_info
from deploykit.messages import RevisionCommitted
from deploykit.messages.source import COMMIT_TEXT, DIR_TEXT, MAX_DIRS, NAME_TEXT
from deploykit.names import RepoName
from deploykit.wire import decode, encode
from tests.support.hookworld import World, lines
from tests.support.needs import needs


class Svn:
    """A repository of the pusher's with the hook, and its address."""

    def __init__(self, world: World, settings: str = "", *, install: bool = True, name: str = "web") -> None:
        self.world = world
        self.path = world.directory(name)
        self.url = f"file://{self.path}"
        done = world.run(needs("svnadmin", package="subversion"), "create", self.path, env={"PATH": "/usr/bin:/bin"})
        assert done.returncode == 0, done.stderr
        world.settle(self.path, settings)
        if install:
            installed = world.deploykit("hooks", "install", self.path)
            assert installed.returncode == 0, installed.stderr

    def svn(self, *words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run svn as the pusher, the locale UTF-8 so that svn takes what we type; the hook gets none."""
        home = self.world.root / "svn-home"
        if not home.exists():
            self.world.directory("svn-home")
        env = {"LC_ALL": "C.UTF-8", "HOME": str(home), "PATH": "/usr/bin:/bin"}
        done = self.world.run(needs("svn", package="subversion"), "--non-interactive", *words, env=env)
        assert not check or done.returncode == 0, done.stderr
        return done

    def mkdir(self, *paths: str, message: str = "dirs", user: str = "ada") -> None:
        """Make directories in one commit."""
        self.svn("mkdir", "--parents", "--username", user, "-m", message, *(f"{self.url}/{p}" for p in paths))

    def checkout(self) -> Path:
        """Check everything out."""
        work = self.world.directory("checkout")
        self.svn("checkout", "-q", self.url, work)
        return work

    def last(self) -> RevisionCommitted:
        """The last event."""
        event = self.world.events()[-1]
        assert isinstance(event, RevisionCommitted)
        return event

    def dirs_changed(self, revision: int) -> Sequence[str]:
        """What svnlook says."""
        done = self.world.run(
            needs("svnlook", package="subversion"),
            "dirs-changed",
            "-r",
            str(revision),
            self.path,
            env={"LC_ALL": "C.UTF-8"},
        )
        return done.stdout.splitlines()


def test_a_commit_is_told_with_author_date_log_and_dirs(world: World) -> None:
    svn = Svn(world)
    svn.mkdir("trunk/src", message="Grüße 🎉\n\nund mehr: viel\n", user="jörg")
    event = svn.last()
    assert (event.repo, event.revision, event.author, event.log) == ("web", 1, "jörg", "Grüße 🎉\n\nund mehr: viel")
    assert event.committed is not None
    assert abs(datetime.now(UTC) - event.committed) < timedelta(minutes=5)
    assert list(event.dirs) == svn.dirs_changed(1)
    assert event.dir_count == len(event.dirs)
    assert event.source.startswith("svn/")
    assert event.correlation_id == event.id


def test_all_projects_of_a_commit_are_told_whatever_was_done_to_them(world: World) -> None:
    svn = Svn(world)
    svn.mkdir("a/trunk", "b/trunk", "group/c/tags", "group/c/trunk", "d/branches/x", "loose/dir")
    assert set(svn.last().projects) == {"a", "b", "c", "d"}
    work = svn.checkout()
    (work / "a/trunk/file").write_text("1")
    (work / "d/branches/x/deep").mkdir()
    (work / "d/branches/x/deep/file").write_text("1")
    svn.svn("add", "-q", work / "a/trunk/file", work / "d/branches/x/deep")
    svn.svn("commit", "-q", "-m", "files", work)
    assert set(svn.last().projects) == {"a", "d"}
    svn.svn("copy", "-q", "-m", "a release", f"{svn.url}/group/c/trunk", f"{svn.url}/group/c/tags/1.0")
    assert svn.last().projects == ("c",)
    svn.svn("rm", "-q", "-m", "gone", f"{svn.url}/b/trunk")
    assert svn.last().projects == ("b",)
    assert [e.revision for e in world.events()] == [1, 2, 3, 4]


def test_projects_that_come_or_go_with_a_directory_above_them_are_told(world: World) -> None:
    """svnlook tells of `a/` alone, and not of the `a/trunk/` in it."""
    svn = Svn(world)
    svn.mkdir("a/trunk", "-g/b@1/trunk", "-g/inner/c/tags", "-g/loose", "loose/dir", "two/a/trunk", "two/b/trunk")
    svn.svn("copy", "-q", "-m", "copied", f"{svn.url}/a", f"{svn.url}/a2")
    assert svn.last().projects == ("a2",)
    svn.svn("move", "-q", "-m", "renamed", f"{svn.url}/a2", f"{svn.url}/z")
    assert set(svn.last().projects) == {"a2", "z"}
    svn.svn("rm", "-q", "-m", "a group gone", f"{svn.url}/-g")
    assert set(svn.last().projects) == {"b@1", "c"}
    svn.svn("rm", "-q", "-m", "no project", f"{svn.url}/loose")
    assert svn.last().projects == ()
    work = svn.checkout()
    svn.svn("copy", "-q", work / "two", work / "changed")
    (work / "changed/a/trunk/file").write_text("1")
    svn.svn("add", "-q", work / "changed/a/trunk/file")
    svn.svn("commit", "-q", "-m", "copied and changed", work)
    assert set(svn.last().projects) == {"a", "b"}


def test_a_revision_of_many_loose_directories_says_that_it_was_not_looked_into_all(world: World) -> None:
    svn = Svn(world)
    svn.mkdir(*(f"loose/{n}" for n in range(101)), "zoo/trunk", "b/trunk")
    assert set(svn.last().projects) == {"zoo", "b"}
    work = svn.checkout()
    svn.svn("rm", "-q", work / "loose", work / "b/trunk")
    svn.svn("commit", "-q", "-m", "gone", work)
    assert svn.last().projects == ("b",)
    done = world.run(svn.path / "hooks" / "post-commit", svn.path, "2", "1-2")
    (line,) = lines(done)
    assert "; projects may be missing: more than 100 directories outside any project were copied or deleted;" in line


def test_another_layout_is_told_by_the_settings(world: World) -> None:
    svn = Svn(world, 'trunk = ["Stamm", "main"]\nbranches = ["Zweige"]\ntags = []\n')
    svn.mkdir("a/Stamm", "b/Zweige/x", "c/main", "d/trunk")
    assert set(svn.last().projects) == {"a", "b", "c"}


@pytest.mark.parametrize(
    "name",
    [
        "with space",
        "ümläut 🎉",
        "quo'te\"s",
        "$(touch pwned)",
        "-x",
        "a;b",
        "trunk/{U+00DF}",
        "back\\slash",
        "per%cent",
    ],
)
def test_odd_and_hostile_paths_are_told_as_they_are(world: World, name: str) -> None:
    """Threat 7: a path reaches no shell."""
    svn = Svn(world)
    work = svn.checkout()
    (work / "p" / "trunk" / name).mkdir(parents=True)
    (work / "p" / "trunk" / name / "file@2").write_text("x")
    svn.svn("add", "-q", work / "p")
    svn.svn("commit", "-q", "-m", "odd", work)
    event = svn.last()
    assert f"p/trunk/{name}/" in event.dirs
    assert list(event.dirs) == svn.dirs_changed(1)
    assert event.projects == ("p",)
    assert not list(world.root.rglob("pwned"))


def test_a_log_with_everything_in_it_breaks_no_line(world: World) -> None:
    """Threats 18 and 23: the log reaches a header line and a terminal only as printable text."""
    svn = Svn(world)
    svn.mkdir("trunk", message="one: two\nsubject:x\n\nrepo: evil\n\x1b[31mred\x07 `id`")
    event = svn.last()
    assert event.log == "one: two\nsubject:x\n\nrepo: evil\n\x1b[31mred\x07 `id`"
    for record in world.records():
        assert record.frame.headers["subject"].isprintable()
        assert ":" not in record.frame.headers["subject"]


def test_a_revision_without_author_or_log(world: World) -> None:
    svn = Svn(world, install=False)
    svn.mkdir("trunk")
    for name in ("svn:author", "svn:log", "svn:date"):
        svnadmin = needs("svnadmin", package="subversion")
        done = world.run(svnadmin, "delrevprop", svn.path, "-r", "1", name)
        assert done.returncode == 0, done.stderr
    world.deploykit("hooks", "install", svn.path)
    done = world.run(svn.path / "hooks" / "post-commit", svn.path, "1", "1-1")
    assert lines(done)[0].startswith("deploykit: 1 event queued")
    event = svn.last()
    assert (event.author, event.log, event.committed) == ("", "", None)


def test_many_directories_are_counted_and_two_hundred_told(world: World) -> None:
    svn = Svn(world)
    svn.mkdir(*(f"p{n:03}/trunk/x" for n in range(150)))
    event = svn.last()
    assert (len(event.dirs), event.dir_count) == (200, 301)
    assert len(event.projects) == 150


def test_legacy_commits_are_one_frame_for_each_project(world: World) -> None:
    svn = Svn(world, "legacy = true\n")
    svn.mkdir("a/trunk", "b/trunk", message="Grüße")
    records = world.records()
    assert [r.destination for r in records] == ["/topic/future.git.commits"] * 2 + ["/topic/future.events.svnserver"]
    told = []
    for record, project in zip(records, ("a", "b"), strict=False):
        text = record.frame.body.decode()
        assert text.startswith("repo: web\nrevname: 1\n Author: ada\nDate: ")
        assert f"\nProject: {project}\n\nDirs:\n/\na/\nb/\n\nGrüße\n\n" in text
        assert record.frame.headers["subject"] == "[web] 1 "
        told.append(decode(record.frame.headers, record.frame.body, record.destination))
    assert records[2].frame.headers["subject"] == "Talking to eventbot"
    assert all(isinstance(message, RevisionCommitted) for message in told)


def test_a_legacy_revision_is_the_same_event_as_the_native_one(world: World) -> None:
    svn = Svn(world)
    svn.mkdir("a/trunk/src", message="Grüße 🎉\n\nProject: evil\nmore", user="jörg")
    native = svn.last()
    world.empty_spool()
    world.settle(svn.path, "legacy = true\n")
    world.run(svn.path / "hooks" / "post-commit", svn.path, "1", "1-1")
    record = world.records()[0]
    told = decode(record.frame.headers, record.frame.body, record.destination)
    assert isinstance(told, RevisionCommitted)
    # The body has no place for a number of directories, and a line of the log must not be read as a project.
    same = {name: getattr(native, name) for name in ("id", "source", "time", "correlation_id", "dir_count")}
    assert attrs.evolve(told, **same, log=native.log) == native
    assert told.log == native.log.replace("Project: evil", "Project - evil")


@pytest.mark.parametrize(
    "argv", [(), ("x",), ("/nonexistent", "1"), ("{repo}", "999"), ("{repo}", "HEAD"), ("{repo}", "-1")]
)
def test_wrong_arguments_are_one_line_and_no_error(world: World, argv: tuple[str, ...]) -> None:
    svn = Svn(world)
    words = [word.format(repo=svn.path) for word in argv]
    done = world.run(svn.path / "hooks" / "post-commit", *words)
    assert done.returncode == 0
    (line,) = lines(done)
    assert line.startswith("deploykit: nothing queued: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("does", "says"),
    [
        (None, "svnlook is not on PATH"),
        ("exec /bin/sleep 600", "svnlook info took too long"),
        ("echo 'E160043: found format 9' >&2; exit 1", "svnlook info failed (1): E160043: found format 9"),
        ("kill -SEGV $$", "svnlook info failed (-11)"),
    ],
)
def test_a_missing_slow_or_failing_svnlook_costs_the_details_and_not_the_event(
    world: World, does: str | None, says: str
) -> None:
    svn = Svn(world, f"timeout = {1 if does and 'sleep' in does else 60}\n", install=False)
    svn.mkdir("a/trunk")
    assert world.deploykit("hooks", "install", svn.path).returncode == 0
    where = world.directory("bin")
    if does:
        world.write(where / "svnlook", f"#!/bin/sh\n{does}\n", 0o755)
    done = world.run(svn.path / "hooks" / "post-commit", svn.path, "1", "1-1", env={"PATH": str(where)})
    assert done.returncode == 0
    (line,) = lines(done)
    assert line.startswith(f"deploykit: 1 event queued in {world.spool}; without author, log and directories: ")
    assert says in line
    event = svn.last()
    assert (event.repo, event.revision, event.author, event.projects) == ("web", 1, "", ())


def test_trouble_never_fails_the_commit_and_strict_lets_svn_show_it(world: World) -> None:
    svn = Svn(world)
    world.write(svn.path / "deploykit.toml", 'spool = "/proc/none"\n')
    done = svn.svn("mkdir", "-m", "x", f"{svn.url}/trunk")
    assert "Committed revision 1" in done.stdout
    assert done.stderr == ""
    world.write(svn.path / "deploykit.toml", 'strict = true\nspool = "/proc/none"\n')
    done = svn.svn("mkdir", "-m", "x", f"{svn.url}/tags", check=False)
    assert "Committed revision 2" in done.stdout
    assert "nothing queued: cannot create spool /proc/none" in done.stdout  # svn's own way to show it


def test_a_hook_that_was_there_is_kept_and_runs_first_with_the_same_arguments(world: World) -> None:
    svn = Svn(world, install=False)
    log = world.write(world.root / "log", "", 0o666)
    world.write(svn.path / "hooks" / "post-commit", f'#!/bin/sh\necho "$#" "$1" "$2" >> {log}\nexit 1\n', 0o755)
    assert world.deploykit("hooks", "install", svn.path).returncode == 1
    done = world.deploykit("hooks", "install", "--chain", svn.path)
    assert done.returncode == 0, done.stderr
    svn.mkdir("trunk")
    assert log.read_text() == f"3 {svn.path} 1\n"
    assert svn.last().revision == 1
    assert world.deploykit("hooks", "uninstall", svn.path).returncode == 0
    assert "echo" in (svn.path / "hooks" / "post-commit").read_text()


# -- what svnlook prints -----------------------------------------------------------------------------------------------


def test_directories_are_read_from_what_changed() -> None:
    text = "A   a/trunk/\nU   a/trunk/f\n_U  b/\nUU  c/d/e f\nD   top\nA + x/y/\n"
    assert changed_dirs(text) == ["a/trunk/", "b/", "c/d/", "/", "x/y/"]


@pytest.mark.parametrize("length", [1, 190, 5000, 200_000])
def test_projects_and_directories_of_the_longest_names_fit_a_message(length: int) -> None:
    projects = tuple(f"{number:03}{'🎉' * length}" for number in range(999))
    dirs = tuple("🎉" * (DIR_TEXT - 1) + "/" for _ in range(MAX_DIRS))
    event = RevisionCommitted(
        repo=RepoName("web"), revision=1, author="🎉" * NAME_TEXT, log="\x01" * COMMIT_TEXT, dirs=dirs, dir_count=999,
        projects=fitting((*projects, "web")),
    )  # fmt: skip
    assert event.projects[-1] == "web"
    assert len(event.projects) == 1 + min(999, 99_997 // (length + 3))
    assert encode(event).body
    assert encode(event, legacy=True).body


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("2012-04-19 10:00:00 +0100 (Thu, 19 Apr 2012)", datetime(2012, 4, 19, 9, tzinfo=UTC)),
        ("2012-04-19 10:00:00 -0330 (Do, 19. Apr. 2012)", datetime(2012, 4, 19, 13, 30, tzinfo=UTC)),
        ("", None),
        ("yesterday", None),
        ("9999-99-99 00:00:00 +0000", None),
    ],
)
def test_dates_are_read_in_any_zone(text: str, when: datetime | None) -> None:
    assert parse_date(text) == when


def test_what_svnlook_says_is_taken_apart_by_lines() -> None:
    info = parse_info("ada\n2012-04-19 10:00:00 +0000 (x)\n9\none\n\ntwo\n\n")
    assert (info.author, info.log) == ("ada", "one\n\ntwo")
    assert parse_info("\n\n0\n\n") == parse_info("")
