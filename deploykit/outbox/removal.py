"""How records leave the spool: acknowledged, made a dead letter, queued again."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from deploykit.errors import OutboxError
from deploykit.outbox import keys
from deploykit.outbox.directory import DEAD, Spool, clear_at, refused
from deploykit.outbox.format import Outgoing, RecordId, pack
from deploykit.outbox.marks import forget, mark, settled_of
from deploykit.outbox.notes import NO_ROOM, Notes
from deploykit.outbox.notify import notify
from deploykit.outbox.record import Record


def ack(path: str, record: Record, notes: Notes) -> None:
    """Remove `record` from the spool, or a dead letter from `dead/`."""
    with Spool(path, "remove from") as spool:
        try:
            if record.state == "dead":
                folder = spool.folder(DEAD)
                try:
                    os.unlink(record.stem + keys.SUFFIX, dir_fd=folder)
                finally:
                    os.close(folder)
            elif record.of == 1 or _all_settled(spool, record, notes):
                # Not made durable: after a power cut it may be sent again, which receivers settle by the message's id.
                os.unlink(record.stem + keys.SUFFIX, dir_fd=spool.fd)
                if record.of > 1:
                    forget(spool, record.stem)
                    notes.gone(record.stem)
        except FileNotFoundError:
            return
        except OSError as error:
            raise refused("remove a record from", path, error) from error


def _all_settled(spool: Spool, record: Record, notes: Notes) -> bool:
    """Settle one record of a larger file, on the disk or, where that is full, in `notes`; return whether all are."""
    stem = record.stem
    if notes.may_mark():
        try:
            for number in notes.settled(stem):
                mark(spool, stem, number, record.of, record.uid)
            whole = mark(spool, stem, record.number, record.of, record.uid)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            notes.full(spool.path, error)
        else:
            notes.marked(spool.path, stem)
            return whole
    notes.settle(stem, record.number)

    def settled() -> int:
        return settled_of(spool, stem, record.of, record.uid, notes).count(b"x")

    return notes.may_be_all(stem, record.of, settled) and settled() == record.of


def dead_letter(path: str, record: Record, reason: str, notes: Notes) -> RecordId:
    """Write `record` to `dead/`, durably, then remove it from the spool; return the dead letter's id."""
    extra = {
        "reason": " ".join(reason.split())[:1000],
        "buried": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    data = pack((Outgoing(record.destination, record.frame),), extra)
    # The same name when a crash came between the two steps and this runs again.
    name = record.id + keys.SUFFIX
    with Spool(path, "write a dead letter to") as spool:
        try:
            folder = spool.folder(DEAD)
            try:
                _write_dead(spool, folder, name, data)
            finally:
                os.close(folder)
        except OSError as error:
            raise refused("write a dead letter to", path, error) from error
    ack(path, record, notes)
    return record.id


def _write_dead(spool: Spool, folder: int, name: str, data: bytes) -> None:
    try:
        spool.write(name, data, temporary=f".tmp-{keys.new_stem(spool.fd)}", folder=folder)
    except IsADirectoryError:
        clear_at(folder, name)  # a stranger's: any member may make something in dead/
        spool.write(name, data, temporary=f".tmp-{keys.new_stem(spool.fd)}", folder=folder)


def retry(path: str, record: Record) -> RecordId:
    """Move a dead letter back as the newest record; return its new id.

    One rename: it is never in both places, nor in none.
    """
    if record.state != "dead":
        raise OutboxError(f"{record.id} is still waiting to be sent", "only dead letters are retried")
    with Spool(path, "write to") as spool:
        try:
            stem = keys.new_stem(spool.fd)
            folder = spool.folder(DEAD)
            try:
                os.rename(record.stem + keys.SUFFIX, stem + keys.SUFFIX, src_dir_fd=folder, dst_dir_fd=spool.fd)
                os.fsync(spool.fd)
                os.fsync(folder)
            finally:
                os.close(folder)
        except FileNotFoundError:
            raise OutboxError(f"dead letter {record.id} is gone", "another process retried or dropped it") from None
        except OSError as error:
            raise refused("retry a record of", path, error) from error
        notify(spool)
    return RecordId(f"{stem}.1")
