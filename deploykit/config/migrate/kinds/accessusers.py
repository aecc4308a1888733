"""The users file of stomp-access, `USER: {expiry, password}`: nothing of it opens a door, and nothing is taken over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from deploykit.config.migrate.model import Kind, MigrationDraft, OldFile, Row

_WHY: Final = (
    "the original stored `*0` in place of a hash, so this user could never log in: grant anew whoever needs it, "
    "deploykit access grant USER SITE"
)
ROWS: Final = (
    Row(old="USER", note=_WHY),
    Row(old="USER.expiry", note="an access ends after access.default_days, or at --until"),
    Row(old="USER.password", note=_WHY),
)


def _fits(file: OldFile) -> bool:
    return bool(file.data) and all(
        isinstance(value, Mapping) and {"expiry", "password"} <= value.keys() for value in file.data.values()
    )


def _convert(file: OldFile, draft: MigrationDraft) -> None:
    for user in file.data:
        draft.lose(file, user, _WHY)


KIND: Final = Kind(
    name="access-users",
    title="users of one protected site",
    file="SITE.users",
    fits=_fits,
    rows=ROWS,
    convert=_convert,
)
