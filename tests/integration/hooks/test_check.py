"""`deploykit hooks`: what a person sees, and the original's form of a push."""

from __future__ import annotations

import subprocess

import attrs
import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.messages import RefUpdated
from deploykit.outbox import Outbox
from deploykit.wire import decode
from tests.support.hookworld import World, lines, told_by
from tests.support.needs import needs


def test_check_says_what_would_be_published_and_changes_nothing(world: World) -> None:
    origin = world.origin()
    work = world.clone(origin)
    world.commit(work, "to be told")
    world.git("push", "origin", "main", cwd=work)
    world.empty_spool()
    before = sorted(p.name for p in world.spool.iterdir())
    found = {f["subject"]: f for f in told_by(world.deploykit("hooks", "check", "--json", origin))}
    assert found["script"]["verdict"] == "ok"
    assert "[shop] main created" in found["event"]["text"]
    assert "/topic/deploykit.source" in found["event"]["text"]
    assert found["spool"]["verdict"] == "ok"
    assert sorted(p.name for p in world.spool.iterdir()) == before


@pytest.mark.parametrize(
    ("spoil", "subject"),
    [("script", "script"), ("settings", "settings"), ("spool", "spool"), ("relay", "relay settings")],
)
def test_check_finds_what_is_wrong_and_ends_with_one(world: World, spoil: str, subject: str) -> None:
    origin = world.origin()
    match spoil:
        case "script":
            (origin / "hooks" / "post-receive").chmod(0o644)
        case "settings":
            world.write(origin / "deploykit.toml", "strict = 7\n")
        case "spool":
            world.write(origin / "deploykit.toml", 'spool = "/proc/none"\nrelay = ""\n')
        case _:
            world.settle(origin, 'relay = "/nonexistent.toml"\n')
    done = world.deploykit("hooks", "check", "--json", origin)
    assert done.returncode == 1
    assert subject in {f["subject"] for f in told_by(done) if f["verdict"] == "error"}


def verdicts(done: subprocess.CompletedProcess[str]) -> dict[str, tuple[str, str]]:
    return {f["subject"]: (f["verdict"], f["text"]) for f in told_by(done)}


def test_check_tells_of_a_revision_a_build_and_a_package(world: World) -> None:
    """A preview for every kind, in the form and to the topic that the settings say."""
    web = world.directory("web")
    svnadmin = needs("svnadmin", package="subversion")
    world.run(svnadmin, "create", web, env={"PATH": "/usr/bin:/bin"})
    world.settle(web, "legacy = true\n")
    world.deploykit("hooks", "install", web)
    found = verdicts(world.deploykit("hooks", "check", "--json", web))
    assert found["event"] == ("note", "nothing was committed yet: no event to show")
    world.run(needs("svn", package="subversion"), "mkdir", "-q", "-m", "x", f"file://{web}/trunk", env={"HOME": "/x"})
    found = verdicts(world.deploykit("hooks", "check", "--json", web))
    assert found["event"][0] == "ok"
    assert "-> /topic/future.git.commits (the original's form" in found["event"][1]

    settings = world.write(world.root / "hooks.toml", f'spool = "{world.spool}"\nrelay = ""\n')
    place = world.directory("bin")
    for kind in ("jenkins", "debian"):
        assert world.deploykit("hooks", "install", "--kind", kind, place).returncode == 0
    done = world.deploykit("hooks", "check", "--json", "--kind", "jenkins", "--config", settings, place)
    told = [f["text"] for f in told_by(done) if f["subject"] == "event"]
    assert [text.partition(" -> ")[2].partition(" ")[0] for text in told] == ["/topic/deploykit.build"] * 2
    assert ("settings", ("ok", str(settings))) in verdicts(done).items()

    arguments = ("hooks", "check", "--json", "--kind", "debian", "--config", settings, place)
    found = verdicts(world.deploykit(*arguments))
    assert [found[n] for n in ("incoming", "archive", "reprepro")] == [("error", "not set in the settings")] * 3
    paths = {name: world.directory(name) for name in ("incoming", "archive", "reprepro")}
    text = "".join(f'{name} = "{path}"\n' for name, path in paths.items())
    world.write(settings, f'spool = "{world.spool}"\nrelay = ""\n{text}')
    paths["archive"].rmdir()
    found = verdicts(world.deploykit(*arguments))
    assert found["archive"] == ("error", f"there is no directory {paths['archive']}")
    assert "conf/distributions is missing" in found["reprepro"][1]
    assert found["event"] == ("note", "no package is waiting: no event to show")
    world.directory("incoming/stable")
    world.write(paths["incoming"] / "stable" / "hello_1.0-1_all.deb", "not looked into")
    found = verdicts(world.deploykit(*arguments))
    assert found["event"][1].startswith("package hello 1.0-1 (all) published in stable -> /topic/deploykit.package")
    assert len(world.records()) == 2, "the commit, and nothing that was checked"


def test_check_says_whether_the_broker_answers_and_a_relay_is_at_work(world: World) -> None:
    origin = world.origin()
    with EmbeddedBroker() as broker:
        relay = world.write(world.root / "relay.toml", f'[broker]\naddress = "{broker.address}"\n', 0o600)
        world.settle(origin, f'relay = "{relay}"\n')
        done = world.deploykit("hooks", "check", "--json", "--timeout", "60", origin)
        found = verdicts(done)
        assert found["broker"] == ("ok", "answers")
        assert found["spool"] == ("ok", f"{world.spool}, mode 3770")
        assert "relay" not in found  # none is at work, and none is needed: it could be started
        outbox = Outbox(world.spool)
        outbox.wait(0)
        try:
            assert verdicts(world.deploykit("hooks", "check", "--json", origin))["relay"] == ("ok", "running")
        finally:
            outbox.close()
    found = verdicts(world.deploykit("hooks", "check", "--json", "--timeout", "0.3", origin))
    assert found["broker"][0] == "warning"
    assert "events wait in the spool" in found["broker"][1]


def test_check_finds_a_script_whose_environment_is_gone(world: World) -> None:
    origin = world.origin()
    script = origin / "hooks" / "post-receive"
    world.write(script, script.read_text().replace(str(world.python), "/gone/python"), 0o755)
    verdict, text = verdicts(world.deploykit("hooks", "check", "--json", origin))["script"]
    assert verdict == "error"
    assert "does not start" in text
    assert "/gone/python" in text


def test_one_repository_that_cannot_be_served_stops_no_other(world: World) -> None:
    """`deploykit hooks install /srv/git/*.git`, and somebody has put a hook of their own into the second."""
    first, second, third = (world.origin(f"{n}.git", install=False) for n in ("a", "b", "c"))
    theirs = world.write(second / "hooks" / "post-receive", "#!/bin/sh\n", 0o755)
    done = world.deploykit("hooks", "install", first, second, third)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [f"installed (git): {o}/hooks/post-receive" for o in (first, third)]
    assert done.stderr == f"deploykit: {theirs} is somebody else's (use --chain: it is kept, and run first)\n"
    done = world.deploykit("hooks", "uninstall", first, world.root, third)
    assert (done.returncode, len(done.stdout.splitlines())) == (2, 2)
    assert f"not a git repository: {world.root}" in done.stderr
    assert not (third / "hooks" / "post-receive").exists()


@pytest.mark.parametrize("wanted", [False, True])
def test_the_originals_programs_hear_of_a_deleted_branch_only_where_that_is_switched_on(
    world: World, wanted: bool
) -> None:
    origin = world.origin()
    work = world.clone(origin)
    world.commit(work, "Old")
    world.git("push", "origin", "main", "main:old", cwd=work)
    world.empty_spool()
    world.settle(origin, "legacy = true\n")
    if wanted:
        world.git("config", "--file", str(origin / "config"), "deploykit.legacyDeletes", "true", cwd=work)
    done = world.git("push", "origin", ":old", "main:new", cwd=work)
    events = [r for r in world.records() if r.destination == "/topic/future.git.commits"]
    people = [r.frame.body.decode() for r in world.records() if r.destination == "/topic/future.events.gitolite"]
    assert [r.frame.headers["subject"].split()[1] for r in events if r.frame.headers["subject"].endswith("0" * 40)] == (
        ["refs/heads/old"] if wanted else []
    )
    assert "refs/heads/new" in {r.frame.headers["subject"].split()[1] for r in events}
    assert len(people) == 2
    assert any("old deleted" in line for line in people)
    note = "1 deletion only as a line for people (legacy_deletes)"
    assert (note in str(lines(done))) is not wanted


def test_check_names_gits_own_configuration_among_the_settings(world: World) -> None:
    origin = world.origin()
    world.git("config", "--file", str(origin / "config"), "deploykit.legacy", "true", cwd=origin)
    found = verdicts(world.deploykit("hooks", "check", "--json", origin))
    assert found["settings"][0] == "ok"
    assert "git config (deploykit: " in found["settings"][1]
    assert "legacy" in found["settings"][1]


def test_a_legacy_push_is_the_same_event_as_the_native_one(world: World) -> None:
    origin = world.origin()
    work = world.clone(origin)
    world.commit(work, "Grüße 🎉\n\nrepo: evil\nmore")
    world.git("push", "origin", "main", cwd=work)
    (native,) = world.events()
    world.empty_spool()
    world.settle(origin, "legacy = true\n")
    hook = origin / "hooks" / "post-receive"
    world.run(hook, cwd=origin, data=f"{native.old} {native.new} {native.ref}\n".encode())
    record, human = world.records()
    assert (record.destination, human.destination) == ("/topic/future.git.commits", "/topic/future.events.gitolite")
    assert record.frame.headers["subject"] == f"[shop] refs/heads/main {native.new}"
    head = f"repo: shop\noldrev: {native.old}\nnewrev: {native.new}\nrefname: refs/heads/main\n"
    assert record.frame.body.decode().startswith(head)
    assert human.frame.headers["subject"] == "Talking to eventbot"
    told = decode(record.frame.headers, record.frame.body, record.destination)
    assert isinstance(told, RefUpdated)
    same = ("id", "source", "time", "correlation_id")
    assert attrs.evolve(told, **{name: getattr(native, name) for name in same}) == native
