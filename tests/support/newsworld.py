"""Messages and items of news, made in one line each; a channel that a test controls."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from deploykit.daemons.notify.letters import NotifyLetter
from deploykit.daemons.notify.news import NewsItem, news_of
from deploykit.daemons.notify.ports import SENT, SendOutcome
from deploykit.daemons.notify.waiting import WaitingLine
from deploykit.fleet.tracetrust import SignatureVerdict, Standing
from deploykit.messages import Message, Notice, RolloutProposed, RolloutReported, RolloutState
from deploykit.names import parse_object_id, parse_ref_name, parse_site_name
from deploykit.settings.notify import NotifyEvent
from deploykit.wire import encode

NOW = datetime(2026, 11, 30, 3, 0, tzinfo=UTC)
COMMIT = parse_object_id("ab" * 20)
SHOP = parse_site_name("shop")
TAG = parse_ref_name("refs/tags/v1.2")


def item(message: Message, standing: Standing = "verified", *, console: str = "", received: datetime = NOW) -> NewsItem:
    """A message as news."""
    verdict = SignatureVerdict(standing=standing, signer="ann@laptop" if standing == "verified" else "")
    found = news_of(message, verdict, body=encode(message).body, received=received, console=console)
    assert found is not None
    return found


def notice(text: str, *, correlation_id: str = "", source: str = "git/hub") -> Notice:
    """A line for people."""
    return Notice(text=text, source=source, time=NOW, correlation_id=correlation_id)


def rollout(state: RolloutState = "failed", *, detail: str = "", **changes: object) -> RolloutReported:
    """What a coordinator announces."""
    values: dict[str, object] = {
        "site": SHOP,
        "rollout": "r-1",
        "kind": "deploy",
        "ref": TAG,
        "commit": COMMIT,
        "state": state,
        "nodes": {"active": 1},
        "detail": detail,
        "time": NOW,
        "source": "operator/hub",
    }
    return RolloutReported(**(values | changes))  # type: ignore[arg-type]  # by name


def proposal(**changes: object) -> RolloutProposed:
    """A rollout that waits for people."""
    values: dict[str, object] = {
        "site": SHOP,
        "rollout": "r-2",
        "kind": "deploy",
        "ref": TAG,
        "commit": COMMIT,
        "count": 3,
        "wanted": 2,
        "not_after": NOW,
        "time": NOW,
        "requested_by": "bob",
        "source": "web/hub",
    }
    return RolloutProposed(**(values | changes))  # type: ignore[arg-type]  # by name


def waiting(
    text: str,
    event: NotifyEvent = "notice",
    *,
    added: float = 0.0,
    verified: bool = False,
    pair: tuple[str, str] | None = None,
    is_notice: bool = False,
) -> WaitingLine:
    """A line that waits."""
    key = hashlib.sha256(f"{text}{added}{event}".encode()).hexdigest()
    return WaitingLine(key=key, event=event, verified=verified, text=text, pair=pair, notice=is_notice, added=added)


def secret_file(directory: Path, text: str, name: str = "secret") -> Path:
    """A file with a secret."""
    path = directory / name
    path.write_text(f"{text}\n")
    path.chmod(0o600)
    return path


class FakeChannel:
    """Keeps letters, and answers as it was told; it can be held up."""

    def __init__(self, outcomes: Sequence[SendOutcome] = ()) -> None:
        self.letters: list[NotifyLetter] = []
        self.outcomes = list(outcomes)
        self.free = threading.Event()
        self.free.set()
        self.closed = False

    @property
    def lines(self) -> list[str]:
        """Every line of every letter."""
        return [line for letter in list(self.letters) for line in letter.lines]

    def send(self, letter: NotifyLetter) -> SendOutcome:
        """Take a letter."""
        assert self.free.wait(60)
        self.letters.append(letter)
        return self.outcomes.pop(0) if self.outcomes else SENT

    def fileno(self) -> int:
        """No descriptor."""
        return -1

    def tend(self) -> None:
        """Nothing to answer."""

    def close(self) -> None:
        """Note it."""
        self.closed = True
