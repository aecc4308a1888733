"""reprepro-incoming with real packages and a real reprepro: told once, whatever interrupts it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from deploykit.hooking.packages import event_id, inspect, is_package_name, parse_control
from deploykit.messages import PackagePublished
from deploykit.wire import decode
from tests.support.debpackages import build_package
from tests.support.hookworld import World, lines
from tests.support.needs import needs
from tests.support.wait import wait_until

_DISTRIBUTIONS = """\
Codename: {name}
Components: main
Architectures: amd64
Description: for tests

"""


class Repository:
    """incoming, archive and a repository of the pusher's, and the script."""

    def __init__(self, world: World, settings: str = "") -> None:
        needs("reprepro", package="reprepro")
        self.world = world
        self.incoming, self.archive, self.base = (world.directory(n) for n in ("incoming", "archive", "repo"))
        world.directory("repo/conf")
        text = "".join(_DISTRIBUTIONS.format(name=name) for name in ("stable", "testing"))
        world.write(self.base / "conf" / "distributions", text)
        for name in ("stable", "testing"):
            world.directory(f"incoming/{name}")
        self.config = world.root / "hooks.toml"
        paths = f'incoming = "{self.incoming}"\narchive = "{self.archive}"\nreprepro = "{self.base}"\n'
        world.write(self.config, f'spool = "{world.spool}"\nrelay = ""\ntimeout = 100\n{paths}{settings}')
        world.directory("bin")
        done = world.deploykit("hooks", "install", "--kind", "debian", world.root / "bin")
        assert done.returncode == 0, done.stderr
        self.script = world.root / "bin" / "reprepro-incoming"

    def package(
        self, name: str = "hello", version: str = "1:1.0-1", *, to: str = "stable", more: str = "", arch: str = "all"
    ) -> Path:
        """Build a package into incoming."""
        deb = build_package(self.world.root / "build", name, version, more, arch)
        target = self.incoming / to / deb.name
        shutil.move(deb, target)
        if self.world.is_root:
            os.chown(target, self.world.uid, self.world.uid)
        return target

    def run(self, *words: str | Path, path: str = "/usr/bin:/bin") -> subprocess.CompletedProcess[str]:
        """Run the script as cron would."""
        return self.world.run(self.script, "--config", self.config, *words, env={"PATH": path})

    def listed(self, distribution: str = "stable") -> list[str]:
        """What reprepro has."""
        done = subprocess.run(["reprepro", "-b", str(self.base), "list", distribution], capture_output=True, text=True)
        return sorted({line.split(": ")[1] for line in done.stdout.splitlines()})

    def files(self, where: Path) -> list[str]:
        """The packages below a directory."""
        return sorted(str(p.relative_to(where)) for p in where.rglob("*.deb"))


def test_packages_are_taken_in_told_and_archived(world: World) -> None:
    repository = Repository(world)
    repository.package()
    repository.package("other", "2.0", to="testing")
    done = repository.run()
    assert done.returncode == 0, done.stderr
    assert [line for line in lines(done) if "1 event queued" in line] == lines(done)
    assert repository.listed() == ["hello 1:1.0-1"]
    assert repository.listed("testing") == ["other 2.0"]
    assert repository.files(repository.incoming) == []
    assert repository.files(repository.archive) == ["stable/hello_1.0-1_all.deb", "testing/other_2.0_all.deb"]
    events = world.events()
    assert [(e.name, e.version, e.architecture, e.distribution, e.file) for e in events] == [
        ("hello", "1:1.0-1", "all", "stable", "hello_1.0-1_all.deb"),
        ("other", "2.0", "all", "testing", "other_2.0_all.deb"),
    ]
    assert {r.destination for r in world.records()} == {"/topic/deploykit.package", "/topic/deploykit.notice"}
    again = repository.run()
    assert (again.returncode, again.stderr, len(world.events())) == (0, "", 2)


def test_a_package_that_comes_again_is_the_same_event(world: World) -> None:
    repository = Repository(world)
    deb = repository.package()
    copy = world.root / "copy.deb"
    shutil.copy(deb, copy)
    repository.run()
    shutil.copy(copy, deb)
    repository.run()
    first, second = world.events()
    assert first.id == second.id
    assert repository.files(repository.incoming) == []


def test_an_older_package_that_reprepro_leaves_out_is_not_told_as_published(world: World) -> None:
    """reprepro keeps the newer one and ends well: nobody may be told that the older is there now."""
    repository = Repository(world)
    repository.package("hello", "2.0")
    repository.run()
    old = repository.package("hello", "1.5")
    done = repository.run()
    says = f"deploykit: stable/{old.name} stays in incoming: reprepro left it out: stable has hello 2.0"
    assert (done.returncode, lines(done)) == (0, [says])
    assert repository.files(repository.incoming) == [f"stable/{old.name}"]
    assert [(e.name, e.version) for e in world.events()] == [("hello", "2.0")]
    assert repository.listed() == ["hello 2.0"]


@pytest.mark.parametrize(("first", "second"), [("amd64", "all"), ("all", "amd64")])
def test_a_version_that_is_there_for_another_architecture_is_not_told_as_published(
    world: World, first: str, second: str
) -> None:
    """reprepro keeps the one it has, and ends well."""
    repository = Repository(world)
    repository.package("hello", "2.0", arch=first)
    repository.run()
    late = repository.package("hello", "2.0", arch=second)
    says = f"deploykit: stable/{late.name} stays in incoming: reprepro left it out: stable has hello 2.0 ({first})"
    assert lines(repository.run()) == [says]
    assert [e.architecture for e in world.events()] == [first]


def test_a_package_that_is_still_being_copied_waits(world: World) -> None:
    repository = Repository(world)
    deb = repository.package()
    whole = deb.read_bytes()
    for size in (0, 7, 100, len(whole) - 1):
        deb.write_bytes(whole[:size])
        done = repository.run()
        assert "it is not whole (yet)" in lines(done)[0]
        assert world.events() == []
        assert deb.exists()
    deb.write_bytes(whole)
    repository.run()
    assert len(world.events()) == 1


def test_one_bad_package_stops_no_other(world: World) -> None:
    repository = Repository(world, "strict = true\n")
    bad = repository.package("hello", "1.0")
    repository.run()
    repository.package("hello", "1.0", more=" but different")  # the same version with other bytes: reprepro refuses
    repository.package("zebra", "1.0")
    done = repository.run()
    assert done.returncode == 1
    assert [line for line in lines(done) if f"stable/{bad.name} stays in incoming: reprepro" in line]
    assert [e.name for e in world.events()] == ["hello", "zebra"]
    assert repository.files(repository.incoming) == [f"stable/{bad.name}"]


@pytest.mark.parametrize(
    "name", ["a b_1_all.deb", "-x_1_all.deb", "$(touch pwned).deb", "a;b.deb", ".hidden.deb", "ü.deb"]
)
def test_hostile_file_names_stay_where_they_are(world: World, name: str) -> None:
    """Threats 7, 8 and 9: a file's name is an argument to other programs only when it can be nothing else."""
    repository = Repository(world)
    repository.package().rename(repository.incoming / "stable" / name)
    done = repository.run()
    assert "that is no name for a package" in lines(done)[0]
    assert world.events() == []
    assert not list(world.root.rglob("pwned"))


@pytest.mark.parametrize("name", ["-x", "..x;", "a b"])
def test_hostile_directories_are_not_looked_into(world: World, name: str) -> None:
    """Threat 9: a distribution is a name, not a path."""
    repository = Repository(world)
    deb = repository.package()
    world.directory(f"incoming/{name}")
    deb.rename(repository.incoming / name / deb.name)
    assert repository.run().stderr == ""
    assert world.events() == []


def test_links_are_not_followed(world: World) -> None:
    """An uploader may not have us read, publish or archive what only we can read."""
    repository = Repository(world)
    deb = repository.package()
    secret = world.root / "elsewhere.deb"
    deb.rename(secret)
    deb.symlink_to(secret)
    (repository.incoming / "linked").symlink_to(repository.incoming / "stable")
    done = repository.run()
    assert "stays in incoming" in lines(done)[0]
    assert world.events() == []
    assert secret.exists()


def test_a_second_run_meanwhile_leaves_it_to_the_first(world: World) -> None:
    repository = Repository(world)
    repository.package()
    bin_dir = world.root / "bin"
    gate = world.root / "gate"
    os.mkfifo(gate)
    gate.chmod(0o666)
    waits = f'case "$*" in *includedeb*) cat {gate} >/dev/null;; esac'
    world.write(bin_dir / "reprepro", f'#!/bin/sh\n{waits}\nexec /usr/bin/reprepro "$@"\n', 0o755)
    command = [str(repository.script), "--config", str(repository.config)]
    who = {"user": world.uid, "group": world.uid, "extra_groups": [64210]} if world.is_root else {}
    env = {"PATH": f"{bin_dir}:/usr/bin:/bin"}
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, **who) as first:  # type: ignore[call-overload]
        with gate.open("w"):  # opens once the first run has come to reprepro
            second = repository.run()
            assert (second.returncode, second.stderr) == (0, "")
        assert first.wait(60) == 0
    assert len(world.events()) == 1


_DEATHS = {
    "before reprepro": "kill -9 $PPID",
    "within reprepro": '/usr/bin/reprepro "$@" & child=$!; kill -9 $PPID; wait $child',
    "after reprepro": '/usr/bin/reprepro "$@"; kill -9 $PPID',
}


@pytest.mark.parametrize("death", _DEATHS)
def test_killed_between_two_steps_the_next_run_makes_it_whole(world: World, death: str) -> None:
    repository = Repository(world)
    deb = repository.package()
    expected = event_id("stable", inspect(str(deb)))
    ended = world.root / "bin" / "ended"
    world.write(world.root / "bin" / "reprepro", f"#!/bin/sh\n{_DEATHS[death]}\ntouch {ended}\n", 0o755)
    assert repository.run(path=f"{world.root}/bin:/usr/bin:/bin").returncode == -9
    assert repository.files(repository.incoming) == [f"stable/{deb.name}"]
    wait_until(ended.exists, "reprepro to end", 60)  # it may not even have begun
    assert repository.run().returncode == 0
    assert repository.files(repository.incoming) == []
    assert repository.files(repository.archive) == [f"stable/{deb.name}"]
    assert repository.listed() == ["hello 1:1.0-1"]
    assert [e.id for e in world.events()] == [expected]


def test_cut_off_before_the_archive_the_next_run_tells_the_same_event(world: World) -> None:
    repository = Repository(world)
    deb = repository.package()
    (repository.archive / "stable").write_text("a file where a directory should be")
    done = repository.run()
    assert f"stable/{deb.name} stays in incoming: " in lines(done)[0]
    (repository.archive / "stable").unlink()
    repository.run()
    first, second = world.events()
    assert first.id == second.id
    assert repository.files(repository.archive) == [f"stable/{deb.name}"]


def test_a_lock_that_a_killed_reprepro_left_is_named(world: World) -> None:
    repository = Repository(world)
    repository.package()
    repository.run()
    repository.package("more", "1.0")
    lock = world.write(repository.base / "db" / "lockfile", "")
    done = repository.run()
    assert f"if no reprepro is at work, remove {lock}" in lines(done)[0]
    lock.unlink()
    repository.run()
    assert [e.name for e in world.events()] == ["hello", "more"]


def test_reprepro_missing_or_failing_is_one_line(world: World) -> None:
    repository = Repository(world)
    repository.package()
    done = repository.run(path="/nonexistent")
    assert "dpkg-deb is not on PATH" in lines(done)[0]
    world.write(world.root / "bin" / "reprepro", "#!/bin/sh\necho 'no key for you' >&2\nexit 255\n", 0o755)
    done = repository.run(path=f"{world.root}/bin:/usr/bin:/bin")
    assert "reprepro --basedir failed (255): no key for you" in lines(done)[0]
    assert done.returncode == 0
    assert repository.files(repository.incoming) != []


def test_settings_that_are_missing_are_named(world: World) -> None:
    repository = Repository(world)
    world.write(repository.config, f'spool = "{world.spool}"\nincoming = "{repository.incoming}"\n')
    (line,) = lines(repository.run())
    assert f"nothing queued: archive, reprepro not set (set them in {repository.config})" in line


def test_legacy_bodies_are_the_originals(world: World) -> None:
    repository = Repository(world, "legacy = true\n")
    deb = repository.package()
    repository.run()
    record, human = world.records()
    assert record.destination == "/topic/future.package.updates"
    assert human.destination == "/topic/future.events.repository"
    assert record.frame.body.decode().startswith(f"package: {deb.name}\n")
    message = decode(record.frame.headers, record.frame.body, record.destination)
    assert isinstance(message, PackagePublished)
    assert (message.name, message.architecture, message.file) == ("hello", "all", deb.name)
    native = PackagePublished(
        id=message.id, source=message.source, time=message.time, correlation_id=message.correlation_id,
        name="hello", version="1.0-1", architecture="all", file=deb.name, detail=message.detail,
    )  # fmt: skip
    assert message == native, "all that a body of the original's can say"


# -- pure parts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Package: a\nVersion: 1\nArchitecture: all\n", ("a", "1", "all")),
        ("Version: 1:2~b-3\nPackage: a\nArchitecture: amd64\n", ("a", "1:2~b-3", "amd64")),
        ("Package: a\nVersion: 1\n", None),
        ("Package: \nVersion: 1\nArchitecture: all\n", None),
        ("Package: --help\nVersion: 1\nArchitecture: all\n", None),
        ("Package: a\nVersion: 1 2\nArchitecture: all\n", None),
        ("Package: a\nVersion: 1\x1b[2J\nArchitecture: all\n", None),
        ("Package: a\nVersion: 1\nArchitecture: all\x0bPackage: b\n", None),  # only a line feed ends a line
        ("", None),
        ("nonsense", None),
        (f"Package: a\nVersion: {'1' * 255}\nArchitecture: all\n", ("a", "1" * 255, "all")),
        (f"Package: a\nVersion: {'1' * 256}\nArchitecture: all\n", None),
    ],
)
def test_the_control_file_is_read_by_its_three_fields(text: str, expected: Sequence[str] | None) -> None:
    assert parse_control(text) == expected


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("a_1_all.deb", True), ("lib-x+y_1.0~rc1-1_amd64.deb", True), ("a_1%3a2_all.deb", True), ("a.deb", True),
        (".deb", False), ("a_1_all.deb\n", False), ("-a.deb", False), ("a/b.deb", False), ("a.udeb", False),
        ("a" * 300 + ".deb", False),
    ],
)  # fmt: skip
def test_names_of_packages(name: str, good: bool) -> None:
    assert is_package_name(name) == good
