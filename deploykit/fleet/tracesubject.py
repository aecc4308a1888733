"""What a trace is about: a text of a person, and which commit, ref or id of the messages it means. Pure.

Rules:

* An id is meant before a commit, and a commit before a ref. A whole name is meant before the beginning of another.
* The beginning of a commit (4 digits) or of an id (6 characters) is enough where it is the only one.
* A ref without `refs/heads/` or `refs/tags/` is enough where it is the only one.
* A ref means its newest push: what was pushed to it before is another trace.
* Whatever the order of the messages, the answer is the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Final

import attrs

from deploykit.fleet.tracekeys import COMMAND, PUSH, MessageKeys
from deploykit.names import RefName, short_ref

#: Meanings that are collected of one text, and that an error lists.
_MOST: Final = 1000
_LISTED: Final = 20
_HEX: Final = re.compile(r"[0-9a-f]{4,64}\Z")


@attrs.frozen(kw_only=True, slots=True)
class TraceSubject:
    """What is traced.

    Args:
        kind: `commit`, `ref`, or what has the id: `rollout`, `request`, `message`.
        name: the whole id, commit or ref.
        repo: of a ref, where it is known.
        commits: where to begin.
        correlations, requests, rollouts: ids to begin with.
        narrow: of the deploys, only what has these ids; else all of the commits.
        since: when the newest push of the ref was recorded: what is asked for its tag after that belongs too.
        older: how many earlier pushes of the ref there are.
    """

    kind: str
    name: str
    repo: str = ""
    commits: frozenset[str] = frozenset()
    correlations: frozenset[str] = frozenset()
    requests: frozenset[str] = frozenset()
    rollouts: frozenset[str] = frozenset()
    narrow: bool = False
    since: datetime | None = None
    older: int = 0


@attrs.frozen(kw_only=True, slots=True)
class Ambiguous:
    """A text that means several things: each with its kind, at most 20, and how many there are."""

    meanings: tuple[str, ...]
    count: int


@attrs.define(slots=True)
class _Ref:
    """What is known of one ref of one repository."""

    pushes: dict[tuple[str, str], datetime] = attrs.field(factory=dict)  # (id, tip) -> when it was first seen
    newest: tuple[datetime, str] | None = None


class SubjectFinder:
    """Looks at the keys of each message, and then says what a text means.

    Args:
        text: an id, a commit or a ref.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._hex = text.lower() if _HEX.match(text.lower()) else ""
        self._commits: set[str] = set()
        self._ids: dict[str, set[str]] = {}  # id -> kinds
        self._id_commits: dict[str, set[str]] = {}
        self._id_correlations: dict[str, set[str]] = {}
        self._id_requests: dict[str, set[str]] = {}
        self._refs: dict[tuple[str, str], _Ref] = {}

    def add(self, keys: MessageKeys, received: datetime) -> None:
        """Look at one message."""
        if self._hex:
            for each in keys.objects:
                if each.startswith(self._hex) and len(self._commits) < _MOST:
                    self._commits.add(each)
        for kind, each in (
            ("rollout", keys.rollout),
            ("request", keys.request),
            ("request" if keys.type == COMMAND else "message", keys.id),
            ("message", keys.correlation),
        ):
            if each and each.startswith(self._text) and (each == self._text or len(self._text) >= 6):
                self._note_id(each, kind, keys)
        if keys.ref and (keys.ref == self._text or short_ref(RefName(keys.ref)) == self._text):
            self._note_ref(keys, received)

    def _note_id(self, name: str, kind: str, keys: MessageKeys) -> None:
        if name not in self._ids and len(self._ids) >= _MOST:
            return
        self._ids.setdefault(name, set()).add(kind)
        for known, found in (
            (self._id_commits, keys.tip),
            (self._id_correlations, keys.correlation),
            (self._id_requests, keys.request),
        ):
            values = known.setdefault(name, set())
            if found and len(values) < _MOST:
                values.add(found)

    def _note_ref(self, keys: MessageKeys, received: datetime) -> None:
        place = keys.repo, keys.ref
        if place not in self._refs and len(self._refs) >= _MOST:
            return
        found = self._refs.setdefault(place, _Ref())
        at = received, keys.tip
        if keys.type == PUSH:
            push = keys.id, keys.tip
            if push in found.pushes or len(found.pushes) < _MOST:
                found.pushes[push] = min(received, found.pushes.get(push, received))
        elif keys.tip and (found.newest is None or at > found.newest):
            found.newest = at

    def result(self) -> TraceSubject | Ambiguous | None:
        """Return what the text means; None where no message has it."""
        if self._text in self._ids:
            return self._id_subject(self._text)
        if self._hex in self._commits:
            return _commit_subject(self._hex)
        refs = self._refs_by_repo()
        whole = [(repo, ref) for repo, ref in refs if ref == self._text]
        if len(whole) == 1:
            return self._ref_subject(*whole[0])
        meanings: dict[str, Callable[[], TraceSubject]] = {}
        for commit in sorted(self._commits):
            meanings[f"commit {commit}"] = partial(_commit_subject, commit)
        for name in sorted(self._ids):
            meanings[f"{self._kind(name)} {name}"] = partial(self._id_subject, name)
        for repo, ref in sorted(refs):
            meanings[f"ref {ref}{f' of {repo}' if repo else ''}"] = partial(self._ref_subject, repo, ref)
        if len(meanings) > 1:
            return Ambiguous(meanings=tuple(meanings)[:_LISTED], count=len(meanings))
        return next(iter(meanings.values()))() if meanings else None

    def _kind(self, name: str) -> str:
        kinds = self._ids[name]
        return next(kind for kind in ("rollout", "request", "message") if kind in kinds)

    def _id_subject(self, name: str) -> TraceSubject:
        kind = self._kind(name)
        requests = frozenset({name}) if kind == "request" else frozenset(self._id_requests[name])
        return TraceSubject(
            kind=kind,
            name=name,
            commits=frozenset(self._id_commits[name]),
            correlations=frozenset({name, *self._id_correlations[name]}) if kind == "message" else frozenset(),
            requests=requests if kind != "rollout" else frozenset(),
            rollouts=frozenset({name}) if kind == "rollout" else frozenset(),
            narrow=kind in ("rollout", "request") or bool(requests),
        )

    def _refs_by_repo(self) -> dict[tuple[str, str], None]:
        """Return the refs that may be meant: a command names no repository, and is of any that has the ref."""
        with_repo = {ref for repo, ref in self._refs if repo}
        return {(repo, ref): None for repo, ref in self._refs if repo or ref not in with_repo}

    def _ref_subject(self, repo: str, ref: str) -> TraceSubject:
        found = self._refs[repo, ref]
        if not found.pushes:
            others = [each.newest for (_, name), each in self._refs.items() if name == ref and each.newest is not None]
            commits = frozenset({max(others)[1]}) if others else frozenset()
            return TraceSubject(kind="ref", name=ref, repo=repo, commits=commits)
        since, (push, tip) = max((at, push) for push, at in found.pushes.items())
        return TraceSubject(
            kind="ref",
            name=ref,
            repo=repo,
            commits=frozenset({tip} - {""}),
            correlations=frozenset({push} - {""}),
            since=since,
            older=len(found.pushes) - 1,
        )


def _commit_subject(commit: str) -> TraceSubject:
    return TraceSubject(kind="commit", name=commit, commits=frozenset({commit}))
