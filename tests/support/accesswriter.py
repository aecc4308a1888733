"""One run of the access daemon's keeper, as a process that can be killed: grants bob, revokes alice, and ends.

python -m tests.support.accesswriter ROOT

Where ROOT.haproxy is a file, its lines say how a haproxy is tested, reloaded and asked: JSON.
"""

from __future__ import annotations

import json
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

from deploykit.daemons.access.keeper import AccessKeeper
from deploykit.daemons.access.sitefile import AccessChange, SiteAccessFile
from deploykit.names import SiteName
from deploykit.settings import AccessSiteSettings

SHOP = SiteName("shop")
#: Of the password of `accessworld`: real servers are asked.
HASH = "$6$saltsaltsaltsalt$GkzgkzVbauGAKXpOTbypQEKy/9yJWVjcvXvDw7CxoJjnJ1.w.g1rV8bhCVTpHrRrO/h6b3DAwPN3y5qmHXZ1R1"
#: The test of the configuration: a file that is not whole does not pass.
CHECK = "import sys; text = open(sys.argv[1]).read(); sys.exit(0 if text.endswith(('Z\\n', 'monitor:x\\n')) else 1)"


def settings_of(root: Path) -> AccessSiteSettings:
    """The site, whose test and reload are programs of their own."""
    file, haproxy = root / "users", root.with_suffix(".haproxy")
    if haproxy.exists():
        more = json.loads(haproxy.read_text())
        return AccessSiteSettings(
            file=file,
            kind="haproxy",
            userlist="stage",
            test=tuple(more["test"]),
            reload=tuple(more["reload"]),
            master=Path(more["master"]),
        )
    return AccessSiteSettings(
        file=file, test=(sys.executable, "-c", CHECK, str(file)), reload=("/bin/cp", str(file), str(root / "served"))
    )


def change(root: Path) -> list[str]:
    """Do what the daemon does with a burst of two commands; return what came of each."""
    state = root / "state"
    (state / "access").mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC)
    keeper = AccessKeeper(
        {SHOP: SiteAccessFile(SHOP, settings_of(root), state / "access")},
        state,
        gather=0.05,
        on_ended=lambda _: None,
        now=lambda: now,
    )
    keeper.prepare()
    stop = threading.Event()
    thread = threading.Thread(target=keeper.run, args=(stop,))
    changes = [
        AccessChange(kind="grant", user="bob", hash=HASH, until=now + timedelta(days=1), asked_at=now),
        AccessChange(kind="revoke", user="alice", asked_at=now),
    ]
    futures = [keeper.submit(SHOP, each) for each in changes]
    thread.start()
    outcomes = [future.result(60).outcome for future in futures]
    stop.set()
    keeper.wake()
    thread.join(60)
    return [str(outcome) for outcome in outcomes]


if __name__ == "__main__":
    done = change(Path(sys.argv[1]))
    sys.exit(0 if done == ["granted", "revoked"] else f"{done}")
