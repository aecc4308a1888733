"""git's post-receive hook on real pushes: every kind of ref, told as git itself tells it."""

from __future__ import annotations

import random

import pytest

from deploykit.names import ZERO_ID
from tests.support.gitpush import import_commits, push, rev_list
from tests.support.hookworld import World, lines

# -- refs --------------------------------------------------------------------------------------------------------------


def test_a_created_moved_forced_and_deleted_branch(world: World) -> None:
    work = world.clone(world.origin())
    first = world.commit(work, "first")
    (created,) = push(world, work, "main")
    assert (created.kind, created.old, created.new, created.ref) == ("created", ZERO_ID, first, "refs/heads/main")
    assert (created.repo, created.commit_count, created.commits[0].message) == ("shop", 1, "first")

    second, third = world.commit(work, "second"), world.commit(work, "third")
    (moved,) = push(world, work, "main")
    assert (moved.kind, moved.old, moved.new) == ("moved", first, third)
    assert [c.id for c in moved.commits] == [third, second]

    world.git("reset", "--quiet", "--hard", first, cwd=work)
    other = world.commit(work, "other")
    (forced,) = push(world, work, "--force", "main")
    assert (forced.kind, forced.old, forced.new, forced.commit_count) == ("forced", third, other, 1)

    (back,) = push(world, work, "--force", f"{first}:main")
    assert (back.kind, back.commit_count, back.commits) == ("forced", 0, ())

    (deleted,) = push(world, work, ":main")
    assert (deleted.kind, deleted.old, deleted.new) == ("deleted", first, ZERO_ID)
    assert (deleted.commit_count, deleted.commits) == (0, ())


def test_light_and_annotated_tags_created_moved_and_deleted(world: World) -> None:
    work = world.clone(world.origin())
    one, two = world.commit(work, "one"), world.commit(work, "two")
    push(world, work, "main")
    world.git("tag", "light", one, cwd=work)
    world.git("tag", "-a", "-m", "a release", "heavy", two, cwd=work)
    tag = world.git("rev-parse", "heavy", cwd=work).stdout.strip()
    light, heavy = sorted(push(world, work, "light", "heavy"), key=lambda e: e.ref, reverse=True)
    assert (light.ref, light.kind, light.new, light.commit_count) == ("refs/tags/light", "created", one, 0)
    assert (heavy.ref, heavy.kind, heavy.new, heavy.commit_count) == ("refs/tags/heavy", "created", tag, 0)
    assert heavy.new != two

    three = world.commit(work, "three")
    world.git("tag", "-f", "-a", "-m", "again", "heavy", three, cwd=work)
    world.git("tag", "-f", "light", three, cwd=work)
    by_ref = {str(e.ref): e for e in push(world, work, "--force", "light", "heavy")}
    assert (by_ref["refs/tags/light"].kind, by_ref["refs/tags/light"].commit_count) == ("moved", 2)
    assert (by_ref["refs/tags/heavy"].kind, by_ref["refs/tags/heavy"].commit_count) == ("moved", 1)
    assert by_ref["refs/tags/heavy"].commits[0].id == three

    world.git("tag", "-f", "-a", "-m", "back", "heavy", one, cwd=work)
    (back,) = push(world, work, "--force", "heavy")
    assert (back.kind, back.commit_count) == ("forced", 0)
    assert {e.kind for e in push(world, work, ":light", ":heavy")} == {"deleted"}


def test_a_tag_of_a_tag_of_a_blob_or_of_a_tree_is_told(world: World) -> None:
    work = world.clone(world.origin())
    world.commit(work, "one")
    push(world, work, "main")
    world.git("tag", "-a", "-m", "x", "inner", cwd=work)
    world.git("tag", "-a", "-m", "x", "outer", "inner", cwd=work)
    blob = world.git("hash-object", "-w", "--stdin", data=b"x" * 3_000_000, cwd=work).stdout.strip()
    world.git("tag", "blob", blob, cwd=work)
    world.git("tag", "tree", "HEAD^{tree}", cwd=work)
    events = push(world, work, "outer", "blob", "tree")
    assert {(e.ref, e.kind, e.commit_count) for e in events} == {
        ("refs/tags/outer", "created", 0),
        ("refs/tags/blob", "created", 0),
        ("refs/tags/tree", "created", 0),
    }


def test_a_tag_that_moves_to_a_blob_or_from_one_is_forced(world: World) -> None:
    work = world.clone(world.origin())
    commit = world.commit(work, "first")
    blobs = [world.git("hash-object", "-w", "--stdin", data=raw, cwd=work).stdout.strip() for raw in (b"1", b"2")]
    kinds = []
    for target in (commit, *blobs, commit):
        world.git("tag", "--force", "odd", target, cwd=work)
        (event,) = push(world, work, "--force", "odd")
        kinds.append(event.kind)
    assert kinds == ["created", "forced", "forced", "forced"]


def test_notes_and_other_namespaces_are_told_only_where_the_settings_say_so(world: World) -> None:
    origin = world.origin()
    work = world.clone(origin)
    world.commit(work)
    push(world, work, "main")
    world.git("notes", "add", "-m", "a note", cwd=work)
    world.empty_spool()
    done = world.git("push", "origin", "refs/notes/commits", "main:refs/custom/x", cwd=work)
    assert world.events() == []
    assert "2 refs are not among `refs`" in lines(done)[0]
    world.settle(origin, 'refs = ["refs/heads/*", "refs/notes/*", "refs/cust*/?"]\n')
    world.git("notes", "append", "-m", "more", cwd=work)
    told = push(world, work, "refs/notes/commits", "main:refs/custom/y")
    assert {(e.ref, e.kind, e.commit_count) for e in told} == {
        ("refs/notes/commits", "moved", 1),
        ("refs/custom/y", "created", 0),
    }


def test_all_refs_of_a_push_are_one_file_and_one_thread(world: World) -> None:
    work = world.clone(world.origin())
    world.commit(work)
    world.git("tag", "v1", cwd=work)
    events = push(world, work, "main", "v1", "main:other")
    assert len(list(world.spool.glob("*.rec"))) == 1
    assert {e.correlation_id for e in events} == {events[0].id}
    assert len({e.id for e in events}) == 3
    texts = [m.summary for m in world.messages()]
    assert texts[1::2] == texts[::2]  # the line for people follows each event


def test_a_branch_from_what_is_there_brings_no_commits(world: World) -> None:
    work = world.clone(world.origin())
    world.commit(work, "one")
    push(world, work, "main")
    (event,) = push(world, work, "main:topic/a b"[:12])
    assert (event.ref, event.kind, event.commit_count) == ("refs/heads/topic/a", "created", 0)


def test_moving_to_commits_that_another_branch_has_counts_them(world: World) -> None:
    work = world.clone(world.origin())
    world.commit(work, "one")
    push(world, work, "main")
    world.git("checkout", "--quiet", "-b", "topic", cwd=work)
    world.commit(work, "two")
    tip = world.commit(work, "three")
    push(world, work, "topic")
    (event,) = push(world, work, "topic:main")
    assert (event.kind, event.commit_count, event.commits[0].id) == ("moved", 2, tip)


def test_random_histories_are_told_as_git_counts_them(world: World) -> None:
    """Merges, rewrites and several refs at once; the oracle is `git rev-list` on each ref alone."""
    origin = world.origin()
    work = world.clone(origin)
    rng = random.Random(7)
    tree = world.git("hash-object", "-t", "tree", "-w", "--stdin", cwd=work).stdout.strip()
    commits: list[str] = []
    before: dict[str, str] = {}
    for _ in range(12):
        for _ in range(rng.randrange(1, 8)):
            parents = rng.sample(commits, min(len(commits), rng.choice([0, 1, 1, 1, 2, 3])))
            words = [word for parent in parents for word in ("-p", parent)]
            done = world.git("commit-tree", tree, *words, "-m", f"n{len(commits)}", cwd=work)
            commits.append(done.stdout.strip())
        names = [f"refs/heads/b{i}" for i in range(5)]
        after = dict(before)
        for name in rng.sample(names, rng.randrange(1, 6)):
            if name in after and rng.random() < 0.2:
                del after[name]
            else:
                after[name] = rng.choice(commits)
        changed = [name for name in names if before.get(name) != after.get(name)]
        if not changed:
            continue
        events = push(world, work, "--force", *(f"{after.get(name, '')}:{name}" for name in changed))
        assert {e.ref for e in events} == set(changed)
        for event in events:
            old, new = before.get(event.ref), after.get(event.ref)
            if new is None:
                assert event.kind == "deleted"
                continue
            without = [f"^{oid}" for oid in ([old] if old else before.values())]
            expected = rev_list(world, work, new, *without)
            assert event.commit_count == len(expected), event
            assert {c.id for c in event.commits} == set(expected[:50])
            if old:
                ancestor = world.git("merge-base", "--is-ancestor", old, new, cwd=work, check=False).returncode == 0
                assert event.kind == ("moved" if ancestor else "forced")
            else:
                assert event.kind == "created"
        before = after


@pytest.mark.parametrize("path", ["-x", "--upload-pack=touch pwned", "$(touch pwned)", "a;b", "ü/ß", "x" * 200])
def test_hostile_ref_names_are_text_and_nothing_else(world: World, path: str) -> None:
    """Threats 7 and 8: a ref that looks like an option or a command is told as it is, and runs nothing."""
    origin = world.origin()
    work = world.clone(origin)
    ref = "refs/heads/" + path.replace(" ", "\u00a0")
    world.commit(work)
    (event,) = push(world, work, f"main:{ref}")
    assert event.ref == ref
    world.commit(work)
    (event,) = push(world, work, f"main:{ref}")
    assert (event.kind, event.commit_count) == ("moved", 1)
    assert not list(world.root.rglob("pwned"))


def test_a_ref_that_no_message_can_carry_is_named_and_the_others_are_told(world: World) -> None:
    """A ref in Latin-1 cannot be said in JSON: one clear line, and the rest of the push is queued."""
    origin = world.origin()
    work = world.clone(origin)
    commit = world.commit(work)
    world.git("push", "--quiet", "origin", "main", cwd=work)
    world.empty_spool()
    feed = b"%s %s refs/heads/gr\xfc\xdfe\n" % (ZERO_ID.encode(), commit.encode())
    feed += b"%s %s refs/heads/main\n" % (ZERO_ID.encode(), commit.encode())
    done = world.run(origin / "hooks" / "post-receive", cwd=origin, data=feed)
    assert (done.returncode, [e.ref for e in world.events()]) == (0, ["refs/heads/main"])
    (line,) = lines(done)
    assert "1 event queued" in line
    assert "left out not an acceptable ref name" in line


# -- many refs --------------------------------------------------------------------------------------------------------


def test_a_push_of_two_thousand_refs_reads_them_with_one_git(world: World) -> None:
    origin = world.origin()
    work = world.clone(origin)
    base = "commit refs/heads/main\nmark :1\ncommitter A <a@b> 1600000000 +0000\ndata 4\nbase\n"
    each = "commit refs/heads/b{0:04}\ncommitter A <a@b> 16{0:08} +0000\ndata 5\nn{0:04}\nfrom :1\n"
    import_commits(world, work, base + "".join(each.format(n) for n in range(2_000)))
    events = push(world, work, "--all")
    assert len(events) == 2_001
    by_ref = {str(e.ref): e for e in events}
    assert {e.commit_count for e in events} == {1, 2}
    assert by_ref["refs/heads/b1234"].commits[0].message == "n1234"
    assert len(list(world.spool.glob("*.rec"))) == 1
    # All of them move: tips and commits come out of one `git cat-file`, and nothing else is asked.
    old = by_ref["refs/heads/main"].new
    feed = [f"{old} {event.new} {event.ref}\n" for event in events if event.new != old]
    world.empty_spool()
    wrapper = world.directory("bin")
    log = world.write(world.root / "bin" / "log", "", 0o666)
    git = world.git("--exec-path").stdout.strip()
    script = f'#!/bin/sh\necho "$1" >> {log}\nPATH=/usr/bin:/bin:{git} exec git "$@"\n'
    world.write(wrapper / "git", script, 0o755)
    done = world.run(
        origin / "hooks" / "post-receive", cwd=origin, data="".join(feed).encode(), env={"PATH": f"{wrapper}"}
    )
    assert done.returncode == 0
    assert log.read_text().split() == ["cat-file"]
    assert {(e.kind, e.commit_count) for e in world.events()} == {("moved", 1)}


def test_beyond_two_thousand_refs_each_tells_fewer_commits_and_all_are_counted(world: World) -> None:
    """A mirrored repository with all its tags: 50 commits for each would not fit one record file."""
    origin = world.origin()
    work = world.clone(origin)
    head = "commit refs/heads/main\ncommitter A <a@b>"
    import_commits(world, work, "".join(f"{head} {1600000000 + n} +0000\ndata 6\nn{n:05}\n" for n in range(3_000)))
    world.git("push", "--quiet", "origin", "main", cwd=work)
    tips = rev_list(world, work, "main")[:2_500]
    world.git("update-ref", "-d", "refs/heads/main", cwd=origin)
    world.empty_spool()
    feed = "".join(f"{ZERO_ID} {oid} refs/tags/t{n}\n" for n, oid in enumerate(tips)).encode()
    done = world.run(origin / "hooks" / "post-receive", cwd=origin, data=feed)
    assert "2500 events queued in" in lines(done)[0]
    assert [(e.commit_count, len(e.commits)) for e in world.events()] == [(3_000 - n, 40) for n in range(2_500)]


def test_a_push_into_a_namespace_is_told_by_the_refs_that_really_moved(world: World) -> None:
    """git names them to the hook as the pusher sees them: a mirror would look at somebody else's branch."""
    origin = world.origin()
    work = world.clone(origin)
    commit = world.commit(work)
    within = "--receive-pack=git --namespace=a/b receive-pack"
    done = world.git("push", within, "origin", "main", cwd=work)
    assert world.events() == []
    assert "1 ref is not among `refs`" in lines(done)[0]
    world.settle(origin, 'refs = ["refs/*"]\n')
    world.commit(work)
    world.git("push", within, "origin", "main", cwd=work)
    (event,) = world.events()
    assert (event.ref, event.old) == ("refs/namespaces/a/refs/namespaces/b/refs/heads/main", commit)
    assert (event.kind, event.commit_count) == ("moved", 1)
