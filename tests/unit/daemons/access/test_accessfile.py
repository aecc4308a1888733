"""The text of access files: ours go in and out, somebody else's stay byte for byte, and nothing can be injected."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.daemons.access.accessfile import (
    FileForm,
    HtpasswdForm,
    UserlistForm,
    find_user,
    taken_back,
    with_user,
    without_user,
)
from deploykit.errors import AccessError

UNTIL = datetime(2026, 12, 31, 12, 30, 15, tzinfo=UTC)
HASH = "$6$saltsalt$" + "a" * 86
HTPASSWD = HtpasswdForm()
USERLIST = UserlistForm("stage")
CONFIG = (
    b"global\n\tdaemon\n\nuserlist other\n\tuser bob password $5$x$y\n\n"
    b"userlist stage # ours\n\tgroup g\n\nfrontend x\n"
)


def test_a_user_stands_in_an_htpasswd_file_with_the_end_of_the_access() -> None:
    content = with_user(b"", HTPASSWD, "alice", HASH, UNTIL)
    assert content == f"alice:{HASH}:deploykit-until=20261231T123015Z\n".encode()
    assert [(each.user, each.hash, each.until) for each in HTPASSWD.users(content)] == [("alice", HASH, UNTIL)]


def test_a_user_stands_in_the_userlist_that_is_named_and_in_no_other_section() -> None:
    content = with_user(CONFIG, USERLIST, "alice", HASH, UNTIL)
    line = f"\tuser alice password {HASH} # deploykit-until=20261231T123015Z\n".encode()
    assert content == CONFIG.replace(b"\tgroup g\n", b"\tgroup g\n" + line)
    assert [each.user for each in USERLIST.users(content)] == ["alice"]
    assert without_user(content, USERLIST, "alice") == CONFIG


@pytest.mark.parametrize("form", [HTPASSWD, USERLIST])
def test_a_second_grant_changes_the_line_where_it_stands(form: FileForm) -> None:
    start = b"userlist stage\n" if form is USERLIST else b"# list\n"
    content = with_user(start, form, "alice", HASH, UNTIL)
    content = with_user(content, form, "bob", HASH, UNTIL)
    changed = with_user(content, form, "alice", HASH.replace("a", "b"), UNTIL)
    assert [each.user for each in form.users(changed)] == ["alice", "bob"]
    assert changed.splitlines()[2] == content.splitlines()[2]


FOREIGN = st.lists(
    st.sampled_from(
        [
            b"# a comment",
            b"",
            b"monitor:$apr1$x$y",
            b"j\xf6rg:{SHA}x",
            b"with blank:$6$a$b:Full Name",
            b"colonless",
            b"crlf:$2y$05$x\r",
            b"alice2:$6$a$b:deploykit-until=never",
            b" :",
        ]
    ),
    max_size=8,
)


@given(lines=FOREIGN, newline=st.booleans())
def test_what_others_wrote_stays_byte_for_byte(lines: list[bytes], newline: bool) -> None:
    before = b"\n".join(lines) + (b"\n" if newline and lines else b"")
    content = with_user(before, HTPASSWD, "alice", HASH, UNTIL)
    assert content.startswith(before)
    kept = without_user(content, HTPASSWD, "alice")
    assert kept in (before, before + b"\n", before + b"\r\n")


@pytest.mark.parametrize(
    ("form", "content"),
    [
        (HTPASSWD, b"alice:$6$a$b\n"),
        (HTPASSWD, b"alice:$6$a$b:Alice A.\n"),
        (HTPASSWD, b"alice:$6$a$b:deploykit-until=20261399T000000Z\n"),
        (USERLIST, b"userlist stage\n  user alice insecure-password secret\n"),
        (USERLIST, b'userlist stage\n  user "alice" password $6$a$b groups g\n'),
    ],
)
def test_somebody_elses_line_is_neither_changed_nor_removed(form: FileForm, content: bytes) -> None:
    with pytest.raises(AccessError, match="somebody else's hand"):
        with_user(content, form, "alice", HASH, UNTIL)
    with pytest.raises(AccessError, match="somebody else's hand"):
        without_user(content, form, "alice")


def test_somebody_elses_second_line_for_a_user_of_ours_is_noticed() -> None:
    content = with_user(b"", HTPASSWD, "alice", HASH, UNTIL) + b"alice:{SHA}x\n"
    with pytest.raises(AccessError, match="somebody else's hand"):
        with_user(content, HTPASSWD, "alice", HASH, UNTIL)
    assert without_user(content, HTPASSWD, "alice") == b"alice:{SHA}x\n", "ours ends in any case"


@pytest.mark.parametrize(
    "user", ["a:b", "a\nb:x", "a b", "#a", "", "-a", "a" * 65, "jörg", "a\0", "a\tb", '"a"', "a#b"]
)
@pytest.mark.parametrize("form", [HTPASSWD, USERLIST])
def test_no_name_can_be_more_than_a_name(form: FileForm, user: str) -> None:
    with pytest.raises(AccessError):
        with_user(b"userlist stage\n", form, user, HASH, UNTIL)


@pytest.mark.parametrize(
    "hash", ["", "clear", "$6$a b$c" + "d" * 9, "$6$a\nroot:x$" + "d" * 9, "$6$a#b$ccccc", "$6$a:b$ccccc"]
)
def test_no_hash_can_be_more_than_a_hash(hash: str) -> None:
    with pytest.raises(AccessError):
        with_user(b"", HTPASSWD, "alice", hash, UNTIL)


def test_a_file_without_the_userlist_is_refused() -> None:
    for content in (b"", b"userlist other\n", b"# userlist stage\n", b"userlist\n"):
        with pytest.raises(AccessError, match="there is no userlist stage"):
            with_user(content, USERLIST, "alice", HASH, UNTIL)


def test_line_ends_are_those_of_the_file() -> None:
    content = with_user(b"bob:$6$a$b\r\n", HTPASSWD, "alice", HASH, UNTIL)
    assert content.endswith(b"Z\r\n")
    assert content.count(b"\n") == 2


def test_the_first_of_two_lines_counts() -> None:
    users = HTPASSWD.users(b"alice:one\nalice:two\n")
    found = find_user(users, "alice")
    assert found is not None
    assert found.hash == "one"


def test_what_apache_reads_as_a_name_is_somebody_elses_line() -> None:
    with pytest.raises(AccessError, match="somebody else's hand"):
        with_user(b" \talice:$apr1$a$b\n", HTPASSWD, "alice", HASH, UNTIL)


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_no_line_is_put_behind_a_backslash(end: bytes) -> None:
    with pytest.raises(AccessError, match="backslash"):
        with_user(b"bob:$apr1$a$b\\" + end, HTPASSWD, "alice", HASH, UNTIL)


def test_what_is_taken_back_leaves_what_others_wrote() -> None:
    old = with_user(with_user(b"bob:x\n", HTPASSWD, "kept", HASH, UNTIL), HTPASSWD, "gone", HASH, UNTIL)
    new = with_user(without_user(old, HTPASSWD, "gone"), HTPASSWD, "alice", HASH, UNTIL)
    now = b"first:y\n" + new.replace(b"bob:x", b"bob:z") + b"dave:y\n"
    found = HTPASSWD.users(taken_back(now, HTPASSWD, old, new))
    assert [each.user for each in found if each.ours] == ["kept", "gone"]
    assert [(each.user, each.hash) for each in found if not each.ours] == [("first", "y"), ("bob", "z"), ("dave", "y")]
