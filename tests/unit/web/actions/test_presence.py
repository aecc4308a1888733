"""Who is shown to whom, and when others hear of it."""

from __future__ import annotations

import attrs
import pytest

from deploykit.errors import ActionRefused, LedgerError
from deploykit.web.actions.presence import ConsolePresence
from tests.support.actionworld import ADMIN, LIVE, LOOK, NOBODY


@attrs.frozen
class Noted:
    """Somebody who is there."""

    name: str
    what: str
    since: float


class Board:
    """A ledger of presence."""

    def __init__(self) -> None:
        self.people: dict[str, Noted] = {}
        self.error: Exception | None = None

    def here(self, site: str, name: str, what: str) -> tuple[Noted, ...]:
        if self.error is not None:
            raise self.error
        self.people[name] = Noted(name, what, 1000.0)
        return tuple(each for each in self.people.values() if each.name != name)


def test_two_people_see_each_other_and_others_hear_only_of_news() -> None:
    board, heard = Board(), list[str]()
    presence = ConsolePresence(board, heard.append)
    assert presence.here(LIVE, "shop", "deploy v2") == ()
    [other] = presence.here(ADMIN, "shop", "rollback")
    assert (other.name, other.what, other.since.timestamp()) == ("liv", "deploy v2", 1000.0)
    presence.here(LIVE, "shop", "deploy v2")
    assert heard == ["shop", "shop"], "the same again is no news"
    presence.here(LIVE, "shop", "lock")
    assert heard == ["shop"] * 3


def test_who_can_change_nothing_is_nobodys_concern() -> None:
    board = Board()
    assert ConsolePresence(board).here(LOOK, "shop", "x") == ()
    assert board.people == {}
    with pytest.raises(ActionRefused) as caught:
        ConsolePresence(board).here(NOBODY, "shop", "x")
    assert caught.value.status == 404


def test_a_ledger_that_is_away_keeps_nobody_from_working() -> None:
    board = Board()
    board.error = LedgerError("away")
    assert ConsolePresence(board).here(LIVE, "shop", "x") == ()


def test_what_somebody_says_they_do_is_one_line() -> None:
    board = Board()
    ConsolePresence(board).here(LIVE, "shop", "a\n\x1b[31m" + "b" * 1000)
    assert board.people["liv"].what.isprintable()
    assert len(board.people["liv"].what) <= 100
