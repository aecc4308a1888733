"""Who made the broker hang up: decided here, for messages, destinations and subscriptions alike. Pure.

A broker that dislikes a message or a subscription often just ends the connection, and all that was under way with it.
Who was to blame is inferred from what was under way each time.

Rules:

* only a connection that the broker ended, while it worked, counts against anybody;
* the first message without a receipt is noted; the second time everything is sent one by one, so that a message that
  ends connections does not take the others with it;
* one by one means: on a connection that has just proved to work, so that a bad line is not blamed on a message;
* a message that ended three such connections is given up;
* where the next message to the same destination ends one too, the destination is to blame (a full queue on RabbitMQ):
  nothing is sent there for a while, and the rest goes on;
* every subscription without a receipt is noted; after the second time it waits, and is tried alone;
* an ERROR that names nothing while subscriptions wait makes the connection doubtful. If it ends within a second, that
  is their doing, and no message is blamed.

Each state machine is a table: state -> what was seen -> next state. What a table does not list changes nothing.
docs/bus.md shows them, drawn from here by docs/suspectstable.py.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping
from typing import Final, Generic, Protocol, TypeVar

import attrs

#: The longest time that nothing is sent to a destination that is to blame, in seconds.
SHUT: Final = 30.0
#: A connection that lives so much longer than an ERROR that names nothing was not ended for it, in seconds.
OUTLIVED: Final = 1.0


class Evidence(enum.Enum):
    """What was seen. "Ended": by the broker, while the connection worked."""

    ENDED = "ended while it waited for its receipt"
    ENDED_FIRST = "ended, it was first of those under way"
    ENDED_ALONE = "ended, it was sent alone over a proved connection"
    RECEIPT = "receipt"
    GAVE_UP = "a message to it is given up"
    SUSPICION = "a message becomes suspect, or one goes to a destination that is to blame"
    ASKED = "proof is asked for"
    ANSWERED = "the broker answers"
    CLEARED = "no suspect is left"
    LOST = "the connection is over"
    UNNAMED_ERROR = "an ERROR names nothing, and subscriptions wait"
    OUTLIVED = "a second has passed"


class MessageState(enum.IntEnum):
    """How a message stands. The number is how many connections count against it."""

    CLEAR = 0
    NOTED = 1
    SUSPECT = 2
    SUSPECT_ONCE_ALONE = 3
    SUSPECT_TWICE_ALONE = 4
    GIVEN_UP = 5


class DestinationState(enum.Enum):
    """How a destination stands."""

    OPEN = "open"
    BLAMED = "blamed"
    SHUT = "shut"


class SendingState(enum.Enum):
    """How messages are sent over the present connection."""

    FREELY = "freely"
    FREELY_PROVED = "freely, connection proved"
    UNPROVED = "not yet: no proof"
    PROVING = "not yet: proof asked for"
    ONE_BY_ONE = "one by one"


class SubscriptionState(enum.IntEnum):
    """How a subscription stands. The number is how many connections count against it, from 2 on all the same."""

    CLEAR = 0
    NOTED = 1
    SUSPECT = 2


class ConnectionState(enum.Enum):
    """How the present connection stands."""

    SURE = "sure"
    DOUBTFUL = "doubtful"


class Blame(enum.Enum):
    """Against whom the end of a connection counts."""

    NOBODY = "nobody"
    MESSAGE_AND_SUBSCRIPTIONS = "the first message under way, and every subscription that waits"
    SUBSCRIPTIONS = "every subscription that waits; where none does, the first message"


_E, _M, _D, _S, _N, _C = Evidence, MessageState, DestinationState, SendingState, SubscriptionState, ConnectionState

MESSAGE: Final[Mapping[MessageState, Mapping[Evidence, MessageState]]] = {
    _M.CLEAR: {_E.ENDED_FIRST: _M.NOTED, _E.ENDED_ALONE: _M.SUSPECT_ONCE_ALONE},
    _M.NOTED: {_E.ENDED_FIRST: _M.SUSPECT, _E.ENDED_ALONE: _M.SUSPECT_ONCE_ALONE},
    _M.SUSPECT: {_E.ENDED_FIRST: _M.SUSPECT_ONCE_ALONE, _E.ENDED_ALONE: _M.SUSPECT_ONCE_ALONE},
    _M.SUSPECT_ONCE_ALONE: {_E.ENDED_FIRST: _M.SUSPECT_TWICE_ALONE, _E.ENDED_ALONE: _M.SUSPECT_TWICE_ALONE},
    _M.SUSPECT_TWICE_ALONE: {_E.ENDED_FIRST: _M.GIVEN_UP, _E.ENDED_ALONE: _M.GIVEN_UP},
    _M.GIVEN_UP: {},
}
DESTINATION: Final[Mapping[DestinationState, Mapping[Evidence, DestinationState]]] = {
    _D.OPEN: {_E.GAVE_UP: _D.BLAMED},
    _D.BLAMED: {_E.GAVE_UP: _D.BLAMED, _E.ENDED_ALONE: _D.SHUT, _E.RECEIPT: _D.OPEN},
    _D.SHUT: {_E.GAVE_UP: _D.BLAMED, _E.ENDED_ALONE: _D.SHUT, _E.RECEIPT: _D.OPEN},
}
SENDING: Final[Mapping[SendingState, Mapping[Evidence, SendingState]]] = {
    _S.FREELY: {_E.SUSPICION: _S.UNPROVED, _E.ANSWERED: _S.FREELY_PROVED},
    _S.FREELY_PROVED: {_E.SUSPICION: _S.ONE_BY_ONE, _E.LOST: _S.FREELY},
    _S.UNPROVED: {_E.ASKED: _S.PROVING, _E.ANSWERED: _S.ONE_BY_ONE},
    _S.PROVING: {_E.ANSWERED: _S.ONE_BY_ONE, _E.LOST: _S.UNPROVED},
    _S.ONE_BY_ONE: {_E.CLEARED: _S.FREELY_PROVED, _E.LOST: _S.UNPROVED},
}
SUBSCRIPTION: Final[Mapping[SubscriptionState, Mapping[Evidence, SubscriptionState]]] = {
    _N.CLEAR: {_E.ENDED: _N.NOTED},
    _N.NOTED: {_E.ENDED: _N.SUSPECT, _E.RECEIPT: _N.CLEAR},
    _N.SUSPECT: {_E.ENDED: _N.SUSPECT, _E.RECEIPT: _N.CLEAR},
}
CONNECTION: Final[Mapping[ConnectionState, Mapping[Evidence, ConnectionState]]] = {
    _C.SURE: {_E.UNNAMED_ERROR: _C.DOUBTFUL},
    _C.DOUBTFUL: {_E.OUTLIVED: _C.SURE, _E.LOST: _C.SURE},
}
#: Against whom it counts when the broker ends a connection in this state; an end of ours counts against nobody.
BLAME: Final[Mapping[ConnectionState, Blame]] = {
    _C.SURE: Blame.MESSAGE_AND_SUBSCRIPTIONS,
    _C.DOUBTFUL: Blame.SUBSCRIPTIONS,
}

_CAREFUL: Final = frozenset({_S.UNPROVED, _S.PROVING, _S.ONE_BY_ONE})
_PROVED: Final = frozenset({_S.FREELY_PROVED, _S.ONE_BY_ONE})


# -- messages ------------------------------------------------------------------------------------------------------


class Underway(Protocol):
    """A message without a receipt, as far as suspicion goes."""

    seq: int
    destination: str
    #: On the present connection.
    out: bool
    #: A `MessageState`.
    losses: int


MessageT = TypeVar("MessageT", bound=Underway)


@attrs.frozen(kw_only=True, slots=True)
class Outcome(Generic[MessageT]):
    """What comes of the end of a connection: messages given up, and those not tried because of their destination."""

    given_up: tuple[MessageT, ...] = ()
    held: tuple[MessageT, ...] = ()


@attrs.define(slots=True)
class _Blamed:
    state: DestinationState = _D.BLAMED
    ends: int = 0
    until: float = 0.0


class MessageSuspects:
    """Which messages and destinations are under suspicion, and so how messages are sent."""

    def __init__(self) -> None:
        self.sending = _S.FREELY
        #: Whether messages are sent one by one, or not yet.
        self.careful = False
        #: Whether the present connection has proved to work.
        self.proved = False
        #: The destinations that are to blame.
        self.blamed: dict[str, _Blamed] = {}
        self._careful_to = 0  # the last of the messages that were under way when a connection was ended

    def see(self, evidence: Evidence) -> None:
        """Take the next state of sending."""
        self.sending = SENDING[self.sending].get(evidence, self.sending)
        self.careful, self.proved = self.sending in _CAREFUL, self.sending in _PROVED

    def needs_proof(self) -> bool:
        """Return, once a connection, whether it has to prove that it works before anything is sent."""
        if self.sending is not _S.UNPROVED:
            return False
        self.see(_E.ASKED)
        return True

    def is_open(self, destination: str, now: float) -> bool:
        """Return whether messages to a destination are taken now; one to a destination that was shut is a suspect."""
        blamed = self.blamed.get(destination)
        if blamed is None:
            return True
        if now < blamed.until:
            return False
        self.see(_E.SUSPICION)
        return True

    def confirmed(self, messages: Iterable[Underway]) -> None:
        """Clear the destinations of messages that have their receipt."""
        if self.blamed:
            for message in messages:
                self.blamed.pop(message.destination, None)

    def look(self, following: Underway, waiting: Iterable[Underway]) -> None:
        """See whether a suspect is left before `following`, the first of the messages without a receipt."""
        if following.seq > self._careful_to and not any(
            message.losses or message.destination in self.blamed for message in waiting
        ):
            self.see(_E.CLEARED)

    def ended(self, waiting: Collection[MessageT], now: float, *, blame: bool) -> Outcome[MessageT]:
        """The connection is over.

        Args:
            waiting: the messages without a receipt, in order.
            now: monotonic time.
            blame: it counts against the first of them, if that was under way.
        """
        outcome = self._blame(waiting, now) if blame else Outcome[MessageT]()
        self.see(_E.LOST)
        return outcome

    def _blame(self, waiting: Collection[MessageT], now: float) -> Outcome[MessageT]:
        first = next(iter(waiting), None)
        if first is None or not first.out:
            return Outcome()
        under_way = [message.seq for message in waiting if message.out]
        alone = self.sending is _S.ONE_BY_ONE and len(under_way) == 1
        state = _M(first.losses)
        first.losses = MESSAGE[state].get(_E.ENDED_ALONE if alone else _E.ENDED_FIRST, state)
        if first.losses >= _M.SUSPECT:
            self.see(_E.SUSPICION)
            self._careful_to = max(self._careful_to, *under_way)
        where = first.destination
        if alone and where in self.blamed:
            self._shut(self.blamed[where], now)
            held = tuple(message for message in waiting if message.destination == where and message is not first)
            return Outcome(given_up=(first,), held=held)
        if first.losses < _M.GIVEN_UP:
            return Outcome()
        before = self.blamed[where].state if where in self.blamed else _D.OPEN
        self.blamed[where] = _Blamed(DESTINATION[before][_E.GAVE_UP])
        return Outcome(given_up=(first,))

    def _shut(self, blamed: _Blamed, now: float) -> None:
        blamed.state = DESTINATION[blamed.state][_E.ENDED_ALONE]
        blamed.ends += 1
        blamed.until = now + min(SHUT, 2.0 ** min(blamed.ends - 1, 30))


def after_error(last_error: str) -> str:
    """Return how an error of ours goes on with what the broker reported; nothing where it reported nothing."""
    return f"; its last ERROR: {last_error}" if last_error else ""


# -- subscriptions -------------------------------------------------------------------------------------------------


class Subscribing(Protocol):
    """A subscription, as far as suspicion goes."""

    #: Connections that count against it since its last receipt.
    losses: int
    #: What the broker reported before it ended the last of them; may be empty.
    last_error: str


SubscriptionT = TypeVar("SubscriptionT", bound=Subscribing)


def is_suspect(subscription: Subscribing) -> bool:
    """Return whether a subscription is to be tried later, and alone."""
    return subscription.losses >= _N.SUSPECT


class SubscriptionSuspects(Generic[SubscriptionT]):
    """Which subscriptions wait for their receipt on the present connection, and what an end of it says of them."""

    def __init__(self) -> None:
        self._waiting: dict[str, SubscriptionT] = {}  # by receipt
        self._accused: list[SubscriptionT] = []  # refused by an ERROR that names nothing
        self._doubtful_until = 0.0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def waits(self, subscription: SubscriptionT) -> bool:
        """Return whether a subscription waits for its receipt."""
        return any(one is subscription for one in self._waiting.values())

    def waits_for(self, receipt: str) -> bool:
        """Return whether a subscription waits for this receipt."""
        return receipt in self._waiting

    def begin(self) -> None:
        """A new connection: nothing waits, and nothing is doubtful."""
        self._waiting.clear()
        self._accused.clear()
        self._doubtful_until = 0.0

    def asked(self, receipt: str, subscription: SubscriptionT) -> None:
        """Take note that a subscription waits for this receipt."""
        self._waiting[receipt] = subscription

    def state(self, now: float) -> ConnectionState:
        """Return how the connection stands."""
        return _C.DOUBTFUL if now < self._doubtful_until else _C.SURE

    def doubt(self, now: float) -> float:
        """Return for how many seconds the connection is doubtful; 0.0 or less: it is sure."""
        return self._doubtful_until - now

    def confirmed(self, receipt: str) -> SubscriptionT | None:
        """Take the subscription of this receipt from the list: it has it, and is accused no more."""
        subscription = self._waiting.pop(receipt, None)
        self._accused = [one for one in self._accused if one is not subscription]
        return subscription

    def refused(self, receipt: str) -> SubscriptionT | None:
        """Take the subscription of this receipt from the list: an ERROR names it."""
        return self._waiting.pop(receipt, None)

    def unnamed_error(self, now: float, *, alone: bool) -> SubscriptionT | None:
        """An ERROR names nothing. Return the subscription that it must be about, if there is but one.

        Args:
            now: monotonic time.
            alone: nothing but subscriptions waits for an answer.
        """
        if not self._waiting:
            return None
        if CONNECTION[self.state(now)].get(_E.UNNAMED_ERROR) is _C.DOUBTFUL:
            self._doubtful_until = now + OUTLIVED
        if len(self._waiting) > 1 or not alone:
            return None
        _, subscription = self._waiting.popitem()
        self._accused.append(subscription)
        return subscription

    def ended(self, now: float, *, by_broker: bool, last_error: str = "") -> Blame:
        """The connection is over: count it against those that wait. Return against whom it counts in all.

        Args:
            now: monotonic time.
            by_broker: the broker ended it.
            last_error: the ERROR that it ended it with; may be empty.
        """
        suspects = {id(one): one for one in (*self._waiting.values(), *self._accused)} if by_broker else {}
        for subscription in suspects.values():
            subscription.losses += 1
            subscription.last_error = last_error or subscription.last_error
        self._waiting.clear()
        if not by_broker:
            return Blame.NOBODY
        return BLAME[self.state(now)] if suspects else Blame.MESSAGE_AND_SUBSCRIPTIONS
