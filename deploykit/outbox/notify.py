"""How writers notify a relay of new records: one byte into a FIFO in the spool, without blocking.

Rules:

* Opening a FIFO for writing without blocking fails when nobody reads it. That tells a living relay from a dead one
  without a lock that a stranger could hold.
* Only the FIFO's owner may read it (0620), so nobody can pose as a relay.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from deploykit.outbox.directory import Spool

#: The FIFO of the relay of the whole spool; the relay of a single user adds `-<uid>`.
FIFO: Literal[".wake"] = ".wake"


def notify(spool: Spool, *, owner_only: bool = False) -> bool:
    """Notify a relay that something was put; return whether one listens.

    Args:
        owner_only: only try the relay of the spool's owner, which sends everybody's records.
    """
    own = os.geteuid()
    for name, owners in ((FIFO, (0, spool.owner)), (f"{FIFO}-{own}", (0, own)))[: 1 if owner_only else 2]:
        try:
            fd = os.open(name, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=spool.fd)
        except OSError:
            continue  # nobody listens there
        try:
            found = os.fstat(fd)
            if found.st_uid in owners and found.st_mode & 0o170000 == 0o010000:
                os.write(fd, b"\n")
                return True
        except BlockingIOError:
            return True  # full of notifications that the relay has still to read
        except OSError:
            continue
        finally:
            os.close(fd)
    return False
