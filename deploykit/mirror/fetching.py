"""One fetch, under the mirror's lock: the shell around the pure parts.

    list refs -> plan (deletions first) -> offer what we hold -> pack into quarantine -> check its links -> judge by the
    policies, now that history can be read -> refs, all in one durable step

Rules: nothing is visible before the last step; only what the origin stated in this very session is done.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

from deploykit.errors import InvalidName, MirrorCorrupt, OriginError
from deploykit.git.commits import History
from deploykit.git.incoming import IncomingPack, ReceivedPack
from deploykit.git.objectformat import COMMIT, HashKind
from deploykit.git.packscanner import PackScanner, ScanLimits
from deploykit.git.store import ObjectStore
from deploykit.git.transport.address import parse_origin_url
from deploykit.git.transport.protocol import EarlyRequest, OriginProfile, OriginSession, RefListing, VersionMismatch
from deploykit.git.transport.remote import open_link
from deploykit.mirror import checking, layout, negotiation
from deploykit.mirror.model import FetchResult, Progress, ProgressFn, RefChange, Refusal
from deploykit.mirror.policy import judge
from deploykit.mirror.refplan import RefPlan, common_prefixes, plan_refs, read_advertised, ref_matcher
from deploykit.mirror.refstore import RefStore
from deploykit.mirror.signing import SignatureCheck
from deploykit.names import ObjectId, RefName, is_zero, parse_ref_name
from deploykit.settings.mirror import MirrorSettings
from deploykit.system.deadline import Deadline

_log = logging.getLogger(__name__)
_PROGRESS_EVERY: Final = 0.1

Phase = Literal["listing", "receiving", "resolving", "checking", "refs"]


class Fetch:
    """A fetch that holds the lock of the mirror at `path`."""

    def __init__(
        self,
        path: Path,
        url: str,
        settings: MirrorSettings,
        refs: RefStore,
        limit: Deadline,
        progress: ProgressFn | None,
    ) -> None:
        self._path = path
        self._origin = layout.origin_digest(url)
        self._address = parse_origin_url(url, allow_http=settings.allow_http)
        self._settings = settings
        self._refs = refs
        self._limit = limit
        self._progress = progress
        self._began = time.monotonic()
        self._next_progress = self._began
        self._phase: Phase = "listing"
        self._incoming: IncomingPack | None = None

    def run(self, expected: RefChange | None, started: float, *, allow_mass_deletion: bool) -> FetchResult:
        """Fetch, move the refs, and return what was done."""
        self._room()
        state = layout.read_state(self._path)
        profile = state.profile if state.origin == self._origin else None
        if not state.origin:
            self._adopt()
        matcher = ref_matcher(self._settings.refs)
        held = {ref: oid for ref, oid in self._refs.read().items() if matcher.match(ref)}
        with ObjectStore(self._path, layout.read_format(self._path)) as objects:
            try:
                listing, plan, taken = self._converse(objects, held, profile, expected, allow_mass_deletion)
            except VersionMismatch as exc:
                _log.debug("%s: asking %s first: %s", self._path.name, self._address.shown, exc)
                listing, plan, taken = self._converse(objects, held, None, expected, allow_mass_deletion)
            changes, refused = self._settle(objects, plan, taken)
        self._follow_head(listing)
        if listing.profile != state.profile or state.origin != self._origin:
            layout.write_state(self._path, layout.MirrorState(origin=self._origin, profile=listing.profile))
        shown = dict(listing.refs)
        before = held.get(expected.ref) if expected else None
        return FetchResult(
            changes=changes,
            refused=plan.refused + refused,
            seconds=time.monotonic() - started,
            objects=taken.objects,
            received=taken.received,
            head=self._refs.head,
            confirmed=None if expected is None else shown.get(expected.ref) == _there(expected.new),
            gap=expected is not None and before not in (_there(expected.old), _there(expected.new)),
        )

    def _adopt(self) -> None:
        """Check once that a repository made by another program is sound: every later fetch builds on it."""
        report = checking.check(self._path, self._tick)
        if not report.sound:
            raise MirrorCorrupt(f"{self._path} is not sound: {report.problems[0]}", "use another directory")
        (self._path / "quarantine").mkdir(mode=0o700, exist_ok=True)

    # -- with the origin ---------------------------------------------------------------------------------------------

    def _converse(
        self,
        objects: ObjectStore,
        held: Mapping[RefName, ObjectId],
        profile: OriginProfile | None,
        expected: RefChange | None,
        allow_mass_deletion: bool,
    ) -> tuple[RefListing, RefPlan, ReceivedPack]:
        settings = self._settings
        only = expected.ref if expected is not None else None
        early = self._early_request(objects, held, expected) if profile is not None else None
        prefixes = ("HEAD", *(common_prefixes(settings.refs) if only is None else (only,)))
        session = OriginSession(
            open_link(self._address, settings, self._limit), prefixes=prefixes, profile=profile, early=early
        )
        try:
            listing = session.list()
            self._report("listing")
            self._adopt_format(objects, listing.hash_kind)
            origin, bad = read_advertised(listing.refs, settings.refs if only is None else (only,))
            plan = plan_refs(
                held,
                origin,
                only=only,
                max_delete_percent=100.0 if allow_mass_deletion else settings.max_delete_percent,
                refused=bad,
            )
            wants = negotiation.wants(plan, lambda oid: objects.holds(bytes.fromhex(oid)))
            if not wants:
                return listing, plan, ReceivedPack()
            offered = negotiation.haves(plan, held, first=(expected.old,) if expected else ())
            return listing, plan, self._take(session, objects, wants, offered)
        finally:
            session.close()

    def _early_request(
        self, objects: ObjectStore, held: Mapping[RefName, ObjectId], expected: RefChange | None
    ) -> EarlyRequest | None:
        """Return what to ask for together with the list of refs that will confirm a message, or None."""
        if expected is None or is_zero(expected.new) or objects.holds(bytes.fromhex(expected.new)):
            return None
        plan = RefPlan(updates=(expected,))
        return EarlyRequest(expected.new, negotiation.haves(plan, held, first=_known(held, expected)))

    def _adopt_format(self, objects: ObjectStore, theirs: HashKind) -> None:
        if theirs is objects.hash_kind:
            return
        if self._refs.read() or any((self._path / "objects" / "pack").iterdir()):
            raise OriginError(
                f"the origin's ids are {theirs.name} now, the mirror's are {objects.hash_kind.name}",
                "give the new repository a mirror of its own",
            )
        layout.set_format(self._path, theirs)
        objects.reopen(theirs)

    def _take(
        self, session: OriginSession, objects: ObjectStore, wants: Sequence[ObjectId], haves: Sequence[ObjectId]
    ) -> ReceivedPack:
        settings = self._settings
        incoming = IncomingPack(
            self._path / "objects",
            self._path / "quarantine",
            objects.hash_kind,
            find=objects.find,
            holds=objects.holds,
            limits=ScanLimits(object_bytes=settings.max_object_bytes),
            max_bytes=settings.max_pack_bytes,
            tick=self._tick,
            room=self._room,
        )
        with incoming:
            self._incoming = incoming
            self._phase = "receiving"
            session.fetch(wants, haves, incoming.feed)
            session.close()
            self._report("resolving")
            return incoming.finish([bytes.fromhex(oid) for oid in wants])

    # -- on our side -------------------------------------------------------------------------------------------------

    def _settle(
        self, objects: ObjectStore, plan: RefPlan, taken: ReceivedPack
    ) -> tuple[tuple[RefChange, ...], tuple[Refusal, ...]]:
        """Judge the planned changes, and make those that are allowed."""
        history = History(objects.find, objects.hash_kind.size, self._tick)

        def is_commit(oid: bytes) -> bool:
            if oid in taken.commits:
                return True
            found = objects.find(oid)
            return found is not None and found[0] == COMMIT

        def peel(oid: ObjectId) -> ObjectId | None:
            raw = bytes.fromhex(oid)
            if raw in taken.commits:
                return None
            target = history.peel(taken.tags.get(raw, raw))
            return ObjectId(target.hex()) if target != raw else None

        self._report("checking")
        signatures = SignatureCheck(self._settings, objects.find, objects.hash_kind)
        changes, refused = judge(plan.changes, self._settings, history, is_commit, signatures.objection)
        self._limit.left()
        self._report("refs")
        self._refs.apply(changes, peel)
        return changes, refused

    def _follow_head(self, listing: RefListing) -> None:
        if listing.head is None or not listing.head.startswith("refs/heads/"):
            return
        try:
            self._refs.set_head(parse_ref_name(listing.head))
        except InvalidName:
            _log.warning("%s: the origin's HEAD is not an acceptable name", self._path.name)

    def _room(self) -> None:
        layout.check_room(
            self._path, min_bytes=self._settings.min_free_bytes, min_inodes=self._settings.min_free_inodes
        )

    def _tick(self) -> None:
        now = time.monotonic()
        if now >= self._next_progress:
            self._limit.left()
            self._next_progress = now + _PROGRESS_EVERY
            self._report(self._phase)

    def _report(self, phase: Phase) -> None:
        self._phase = phase
        if self._progress is None:
            return
        scanner: PackScanner | None = self._incoming.scanner if self._incoming else None
        self._progress(
            Progress(
                phase=phase,
                received=self._incoming.received if self._incoming else 0,
                objects=scanner.done if scanner else 0,
                total=max(scanner.total, 0) if scanner else 0,
                seconds=time.monotonic() - self._began,
            )
        )


def _there(oid: ObjectId) -> ObjectId | None:
    return None if is_zero(oid) else oid


def _known(held: Mapping[RefName, ObjectId], expected: RefChange) -> list[ObjectId]:
    """Return the tips most likely to be near what a message named: what we hold of that ref."""
    mine = held.get(expected.ref)
    return [mine] if mine is not None else []
