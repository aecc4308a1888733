"""git's post-receive hook on real pushes: every kind of ref and commit, told as git itself tells it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from deploykit.messages import RefUpdated
from deploykit.messages.source import COMMIT_TEXT, NAME_TEXT
from deploykit.names import ZERO_ID
from tests.support.hookworld import World, lines


def push(world: World, work: Path, *what: str, check: bool = True) -> list[RefUpdated]:
    """Push, and return the events that came of it."""
    world.empty_spool()
    done = world.git("push", "origin", *what, cwd=work, check=check)
    events = world.events()
    count = f"{len(events)} event{'' if len(events) == 1 else 's'} queued"
    assert [line for line in lines(done) if count in line], done.stderr
    return events


def rev_list(world: World, work: Path, *what: str) -> list[str]:
    """What git lists."""
    return world.git("rev-list", "--date-order", *what, cwd=work).stdout.split()


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


# -- commits -----------------------------------------------------------------------------------------------------------


def raw_commit(world: World, work: Path, message: bytes, *, author: bytes = b"Ada <a@b>", encoding: bytes = b"") -> str:
    """Store a commit object byte by byte, on top of main."""
    tree = world.git("rev-parse", "HEAD^{tree}", cwd=work).stdout.strip().encode()
    parent = world.git("rev-parse", "HEAD", cwd=work).stdout.strip().encode()
    head = b"tree %s\nparent %s\nauthor %s 1700000000 +0530\ncommitter C <c@d> 1700000000 +0000\n" % (
        tree,
        parent,
        author,
    )
    head += b"encoding %s\n" % encoding if encoding else b""
    words = ("hash-object", "-t", "commit", "-w", "--stdin", "--literally")
    return world.git(*words, data=head + b"\n" + message, cwd=work).stdout.strip()


@pytest.mark.parametrize(
    ("raw", "encoding", "told"),
    [
        pytest.param("Grüße 🎉 für alle".encode(), b"", "Grüße 🎉 für alle", id="utf-8"),
        pytest.param("Grüße".encode("latin-1"), b"", "Grüße", id="latin-1 unsaid"),
        pytest.param("Grüße".encode("latin-1"), b"ISO-8859-1", "Grüße", id="latin-1"),
        pytest.param("Привет".encode("koi8-r"), b"KOI8-R", "Привет", id="koi8-r"),
        pytest.param("こんにちは".encode("shift-jis"), b"SHIFT-JIS", "こんにちは", id="shift-jis"),
        pytest.param("Grüße 🎉".encode("utf-16"), b"UTF-16", "Grüße 🎉", id="utf-16"),
        pytest.param("Grüße 🎉\n".encode("utf-16"), b"", "Grüße 🎉", id="utf-16 unsaid"),
        pytest.param(bytes(range(1, 256)), b"", None, id="binary"),
        pytest.param(b"one\n\n\ntwo\r\nthree\n\n\n\n", b"", "one\n\n\ntwo\r\nthree", id="newlines"),
        pytest.param(b"", b"", "", id="empty"),
        pytest.param(b"x", b"no-such-thing", "x", id="unknown encoding"),
        pytest.param(b"x" * 3_000_000, b"", "x" * COMMIT_TEXT, id="three megabytes"),
        pytest.param(b"\x1b[2J\x1b]0;owned\x07", b"", "\x1b[2J\x1b]0;owned\x07", id="ansi"),
    ],
)
def test_a_message_in_any_encoding_is_told(world: World, raw: bytes, encoding: bytes, told: str | None) -> None:
    work = world.clone(world.origin())
    world.commit(work)
    push(world, work, "main")
    odd = raw_commit(world, work, raw, author="Jörg <j@ü>".encode(), encoding=encoding)
    (event,) = push(world, work, f"{odd}:refs/heads/main")
    (commit,) = event.commits
    assert commit.id == odd
    assert commit.time == "2023-11-15T03:43:20+05:30"
    if told is not None:
        assert commit.message == told
    if encoding in (b"", b"UTF-16"):
        assert commit.author == "Jörg <j@ü>"
    for message in world.messages():
        assert message.summary.isprintable()


@pytest.mark.parametrize(
    "author", [b"Ada\x1b[31m <a>", b"<>", b"no mail at all", b"\xff\xfe <x>", b"$(touch pwned) <`id`>"]
)
def test_a_hostile_author_is_text_and_nothing_else(world: World, author: bytes) -> None:
    """Threats 7, 18 and 23: the author's name reaches no shell, no header line and no terminal as it is."""
    work = world.clone(world.origin())
    world.commit(work)
    push(world, work, "main")
    odd = raw_commit(world, work, b"subject: a\nreceipt:1\r\n\x00", author=author)
    (event,) = push(world, work, f"{odd}:refs/heads/main")
    assert event.commits[0].id == odd
    for record in world.records():
        headers = "".join(record.frame.headers) + "".join(record.frame.headers.values())
        assert headers.isprintable()
        assert ":" not in record.frame.headers["subject"]
    assert not list(world.root.rglob("pwned"))


def test_fifty_commits_are_told_and_all_are_counted(world: World) -> None:
    work = world.clone(world.origin())
    world.commit(work)
    push(world, work, "main")
    made = [world.commit(work, f"number {n}") for n in range(60)]
    (event,) = push(world, work, "main")
    assert event.commit_count == 60
    assert [c.id for c in event.commits] == made[:-51:-1]


def import_commits(world: World, work: Path, stream: str) -> None:
    """Feed `git fast-import`."""
    world.git("fast-import", "--quiet", "--force", data=stream.encode(), cwd=work, timeout=300)


def test_a_push_of_ten_thousand_commits(world: World) -> None:
    work = world.clone(world.origin())
    head = "commit refs/heads/main\ncommitter A <a@b>"
    import_commits(world, work, "".join(f"{head} {1600000000 + n} +0000\ndata 6\nn{n:05}\n" for n in range(10_000)))
    (event,) = push(world, work, "main")
    assert (event.commit_count, len(event.commits)) == (10_000, 50)
    assert [c.message for c in event.commits] == [f"n{n:05}" for n in range(9_999, 9_949, -1)]


@pytest.mark.parametrize("legacy", ["true", "false"])
def test_the_longest_texts_of_fifty_commits_fit_a_message(world: World, legacy: str) -> None:
    work = world.clone(world.origin(settings=f"legacy = {legacy}\n"))
    text = "\U0001f389" * COMMIT_TEXT
    head = f"commit refs/heads/main\ncommitter {text[:NAME_TEXT]} <a@b>"
    one = f"{head} 1600000000 +0000\ndata {len(text.encode())}\n{text}\n"
    import_commits(world, work, one * 50)
    (event,) = push(world, work, "main")
    assert (event.commit_count, len(event.commits)) == (50, 50)


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


# -- forges: what they run, and in which environment -------------------------------------------------------------------

#: A dispatcher like Gitea's and Forgejo's: every hook of the directory gets the input, the first failure is the result.
_GITEA = """\
#!/bin/sh
input=$(cat)
name=$(basename "$0")
code=0
for each in "${GIT_DIR:-.}"/hooks/"${name}".d/*; do
  test -x "$each" || continue
  echo "$input" | "$each" || code=$?
done
exit $code
"""
#: Gitaly runs git's hooks from a directory of its own, and from there the repository's custom_hooks.
_GITALY = """\
#!/bin/sh
input=$(cat)
for each in "$GIT_DIR"/custom_hooks/$(basename "$0").d/*; do echo "$input" | "$each" || exit 1; done
"""
GITEA = {
    "GITEA_REPO_NAME": "shop", "GITEA_REPO_USER_NAME": "team", "GITEA_REPO_IS_WIKI": "false", "GITEA_REPO_ID": "7",
    "GITEA_PUSHER_NAME": "ada", "GITEA_PUSHER_EMAIL": "ada@example.org", "GITEA_PUSHER_ID": "3", "GITEA_KEY_ID": "9",
    "SSH_ORIGINAL_COMMAND": "gitea-internal",
}  # fmt: skip
GITLAB = {
    "GL_ID": "user-3", "GL_USERNAME": "ada", "GL_PROJECT_PATH": "team/shop", "GL_PROTOCOL": "ssh",
    "GL_REPOSITORY": "project-7",
}  # fmt: skip


@pytest.mark.parametrize("forge", ["gitea", "gitlab"])
def test_a_forge_runs_it_from_its_directory_and_names_repository_and_pusher(world: World, forge: str) -> None:
    origin = world.origin("3f9a.git", install=False)  # a hashed name: only the forge knows what it is called
    if forge == "gitea":
        world.write(origin / "hooks" / "post-receive", _GITEA, 0o755)
        place = world.directory("3f9a.git/hooks/post-receive.d")
        world.write(place / "gitea", "#!/bin/sh\ncat >/dev/null\n", 0o755)
    else:
        own = world.directory("gitaly")
        world.write(own / "post-receive", _GITALY, 0o755)
        place = world.directory("3f9a.git/custom_hooks") / "post-receive.d"
    installed = world.deploykit("hooks", "install", origin)
    assert installed.returncode == 0, installed.stderr
    assert [p.name for p in place.iterdir() if "deploykit" in p.name] == ["50-deploykit"]
    if forge == "gitlab":
        world.git("config", "core.hooksPath", own, cwd=origin)
    work = world.clone(origin)
    world.commit(work)
    done = world.git("push", "origin", "main", cwd=work, env=GITEA if forge == "gitea" else GITLAB)
    assert lines(done) == [f"deploykit: 1 event queued in {world.spool}; no relay is at work"]
    (event,) = world.events()
    assert (event.repo, event.pusher, event.ref, event.commit_count) == ("team/shop", "ada", "refs/heads/main", 1)


# -- who and where -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "who"),
    [
        ({"GL_USER": "ada"}, "ada"),
        ({"GITEA_PUSHER_NAME": "bob", "GITEA_PUSHER_EMAIL": "b@c"}, "bob"),
        ({"GL_USERNAME": "carol", "GL_ID": "key-7"}, "carol"),
        ({"GL_ID": "key-7"}, "key-7"),
        ({"REMOTE_USER": "dave"}, "dave"),
        ({"GL_USER": "a\nb\x1b[31m"}, "a b [31m"),
        ({"USER": "liar", "LOGNAME": "liar"}, None),
    ],
)
def test_the_pusher_is_who_the_forge_let_in(world: World, env: dict[str, str], who: str | None) -> None:
    work = world.clone(world.origin())
    world.commit(work)
    world.git("push", "origin", "main", cwd=work, env=env)
    (event,) = world.events()
    assert event.pusher == who if who else event.pusher not in ("", "liar")


@pytest.mark.parametrize(
    ("place", "settings", "env", "name"),
    [
        ("shop.git", "", {}, "shop"),
        ("group/sub/shop.git", "", {}, "shop"),
        ("group/sub/shop.git", 'root = "{root}"\n', {}, "group/sub/shop"),
        ("x.git", 'repo = "team/other"\n', {"GL_REPO": "not/this"}, "team/other"),
        ("x.git", "", {"GL_REPO": "team/gitolite"}, "team/gitolite"),
        ("x.git", "", {"GITEA_REPO_USER_NAME": "team", "GITEA_REPO_NAME": "gitea"}, "team/gitea"),
        ("x.git", "", {"GL_REPOSITORY": "project-7", "GL_PROJECT_PATH": "team/gitlab"}, "team/gitlab"),
    ],
)
def test_the_repository_is_named_by_settings_place_or_forge(
    world: World, place: str, settings: str, env: dict[str, str], name: str
) -> None:
    origin = world.origin(place, settings.format(root=world.root))
    work = world.clone(origin)
    world.commit(work)
    world.git("push", "origin", "main", cwd=work, env=env)
    assert [e.repo for e in world.events()] == [name]


@pytest.mark.parametrize("name", ["../../etc", "/etc/passwd", "a b", "x\ny", "-x"])
def test_a_hostile_repository_name_is_refused_in_one_line(world: World, name: str) -> None:
    """Threat 9: a name from the environment is parsed like any other."""
    work = world.clone(world.origin())
    world.commit(work)
    done = world.git("push", "origin", "main", cwd=work, env={"GL_REPO": name})
    assert world.events() == []
    (line,) = lines(done)
    assert "nothing queued: not a repository name" in line
    assert 'repo = "NAME"' in line


def test_settings_may_stand_in_git_config(world: World) -> None:
    origin = world.origin()
    (origin / "deploykit.toml").unlink()
    for key, value in (
        ("spool", str(world.spool)),
        ("repo", "by/config"),
        ("notices", "no"),
        ("topics.source", "/topic/x"),
    ):
        world.git("config", f"deploykit.{key}", value, cwd=origin)
    world.git("config", "--add", "deploykit.refs", "refs/heads/*", cwd=origin)
    work = world.clone(origin)
    world.commit(work)
    world.git("tag", "v1", cwd=work)
    world.git("push", "origin", "main", "v1", cwd=work)
    (record,) = world.records()
    assert record.destination == "/topic/x"
    assert world.events()[0].repo == "by/config"


@pytest.mark.parametrize("text", ["[include]\n\tpath = nowhere\n", '[remote "x"]\n\turl = /srv/deploykit.git\n'])
def test_a_git_config_that_says_nothing_to_us_is_no_trouble(world: World, text: str) -> None:
    """Nothing of ours is in it, though at a first look something might be."""
    origin = world.origin()
    with (origin / "config").open("a") as file:
        file.write(text)
    work = world.clone(origin)
    world.commit(work)
    assert len(push(world, work, "main")) == 1


def test_a_git_config_includes_settings_of_ours(world: World) -> None:
    origin = world.origin()
    world.write(world.root / "included", "[deploykit]\n\trepo = by/include\n\tnotices\n")
    world.git("config", "include.path", world.root / "included", cwd=origin)
    work = world.clone(origin)
    world.commit(work)
    (event,) = push(world, work, "main")
    assert event.repo == "by/include"


def test_a_repository_with_a_work_tree_is_told_by_its_directory(world: World) -> None:
    place = world.directory("site")
    world.git("init", "--quiet", place)
    world.git("config", "receive.denyCurrentBranch", "ignore", cwd=place)
    world.settle(place / ".git")
    assert world.deploykit("hooks", "install", place).returncode == 0
    work = world.clone(place)
    world.commit(work)
    (event,) = push(world, work, "main")
    assert event.repo == "site"


def test_a_sha256_repository(world: World) -> None:
    place = world.directory("new.git")
    world.git("init", "--quiet", "--bare", "--object-format=sha256", place)
    world.settle(place)
    assert world.deploykit("hooks", "install", place).returncode == 0
    work = world.directory("work")
    world.git("init", "--quiet", "--object-format=sha256", work)
    world.git("remote", "add", "origin", place, cwd=work)
    commit = world.commit(work)
    (event,) = push(world, work, "main")
    assert (event.new, event.kind, event.commit_count, len(event.old)) == (commit, "created", 1, 64)
    world.git("config", "receive.denyDeleteCurrent", "ignore", cwd=place)
    (event,) = push(world, work, ":main")
    assert event.kind == "deleted"


def test_git_is_the_one_that_runs_the_hook_and_its_settings_do_not_show(world: World) -> None:
    """Settings that change what `git log` prints change nothing here: commits are read as git stores them."""
    origin = world.origin()
    for key, value in (
        ("log.showSignature", "true"),
        ("i18n.logOutputEncoding", "UTF-16"),
        ("format.pretty", "oneline"),
    ):
        world.git("config", key, value, cwd=origin)
    work = world.clone(origin)
    world.commit(work, "Grüße")
    (event,) = push(world, work, "main")
    assert event.commits[0].message == "Grüße"
