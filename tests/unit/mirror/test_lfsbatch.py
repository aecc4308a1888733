"""The batch API: what is asked, and that nothing of a hostile answer gets further than a line for people."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from deploykit.errors import OriginError
from deploykit.git.lfspointer import LfsPointer
from deploykit.mirror.lfs.batch import Download, batches, question, read_answer, reason_of

ONE = LfsPointer("1" * 64, 7)
TWO = LfsPointer("2" * 64, 11)
HREF = "https://cdn.example.net/1?signed=abc"
Change = Callable[[dict[str, Any]], None]


def entry(pointer: LfsPointer = ONE, **changes: object) -> dict[str, Any]:
    action = {"href": HREF, "header": {"X-Key": "secret"}, "expires_in": 60}
    return {"oid": pointer.oid, "size": pointer.size, "actions": {"download": action}, **changes}


def answer(*entries: object, **changes: object) -> bytes:
    return json.dumps({"transfer": "basic", "objects": list(entries), "hash_algo": "sha256", **changes}).encode()


def test_the_question_is_the_one_of_the_api() -> None:
    assert json.loads(question([ONE, TWO])) == {
        "operation": "download",
        "transfers": ["basic"],
        "objects": [{"oid": ONE.oid, "size": 7}, {"oid": TWO.oid, "size": 11}],
        "hash_algo": "sha256",
    }


def test_few_objects_and_bytes_are_asked_for_at_once() -> None:
    many = [LfsPointer(f"{at:064x}", 1) for at in range(250)]
    assert [len(batch) for batch in batches(many)] == [100, 100, 50]
    large = [LfsPointer(f"{at:064x}", 600 << 20) for at in range(3)]
    assert [len(batch) for batch in batches(large)] == [1, 1, 1]
    assert list(batches([])) == []


def test_a_download_is_taken_as_the_server_says() -> None:
    found = read_answer(answer(entry(authenticated=True)), [ONE], allow_http=False)
    assert found == {ONE: Download(url=HREF, headers=(("X-Key", "secret"),), authenticated=True)}
    assert "secret" not in repr(found)
    assert "signed" not in repr(found)


def test_what_may_be_left_out_may_be_left_out() -> None:
    body = json.dumps({"objects": [entry(actions={"download": {"href": HREF}})]}).encode()
    assert read_answer(body, [ONE], allow_http=False) == {ONE: Download(url=HREF)}
    null = answer(entry(actions={"download": {"href": HREF, "header": None}}))
    assert read_answer(null, [ONE], allow_http=False) == {ONE: Download(url=HREF)}


@pytest.mark.parametrize(
    ("code", "says"), [(404, "does not have it"), (410, "removed it"), (422, "git lfs fsck"), (500, "out of luck")]
)
def test_an_error_of_an_object_is_a_line_and_the_others_go_on(code: int, says: str) -> None:
    body = answer(entry(error={"code": code, "message": "out of\nluck" + "k" * 1000}), entry(TWO))
    found = read_answer(body, [ONE, TWO], allow_http=False)
    assert isinstance(found[TWO], Download)
    text = found[ONE]
    assert isinstance(text, str)
    assert says in text
    assert text.isprintable()
    assert len(text) < 200


def test_what_the_server_does_not_name_is_missing() -> None:
    assert read_answer(answer(), [ONE], allow_http=False) == {ONE: "the server's answer does not name it"}


def with_href(href: object) -> Change:
    return lambda listed: listed["actions"]["download"].update(href=href)


def with_header(name: str, value: object = "x") -> Change:
    return lambda listed: listed["actions"]["download"].update(header={name: value})


@pytest.mark.parametrize(
    "change",
    [
        with_href("http://cdn.example.net/1"),
        with_href("ftp://cdn.example.net/1"),
        with_href("file:///etc/passwd"),
        with_href("/1"),
        with_href("https://user:pw@cdn.example.net/1"),
        with_href("https://user@cdn.example.net/1"),
        with_href("https:///1"),
        with_href("https://cdn.example.net:99999/1"),
        with_href("https://cdn.example.net/1\r\nHost: other"),
        with_href("https://cdn.example.net/a b"),
        with_href("https://cdn.example.net/1#x"),
        with_href("https://cdn.example.net\\@evil/1"),
        with_href("https://exämple.net/1"),
        with_href("https://cdn.example.net/" + "x" * 10000),
        with_href(""),
        with_href(None),
        with_href(7),
        with_href(["https://cdn.example.net/1"]),
        with_header("Host"),
        with_header("content-length", "0"),
        with_header("Transfer-Encoding", "chunked"),
        with_header("Connection"),
        with_header("Accept-Encoding", "gzip"),
        with_header("Range", "bytes=0-"),
        with_header("Proxy-Authorization"),
        with_header("X-A\r\nHost"),
        with_header("X A"),
        with_header(""),
        with_header("X-A:"),
        with_header("X-A", "a\r\nHost: b"),
        with_header("X-A", "a\0"),
        with_header("X-A", "€"),
        with_header("X-A", 7),
        with_header("X-A", "x" * 10000),
        lambda listed: listed["actions"]["download"].update(header={"X-A": "1", "x-a": "2"}),
        lambda listed: listed["actions"]["download"].update(header={f"X-{at}": "1" for at in range(33)}),
        lambda listed: listed["actions"]["download"].update(header=["X-A: b"]),
        lambda listed: listed.update(size=-7),
        lambda listed: listed.update(size=8),
        lambda listed: listed.update(size=7.0),
        lambda listed: listed.update(size="7"),
        lambda listed: listed.pop("size"),
        lambda listed: listed.update(actions={}),
        lambda listed: listed.update(actions={"upload": {"href": HREF}}),
        lambda listed: listed.update(actions=[HREF]),
        lambda listed: listed.update(actions={"download": HREF}),
        lambda listed: listed.pop("actions"),
    ],
)
def test_an_object_with_a_lie_is_refused_alone(change: Change) -> None:
    listed = entry()
    change(listed)
    found = read_answer(answer(listed, entry(TWO)), [ONE, TWO], allow_http=False)
    text = found[ONE]
    assert isinstance(text, str)
    assert text.isprintable()
    assert isinstance(found[TWO], Download)


def test_plain_http_is_followed_where_the_mirror_allows_it() -> None:
    listed = entry()
    with_href("http://127.0.0.1:8080/1")(listed)
    assert isinstance(read_answer(answer(listed), [ONE], allow_http=True)[ONE], Download)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no",
        b"[]",
        b"null",
        b'"objects"',
        b"{}",
        b"\xff{}",
        b'{"objects": {}}',
        b'{"objects": [7]}',
        b'{"objects": [], "objects": []}',
        b"[" * 100_000,
        b'{"objects": [' * 50_000,
        b'{"objects": [], "n": ' + b"9" * 10_000 + b"}",
        answer(entry(), entry()),
        answer(entry(), entry(TWO)),
        answer(entry(oid="3" * 64)),
        answer(entry(oid="../../etc")),
        answer(entry(oid=None)),
        answer(entry(oid=["1" * 64])),
        answer(entry(), transfer="ssh"),
        answer(entry(), transfer=None),
        answer(entry(), hash_algo="sha512"),
    ],
)
def test_what_is_no_answer_to_the_question_is_refused_whole_and_not_shown(body: bytes) -> None:
    with pytest.raises(OriginError) as caught:
        read_answer(body, [ONE], allow_http=False)
    assert len(str(caught.value)) < 250
    assert "etc" not in str(caught.value)


def test_the_reason_of_an_error_is_one_line_or_none() -> None:
    assert reason_of(b'{"message": "quota\\u001b[31m exceeded\\n"}') == "quota [31m exceeded"
    assert reason_of(b'{"message": 7}') == ""
    assert reason_of(b"<html>") == ""
