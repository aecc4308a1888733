"""Whether a thread has ended, at every moment of its life."""

from __future__ import annotations

import threading

from deploykit.system.threads import has_ended


class _HeldUp(threading.Event):
    """Holds up a thread between the moment in which it has an ident and the one in which it counts as alive."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.go_on = threading.Event(), threading.Event()

    def set(self) -> None:
        self.reached.set()
        self.go_on.wait(60)
        super().set()


def test_a_thread_that_is_just_starting_has_not_ended() -> None:
    over = threading.Event()
    thread = threading.Thread(target=over.wait, args=(60,))
    assert not has_ended(thread)
    started = _HeldUp()
    thread._started = started  # type: ignore[attr-defined]  # there is no public way to stop there
    starter = threading.Thread(target=thread.start)
    starter.start()
    assert started.reached.wait(60)
    assert thread.ident is not None
    assert not thread.is_alive()
    assert not has_ended(thread)
    started.go_on.set()
    starter.join(60)
    assert not has_ended(thread)
    over.set()
    thread.join(60)
    assert has_ended(thread)
