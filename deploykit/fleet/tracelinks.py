"""Which messages belong to a trace: a closure over their keys, found in several passes. Pure.

Rules:

* A push belongs where it brought the commit; what it moved its ref to belongs too, but for the pushes before.
* Builds and fetches belong by the push's correlation id, and by commit.
* Commands belong by commit, or by the ids that were asked for; reports and progress by request or rollout.
* An annotated tag's push names the tag, not the commit. It belongs to the commands for its ref: the newest push before
  the last of them, where no push of that ref is known to belong.
* Sets only grow, and a pass is the last when none did. So neither order nor duplicates change what belongs.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from deploykit.fleet.tracekeys import ABORT, BUILDS, COMMAND, MIRROR, PROGRESS, PUSH, REPORT, ROLLOUT, MessageKeys
from deploykit.fleet.tracesubject import TraceSubject

#: Ids of one kind that are followed. A rollout over 50,000 nodes stays below it.
MOST_IDS: Final = 100_000
_TAGS: Final = "refs/tags/"
_NEVER: Final = datetime.min.replace(tzinfo=UTC)


class TraceLinks:
    """The keys of one trace. For each pass: `belongs` for each message, then `ended`.

    Args:
        subject: where to begin.
    """

    def __init__(self, subject: TraceSubject) -> None:
        self._narrow = subject.narrow
        self._tag = subject.name if subject.kind == "ref" and subject.name.startswith(_TAGS) else ""
        self._since = subject.since
        self._own = set(subject.commits)
        #: Commits and objects that the own commits became part of: tips of their pushes.
        self._tips: set[str] = set()
        self._correlations = set(subject.correlations)
        self._requests = set(subject.requests)
        self._rollouts = set(subject.rollouts)
        #: Rollouts that single commands are part of: they are shown, and their other commands are not.
        self._around: set[str] = set()
        self._pushed: set[str] = set()
        self._tag_pushes: dict[tuple[str, str], set[tuple[datetime, str, str]]] = {}
        self._commanded: dict[str, datetime] = {}
        self._tags_done = False
        self._before = -1
        self.full = False

    def belongs(self, keys: MessageKeys, received: datetime) -> bool:
        """Return whether a message belongs to the trace, as far as that is known in this pass."""
        if keys.type == PUSH:
            return self._push(keys, received)
        if keys.type == MIRROR or keys.type in BUILDS:
            found = self._is_ours(keys.tip) or self._is_tag(keys, received)
            return found or (bool(keys.correlation) and keys.correlation in self._correlations)
        if keys.type == COMMAND:
            return self._command(keys, received)
        if keys.type in (REPORT, PROGRESS):
            return self._answer(keys)
        if keys.type in (ROLLOUT, ABORT):
            return self._rollout(keys, received)
        return False

    def ended(self) -> bool:
        """Return whether the pass that has just ended was the last one: what it returned was all."""
        if self._size != self._before:
            self._before = self._size
            return False
        if self._tags_done:
            return True
        self._tags_done = True
        for (_, ref), pushes in sorted(self._tag_pushes.items()):
            last = self._commanded.get(ref)
            before = [each for each in pushes if last is not None and each[0] <= last]
            if before and ref not in self._pushed:
                _, tip, correlation = max(before)
                self._grow(self._tips, tip)
                self._grow(self._correlations, correlation)
        if self._size == self._before:
            return True
        self._before = self._size
        return False

    # -- one message ---------------------------------------------------------------------------------------------------

    def _push(self, keys: MessageKeys, received: datetime) -> bool:
        brought = keys.tip in self._own or not keys.carried.isdisjoint(self._own)
        found = brought or keys.tip in self._tips or bool({keys.id, keys.correlation} & self._correlations)
        if found:
            self._grow(self._tips, keys.tip)
            self._grow(self._correlations, keys.id)
            self._grow(self._correlations, keys.correlation)
            self._grow(self._pushed, keys.ref)
        elif keys.ref.startswith(_TAGS) and keys.ref in self._commanded:
            known = self._tag_pushes.setdefault((keys.repo, keys.ref), set())
            if len(known) < MOST_IDS:
                known.add((received, keys.tip, keys.id))
        return found

    def _command(self, keys: MessageKeys, received: datetime) -> bool:
        asked = keys.id in self._requests or (bool(keys.rollout) and keys.rollout in self._rollouts)
        by_tag = self._is_tag(keys, received)
        if not asked and (self._narrow or not (self._is_about(keys) or by_tag)):
            return False
        self._grow(self._requests, keys.id)
        self._grow(self._around if self._narrow else self._rollouts, keys.rollout)
        if self._narrow or by_tag:
            for commit in (keys.tip, *sorted(keys.carried)):
                self._grow(self._own, commit)
        if keys.ref.startswith(_TAGS) and received > self._commanded.get(keys.ref, _NEVER):
            self._commanded[keys.ref] = received
        return True

    def _answer(self, keys: MessageKeys) -> bool:
        found = keys.request in self._requests or (bool(keys.rollout) and keys.rollout in self._rollouts)
        if not found and keys.type == REPORT and not self._narrow:
            found = self._is_about(keys)
        if found:
            self._grow(self._requests, keys.request)
        return found

    def _rollout(self, keys: MessageKeys, received: datetime) -> bool:
        if not self._narrow and (self._is_about(keys) or self._is_tag(keys, received)):
            self._grow(self._rollouts, keys.rollout)
            return True
        return keys.rollout in self._rollouts or keys.rollout in self._around

    def _is_tag(self, keys: MessageKeys, received: datetime) -> bool:
        """Return whether a message is about the traced tag, since its newest push."""
        return bool(self._tag) and keys.ref == self._tag and self._since is not None and received >= self._since

    def _is_about(self, keys: MessageKeys) -> bool:
        """Return whether a message is about a commit of the trace, also as one of several parts."""
        return self._is_ours(keys.tip) or any(map(self._is_ours, keys.carried))

    def _is_ours(self, commit: str) -> bool:
        return bool(commit) and (commit in self._own or commit in self._tips)

    def _grow(self, keys: set[str], key: str) -> None:
        if key and key not in keys:
            if len(keys) >= MOST_IDS:
                self.full = True
            else:
                keys.add(key)

    @property
    def _size(self) -> int:
        sets = (self._own, self._tips, self._correlations, self._requests, self._rollouts, self._around)
        return sum(map(len, sets)) + len(self._commanded)
