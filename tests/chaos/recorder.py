"""What enters deliveries into the books, and can be told to cheat, to see that the books notice."""

from __future__ import annotations

import threading

from deploykit.bus import Delivery
from tests.chaos.accounts import Accounts
from tests.chaos.options import body_of

#: Which delivery a sabotaged recorder treats wrongly, and how many later one that it kept is entered after all.
_CHOSEN, _LATER = 50, 50


class Recorder:
    """A handler's first line.

    Args:
        sabotage: "lose" forgets a delivery that is then acknowledged, "swap" enters it after later ones, "invent"
            enters one that nobody sent; all of the receiver named `victim`.
    """

    def __init__(self, accounts: Accounts, sabotage: str, *, victim: str) -> None:
        self._accounts = accounts
        self._sabotage = sabotage
        self._victim = victim
        self._lock = threading.Lock()
        self._count = 0
        self._kept: list[str] = []

    def enter(self, name: str, delivery: Delivery) -> None:
        """Enter what `name` got."""
        if name == self._victim and self._sabotage and self._cheats(name, delivery.id):
            return
        self._accounts.receive(name, delivery.id, intact=delivery.body == body_of(delivery.id))

    def _cheats(self, name: str, identity: str) -> bool:
        with self._lock:
            self._count += 1
            chosen, late = self._count == _CHOSEN, self._count == _CHOSEN + _LATER
        if chosen and self._sabotage == "lose":
            return True
        if chosen and self._sabotage == "swap":
            self._kept.append(identity)
            return True
        if chosen and self._sabotage == "invent":
            self._accounts.receive(name, "nobody-1", intact=True)
        if late and self._kept:
            self._accounts.receive(name, self._kept.pop(), intact=True)
        return False
