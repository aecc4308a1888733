"""`Outbox`: the spool as writers, the relay and the command line use it."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING

from deploykit.outbox import directory, keys
from deploykit.outbox.format import Outgoing, RecordId, pack
from deploykit.outbox.notify import notify

if TYPE_CHECKING:
    from deploykit.outbox.listener import Listener
    from deploykit.outbox.notes import Notes
    from deploykit.outbox.record import Record, SetAside
    from deploykit.wire.frame import Frame


class Outbox:
    """A durable spool of messages to send. It keeps no descriptor between calls: safe beside fork and between threads.

    Args:
        path: the directory.
        create: make it, and its parents, when it is missing.
        shared: for a group (3770), or for this user alone (0700). Only used when it is made.
        group: that group, by name or gid; the group of this process when empty.

    Raises:
        OutboxError: it is missing, its mode is too open, or it cannot be made.
    """

    __slots__ = ("_listener", "_memory", "path")

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        create: bool = True,
        shared: bool = True,
        group: str | int = "",
    ) -> None:
        self.path = os.path.abspath(os.fspath(path))  # noqa: PTH100 - pathlib costs a push some milliseconds
        self._listener: Listener | None = None
        self._memory: Notes | None = None
        if create:
            directory.create(self.path, shared=shared, group=group)
        with directory.Spool(self.path, "open"):
            pass

    def __repr__(self) -> str:
        return f"Outbox({self.path!r})"

    # -- writing -----------------------------------------------------------------------------------------------------

    def put(self, destination: str, frame: Frame) -> RecordId:
        """Queue one frame, durably; return its id. See `put_many`."""
        return self.put_many((Outgoing(destination, frame),))[0]

    def put_many(self, items: Iterable[Outgoing]) -> tuple[RecordId, ...]:
        """Queue all of `items` in one durable step, or none, and notify a listening relay.

        Raises:
            OutboxError: nothing was queued; the text says why and what to do.
        """
        batch = tuple(items)
        if not batch:
            return ()
        data = pack(batch)
        with directory.Spool(self.path, "write to") as spool:
            try:
                stem = keys.new_stem(spool.fd)
                spool.write(stem + keys.SUFFIX, data, temporary=f".tmp-{stem}")
            except OSError as error:
                raise directory.refused("write to", self.path, error) from error
            notify(spool)
        return tuple(RecordId(f"{stem}.{number}") for number in range(1, len(batch) + 1))

    def relay_listens(self, *, owner_only: bool = False) -> bool:
        """Return whether a relay is at work that will send what this user put; notify it.

        Args:
            owner_only: only look for the relay of the spool's owner, which sends everybody's records.
        """
        with directory.Spool(self.path, "look into") as spool:
            return notify(spool, owner_only=owner_only)

    @property
    def settles_all(self) -> bool:
        """Whether this process may remove every user's records: it is the spool's owner, or root."""
        with directory.Spool(self.path, "look into") as spool:
            return spool.settles_all

    # -- reading -----------------------------------------------------------------------------------------------------

    def pending(self, *, everyone: bool | None = None) -> Generator[Record, None, None]:
        """Yield the waiting records in order, in flat memory. Records put meanwhile may or may not be among them.

        Args:
            everyone: also records that only their writer may remove. By default the spool's owner and root see all
                records, another user its own.

        Files that are not records are set aside (see `set_aside`).
        """
        from deploykit.outbox.reader import waiting

        return waiting(self.path, self._notes(), everyone=everyone)

    @property
    def unreadable(self) -> frozenset[str]:
        """The files that could not be read when `pending` last came to its end."""
        return self._notes().unreadable

    def dead(self) -> Iterator[Record]:
        """Yield the dead letters, oldest first."""
        from deploykit.outbox.reader import dead

        return dead(self.path)

    def find(self, record_id: str) -> Record:
        """Return the waiting record or dead letter with this id, or the only one whose id starts or ends with it.

        Raises:
            OutboxError: there is none, or more than one.
        """
        from deploykit.outbox.reader import find

        return find(self.path, record_id)

    def set_aside(self) -> Iterator[SetAside]:
        """Yield the files in `bad/`, each with the reason as far as it can still be found."""
        from deploykit.outbox.reader import in_bad

        return in_bad(self.path)

    # -- settling ----------------------------------------------------------------------------------------------------

    def ack(self, record: Record) -> None:
        """Remove `record` from the spool: a broker has it. Remove a dead letter for good. No error if it is gone.

        Where a full disk has no room for the mark of one of several messages, this object remembers it.

        Raises:
            OutboxError: this user may not remove it, or the disk failed.
        """
        from deploykit.outbox.removal import ack

        ack(self.path, record, self._notes())

    def dead_letter(self, record: Record, reason: str) -> RecordId:
        """Make `record` a dead letter, for `reason`; return the dead letter's id.

        Raises:
            OutboxError: it could not be written; the record still waits.
        """
        from deploykit.outbox.removal import dead_letter

        return dead_letter(self.path, record, reason, self._notes())

    def retry(self, record: Record) -> RecordId:
        """Queue a dead letter again, behind everything that waits; return its new id.

        Raises:
            OutboxError: it is no dead letter, or this user may not move it.
        """
        from deploykit.outbox.removal import retry

        return retry(self.path, record)

    def _notes(self) -> Notes:
        if self._memory is None:
            from deploykit.outbox.notes import Notes  # a push needs none

            self._memory = Notes()
        return self._memory

    # -- waiting -----------------------------------------------------------------------------------------------------

    def wait(self, timeout: float) -> bool:
        """Wait until a record is put, at most `timeout` seconds; return whether one was.

        A record put since the last call ends the wait at once; on the first call any waiting record does.
        The owner of the spool is notified of everybody's records, another user of its own.

        Raises:
            OutboxError: the FIFO cannot be made.
        """
        if self._listener is None or self._listener.pid != os.getpid():
            from deploykit.outbox.listener import Listener

            self._listener = Listener(self.path)
            if next(self.pending(), None) is not None:
                return True
        return self._listener.wait(timeout)

    def interrupt(self) -> None:
        """End a `wait` of this process, which returns False if nothing was put. Any thread may call this."""
        if (listener := self._listener) is not None:
            listener.interrupt()

    def close(self) -> None:
        """Stop listening, if `wait` began to. The outbox stays usable."""
        if (listener := self._listener) is not None:
            self._listener = None
            listener.close()
