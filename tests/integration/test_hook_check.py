"""`deploykit hooks`: what a person sees, and the original's form of a push."""

from __future__ import annotations

import attrs
import pytest

from deploykit.messages import RefUpdated
from deploykit.wire import decode
from tests.support.hookworld import World, told_by


def test_check_says_what_would_be_published_and_changes_nothing(world: World) -> None:
    origin = world.origin()
    work = world.clone(origin)
    world.commit(work, "to be told")
    world.git("push", "origin", "main", cwd=work)
    world.empty_spool()
    before = sorted(p.name for p in world.spool.iterdir())
    found = {f["subject"]: f for f in told_by(world.deploykit("hooks", "check", "--json", origin))}
    assert found["script"]["verdict"] == "fine"
    assert "[shop] main created" in found["event"]["text"]
    assert "/topic/deploykit.source" in found["event"]["text"]
    assert found["spool"]["verdict"] == "fine"
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
    assert subject in {f["subject"] for f in told_by(done) if f["verdict"] == "wrong"}


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
