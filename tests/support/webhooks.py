"""A webhook receiver with a source of each forge, a real outbox and a real store of deliveries."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from deploykit.messages import Message, Notice, RefUpdated
from deploykit.names import RepoName
from deploykit.outbox import Outbox
from deploykit.settings.webhook import Forge, WebhookSettings, WebhookSourceSettings
from deploykit.web.receiver.app import outbox_publisher, receiver_app
from deploykit.web.receiver.deliveries import DeliveryStore
from deploykit.web.receiver.intake import Publish, WebhookIntake
from deploykit.wire import decode
from tests.support.asgi import Asked, Asker
from tests.support.forges import FORGES, ForgedRequest, forged

#: The forge's name of the repository, and ours.
THEIRS: Final = "group/widget"
OURS: Final = RepoName("widget")
#: Of each forge the secret; of one the new, the old.
SECRETS: Final[Mapping[str, bytes]] = {forge: f"it is a secret of {forge}".encode() for forge in FORGES} | {
    "azure": b"deploykit:correct horse"
}
OLD_SECRET: Final = b"the:secret before"


class ReceiverWorld:
    """A receiver below a directory. Close it.

    Args:
        root: the directory.
        publish: instead of the outbox.
        changes: of the receiver's settings.
        source: of every source's settings.
    """

    def __init__(
        self,
        root: Path,
        *,
        publish: Publish | None = None,
        source: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> None:
        self.root = root
        self.outbox = Outbox(root / "spool")
        self.counts: Counter[tuple[str, str]] = Counter()
        self.now = datetime.now(UTC)
        self.settings = WebhookSettings(
            sources={forge: source_of(forge, root, **(source or {})) for forge in FORGES}, **changes
        )
        self.store = DeliveryStore(root / "state" / "webhook" / "deliveries.db")
        self.intake = WebhookIntake(
            self.settings,
            publish or outbox_publisher(self.outbox, self.settings),
            self.store,
            now=lambda: self.now,
            count=lambda name, result: self.counts.update([(name, result)]),
        )
        self.app = receiver_app(self.settings, self.intake)

    def __enter__(self) -> ReceiverWorld:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    def post(self, forge: str, request: ForgedRequest, body: Sequence[bytes] | None = None, **more: str) -> Asked:
        """Send a request to the source of a forge, and return the answer."""
        headers = {**request.headers, **{name.replace("_", "-"): value for name, value in more.items()}}
        asker = Asker(app=self.app, host="hooks.example.org")
        return asker.ask("POST", f"/hook/{forge}", headers, [request.body] if body is None else body)

    def push(self, forge: str, **what: Any) -> Asked:
        """Send a push of a forge, signed with its secret unless `secret` says otherwise."""
        return self.post(forge, push_of(forge, **what))

    def messages(self) -> list[Message]:
        """Return what is in the outbox, in order."""
        found = (decode(record.frame.headers, record.frame.body) for record in self.outbox.pending())
        return [message for message in found if message is not None]

    def refs(self) -> list[RefUpdated]:
        """Return the ref events in the outbox."""
        return [message for message in self.messages() if isinstance(message, RefUpdated)]

    def notices(self) -> list[Notice]:
        """Return the human lines in the outbox."""
        return [message for message in self.messages() if isinstance(message, Notice)]


def source_of(forge: str, root: Path, **changes: Any) -> WebhookSourceSettings:
    """Return a source of a forge, with its files of secrets written."""
    files = []
    for name, secret in (("new", SECRETS[forge]), ("old", OLD_SECRET)):
        file = root / f"{forge}.{name}"
        if not file.exists():
            file.touch(0o600)
            file.write_bytes(secret + b"\n")
        files.append(file)
    kind: Forge = forge  # type: ignore[assignment]  # a name of FORGES is one of them
    header = {"header": "X-Signature"} if forge == "generic" else {}
    return WebhookSourceSettings(
        forge=kind,
        secret_files=tuple(files),
        **{"repositories": {THEIRS: OURS}, **header, **changes},
    )


def source_tables(root: Path, *forges: str) -> str:
    """Return the tables `[webhook.sources.FORGE]` of a settings file, of all forges by default."""
    lines = []
    for forge in forges or FORGES:
        files = json.dumps([str(path) for path in source_of(forge, root).secret_files])
        header = 'header = "X-Signature"\n' if forge == "generic" else ""
        lines.append(
            f'[webhook.sources.{forge}]\nforge = "{forge}"\nsecret_files = {files}\n{header}'
            f'repositories = {{ "{THEIRS}" = "{OURS}" }}\n'
        )
    return "".join(lines)


def push_of(forge: str, **what: Any) -> ForgedRequest:
    """Return a push of a forge, signed with its secret unless `secret` says otherwise."""
    return forged(forge, **{"event": "push", "secret": SECRETS[forge], "timestamp": int(time.time()), **what})


def with_payload(forge: str, change: Callable[[dict[str, Any]], object], **what: Any) -> ForgedRequest:
    """Return a push whose payload was changed, signed anew."""
    from tests.support.forges import signed

    request = push_of(forge, **what)
    payload = json.loads(request.body)
    change(payload)
    body = json.dumps(payload).encode()
    return ForgedRequest({**request.headers, **signed(forge, body, SECRETS[forge])}, body)
