"""The original's receivers of webhooks -> one source in `[webhook.sources]`, with what it has to be given first."""

from __future__ import annotations

from typing import Final

from deploykit.config.migrate.oldtable import OldTable
from deploykit.config.migrate.topics import put_topic
from deploykit.settings.webhook import Forge

_REPOSITORIES: Final = (
    "yours in place of this one: the forge's name = the name in these settings (the original published all it was sent)"
)
_LEGACY: Final = "the original's programs read text bodies; take this out when the last of them is gone"


def put_source(table: OldTable, forge: Forge) -> None:
    """Take the topics of a receiver, and set up a source for its forge."""
    put_topic(table, "trigger-topic", "source")
    put_topic(table, "report-topic", "notices", "webhook")
    draft, place = table.draft, ("webhook", "sources", str(forge))
    secret = f"/etc/deploykit/{forge}.secret"
    draft.put(table.file, "", ("webhook", "legacy"), True, _LEGACY)
    draft.put(table.file, "", (*place, "forge"), str(forge))
    draft.put(table.file, "", (*place, "secret_files"), [secret], "nothing is taken without one")
    draft.put(table.file, "", (*place, "repositories", "group/name"), "name")
    draft.comments.setdefault((*place, "repositories"), _REPOSITORIES)
    draft.warn(
        f"webhook.sources.{forge}: make a secret, (umask 077; openssl rand -hex 32 > {secret}), and set it at the "
        f"forge, with the address https://HOST/hook/{forge} (the original took anything at /); list your repositories"
    )


__all__ = ["put_source"]
