"""git's post-receive hook on real pushes: every kind of commit, and however many, told as git itself tells them."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploykit.messages.source import COMMIT_TEXT, NAME_TEXT
from tests.support.gitpush import import_commits, push, rev_list
from tests.support.hookworld import World


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
    head = "commit refs/heads/main\ncommitter A <a@b>"
    made = [f"{head} {2000000000 + n} +0000\ndata 3\nn{n:02}\n" for n in range(60)]
    made[0] += "from refs/heads/main^0\n"
    import_commits(world, work, "".join(made))
    (event,) = push(world, work, "main")
    assert event.commit_count == 60
    assert [c.message for c in event.commits] == [f"n{n:02}" for n in range(59, 9, -1)]
    assert [c.id for c in event.commits] == rev_list(world, work, "main")[:50]


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
