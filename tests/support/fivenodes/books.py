"""After a rollout: does each node have the old or the new release whole, and do all the records say the same?

Read from the disks of the nodes and of the desk, and from what was heard on the bus; no agent is asked.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import attrs

from deploykit.fleet.journal import CommandRecord, EventRecord
from deploykit.fleet.plan import Target
from deploykit.fleet.rolloutevents import NodeAnswered
from deploykit.messages import DeployReported, DeployRequested
from deploykit.operations.rolloutstore import StoredRollout
from deploykit.release import Operation, Site
from deploykit.release.journal import read_journal
from tests.support.fivenodes.world import FiveNodes, Place
from tests.support.node import git
from tests.support.wait import wait_until

#: What a release has beside the tree of its commit.
_OURS = frozenset({"TAG", ".deploykit/REVISION"})


@attrs.frozen(kw_only=True)
class Books:
    """What is compared.

    Args:
        old, new: what was live on all nodes before, and what was to be.
        away: nodes whose agents do not run: they may keep something prepared.
    """

    fleet: FiveNodes
    old: Target
    new: Target
    away: frozenset[str] = frozenset()

    def compare(self, **live: str) -> StoredRollout:
        """Compare everything with the newest rollout, which has ended, and return it.

        Args:
            live: what is expected to be live: `web1="new"`; the other nodes have the old release.
        """
        stored = self.fleet.desk.stored
        assert stored.end is not None, "the rollout has not ended"
        assert stored.end.state == stored.model.state
        for short, place in self.fleet.places.items():
            wanted = self.new if live.get(short, "old") == "new" else self.old
            try:
                self._compare(place, stored, wanted)
            except AssertionError as error:
                error.add_note(f"on {short}; {stored.model.state}: {stored.model.nodes[place.name]}")
                raise
        assert self.fleet.books.dead_letters == []
        return stored

    def live(self) -> dict[str, str]:
        """Return which nodes have the new release, whole; the others have the old one."""
        found = {short: self._whole(place) for short, place in self.fleet.places.items()}
        return {short: "new" for short, target in found.items() if target == self.new}

    # -- one node ------------------------------------------------------------------------------------------------------

    def _compare(self, place: Place, stored: StoredRollout, wanted: Target) -> None:
        assert self._whole(place) == wanted
        status = stored.model.nodes[place.name]
        if status.state == "active":
            assert wanted == self.new
        elif status.state in ("skipped", "rolled-back", "pending"):
            assert wanted == self.old
        if status.live is not None:
            assert status.live == wanted, "the journal's last report says otherwise"
        self._compare_records(place, stored)
        self._compare_reports(place, stored)

    def _whole(self, place: Place) -> Target:
        """Return what is live on a node; fail where it is not whole, or where the site's records say otherwise."""
        site = Site(place.site)
        current = site.current()
        assert current is not None, "nothing is live"
        found = next((one for one in (self.old, self.new) if one.commit == current.commit), None)
        assert found is not None, f"neither the old nor the new release is live: {current.ref} {current.commit}"
        assert current.ref == found.ref
        files = {path: text for path, text in _files(site.current_link) if path not in _OURS}
        assert files == _tree(self.fleet, found), "the live release is not the tree of its commit"
        return found

    def _compare_records(self, place: Place, stored: StoredRollout) -> None:
        """Compare the site's own records with the journal: nothing unfinished, nothing left, nothing done twice."""
        site, short = Site(place.site), place.short
        unfinished = read_journal(site.journal_file)
        assert unfinished is None, f"an operation is unfinished: {unfinished}"
        left = [release.name for release in site.releases() if release.status == "prepared" and release.present]
        assert not left or short in self.away, f"still prepared: {left}"
        sent = {record.command.request.id for record in stored.contents.records if isinstance(record, CommandRecord)}
        mine = self._operations(place, stored)
        assert {one.request for one in mine} <= sent, "the node acted on a command that the journal does not hold"
        done = Counter(one.phase for one in mine if one.outcome == "success")
        assert max(done.values(), default=0) <= 1, f"done twice: {done}"
        requests = Counter(one.request for one in mine if one.outcome != "interrupted")
        assert max(requests.values(), default=0) <= 1, f"acted twice on one command: {requests}"

    def _compare_reports(self, place: Place, stored: StoredRollout) -> None:
        """Compare what was believed with what was heard, and with the site's records."""
        requests = {
            record.command.request.id: record.command.request
            for record in stored.contents.records
            if isinstance(record, CommandRecord) and place.name in record.command.request.audience
        }
        events = [record.event for record in stored.contents.records if isinstance(record, EventRecord)]
        for event in events:
            if isinstance(event, NodeAnswered) and event.node == place.name:
                report = self._report(place, event, requests, doubted=place.name in stored.doubts)
                assert (report.outcome, report.phase) == (event.outcome, event.phase)
                self._compare_outcome(place, stored, report)

    def _report(
        self, place: Place, event: NodeAnswered, requests: dict[str, DeployRequested], *, doubted: bool
    ) -> DeployReported:
        """Return the report that was believed: the node's only one on its command; `doubted`: with its outcome."""
        books = self.fleet.books

        def heard() -> list[DeployReported]:
            return books.of(
                DeployReported,
                lambda one: one.node == place.name and one.request in requests and one.phase == event.phase,
            )

        def believed() -> list[DeployReported]:
            return [one for one in heard() if one.outcome == event.outcome]

        wait_until(believed, f"the report of {place.short} on {event.phase}")  # the books may be slower than the desk
        count = Counter(one.request for one in (believed() if doubted else heard()))
        assert max(count.values()) == 1, f"more than one report on one command: {count}"
        assert all(books.signed_by(one, place.name) for one in heard())
        return believed()[0]

    def _compare_outcome(self, place: Place, stored: StoredRollout, report: DeployReported) -> None:
        """Compare a report with what the site has on record of its command."""
        mine = [one for one in self._operations(place, stored) if one.request == report.request]
        if report.outcome == "refused":
            assert not mine, f"refused, and acted on: {mine}"
        elif report.phase == "discard":
            assert all(one.outcome == report.outcome for one in mine)  # where nothing waits, nothing is noted
        else:
            assert [one.outcome for one in mine if one.outcome != "interrupted"] == [report.outcome], mine

    def _operations(self, place: Place, stored: StoredRollout) -> list[Operation]:
        return [one for one in Site(place.site).history() if one.rollout == stored.plan.rollout]


def _files(root: Path) -> Iterator[tuple[str, str]]:
    """Yield each file of a release with the id that git gives its content."""
    base = root.resolve()
    for path in sorted(base.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            yield str(path.relative_to(base)), hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _tree(fleet: FiveNodes, target: Target) -> dict[str, str]:
    lines = git("ls-tree", "-r", target.commit, cwd=fleet.origin.path).splitlines()
    return {path: words.split()[2] for words, _, path in (line.partition("\t") for line in lines)}
