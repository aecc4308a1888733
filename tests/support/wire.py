"""Events and messages that the tests of the wire share: good ones, and the same with one thing wrong."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from deploykit.errors import MessageError
from deploykit.messages import Commit, Message, RefUpdated
from deploykit.names import ObjectId, RefName, RepoName
from deploykit.wire import CONTENT_TYPE, decode

NATIVE = {"content-type": CONTENT_TYPE}
OLD, NEW = ObjectId("1" * 40), ObjectId("2" * 40)
WHEN = datetime(2026, 11, 23, 7, 50, 4, 123456, tzinfo=UTC)


def push(**changes: Any) -> RefUpdated:
    commit = Commit(id=NEW, author="Ann <a@example.org>", time="2026-01-01T00:00:00Z", message="Fix: it\n\nso")
    base: dict[str, Any] = {
        "id": "5a9c1e6e",
        "source": "git/host",
        "time": WHEN,
        "repo": RepoName("shop"),
        "ref": RefName("refs/heads/main"),
        "old": OLD,
        "new": NEW,
        "commits": (commit,),
        "commit_count": 1,
    }
    return RefUpdated(**(base | changes))


def event(**changes: Any) -> dict[str, Any]:
    """A good event as another client might write it, with members changed; None leaves one out."""
    made = {
        "specversion": "1.0",
        "id": "1",
        "source": "git/host",
        "type": "deploykit.source.ref-updated.v1",
        "time": "2026-11-23T07:50:04Z",
        "data": {"repo": "shop", "ref": "refs/heads/main", "old": OLD, "new": NEW},
    }
    return {k: v for k, v in (made | changes).items() if v is not None}


def data(**changes: Any) -> dict[str, Any]:
    return event(data=event()["data"] | changes)


def read(said: object, headers: dict[str, str] | None = None) -> Message:
    message = decode(headers or NATIVE, json.dumps(said).encode())
    assert message is not None
    return message


def refusal(said: object) -> MessageError:
    with pytest.raises(MessageError) as caught:
        decode(NATIVE, said if isinstance(said, bytes) else json.dumps(said).encode())
    return caught.value
