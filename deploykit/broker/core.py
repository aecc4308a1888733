"""The STOMP conversation of the embedded broker: frames of a session in, frames of any session out. No I/O, no clock.

Rules kept here:

* `handle` returns whether it took a frame. A frame whose queue is full is offered again later, and nothing more of
  that session is read meanwhile (back-pressure).
* Every frame with a `receipt` header is answered by RECEIPT once it has its effect, or by ERROR with `receipt-id`.
* After ERROR the connection is closed, on every version (1.2, "ERROR").
* Selectors, unknown ack modes and contradictory durable headers are refused: ignoring them would lose messages.
* No text made here holds a passcode.

What the dialect adds to the specification is listed in `headers` and `routing`.
"""

from __future__ import annotations

import contextlib
import hmac
from collections.abc import Callable, Mapping

from deploykit.broker.fault_state import FaultState
from deploykit.broker.frames import VERSIONS, StompFrame
from deploykit.broker.headers import (
    ack_mode,
    destination_of,
    durable_name,
    error_frame,
    heart_beats,
    message_of,
    prefetch_of,
)
from deploykit.broker.routing import RefusedError, Router
from deploykit.broker.state import BrokerLimits, BrokerSubscription, Session, Transaction


class BrokerCore:
    """The sessions, and the effect of their frames."""

    def __init__(
        self, *, router: Router, users: Mapping[str, str] | None, limits: BrokerLimits, faults: FaultState, server: str
    ) -> None:
        self.router = router
        self.sessions: dict[int, Session] = {}
        self._users = users
        self._limits = limits
        self._faults = faults
        self._server = server
        self._numbers = 0
        self._handlers: Mapping[str, Callable[[Session, StompFrame, float], bool | None]] = {
            "SEND": self._send,
            "SUBSCRIBE": self._subscribe,
            "UNSUBSCRIBE": self._unsubscribe,
            "ACK": self._ack,
            "NACK": self._ack,
            "BEGIN": self._begin,
            "COMMIT": self._commit,
            "ABORT": self._abort,
            "DISCONNECT": lambda _session, _frame, _now: None,
        }

    def open_session(self) -> Session:
        """Return a session for a new connection."""
        self._numbers += 1
        session = Session(number=self._numbers, high_water=self._limits.high_water)
        self.sessions[session.number] = session
        return session

    def lost(self, session: Session, now: float) -> None:
        """End the session of a lost connection: what it had not acknowledged goes back. A second call does nothing."""
        if self.sessions.pop(session.number, None) is None:
            return
        session.closing = True
        session.transactions.clear()
        subscriptions = list(session.subscriptions.values())
        session.subscriptions.clear()
        for subscription in subscriptions:
            self.router.end_subscription(subscription, now)

    def refuse(self, session: Session, refused: RefusedError, now: float, frame: StompFrame | None = None) -> None:
        """Answer with ERROR and end the session."""
        session.send(error_frame(refused, frame))
        self.lost(session, now)
        session.closing = True

    def report(self, session: Session, refused: RefusedError, frame: StompFrame | None = None) -> None:
        """Send ERROR and leave the session open: against the specification, and what real brokers often do."""
        session.send(error_frame(refused, frame))

    def handle(self, session: Session, frame: StompFrame, now: float) -> bool:
        """Take one frame; return False when there is no room for it yet (offer it again later).

        Args:
            session: the session it came from.
            frame: the frame.
            now: seconds since the epoch, for expiry.
        """
        if session.closing or session.muted:
            return True
        planned = self._faults.take_error(frame.command)
        try:
            if planned is not None:
                self._send_planned(session, planned.message, close=planned.close, frame=frame)
                return True
            if not self._has_room(session, frame):
                return False
            answered = self._apply(session, frame, now)
        except RefusedError as refused:
            self.refuse(session, refused, now, frame)
            return True
        finally:
            self._end_overrun(now)
        receipt = frame.headers.get("receipt")
        if answered and receipt is not None and not self._faults.withhold_receipts:
            session.send(StompFrame(command="RECEIPT", headers={"receipt-id": receipt}))
        if frame.command == "DISCONNECT":
            self.lost(session, now)
        return True

    def _send_planned(self, session: Session, message: str, *, close: bool, frame: StompFrame) -> None:
        refused = RefusedError(message, "planned by a fault switch of the embedded broker")
        if close:
            raise refused
        self.report(session, refused, frame)

    def _end_overrun(self, now: float) -> None:
        overrun, self.router.overrun = self.router.overrun, []
        for session in overrun:
            if not session.closing:
                self.refuse(session, RefusedError("slow consumer", "a topic subscription fell too far behind"), now)

    def _apply(self, session: Session, frame: StompFrame, now: float) -> bool:
        """Apply a frame; return False when it gets no receipt."""
        if frame.command in ("CONNECT", "STOMP"):
            self._connect(session, frame)
            return False
        if not session.connected:
            raise RefusedError("not connected", "the first frame must be CONNECT or STOMP")
        handler = self._handlers.get(frame.command)
        if handler is None:
            raise RefusedError("unknown command", "no STOMP version has this command")
        return handler(session, frame, now) is not False

    # -- connecting --------------------------------------------------------------------------------------------

    def _connect(self, session: Session, frame: StompFrame) -> None:
        if session.connected:
            raise RefusedError("already connected")
        if self._faults.mute_connect:
            session.muted = True
            return
        offered = frame.headers.get("accept-version", "1.0").split(",")
        common = [version for version in VERSIONS if version in (item.strip() for item in offered)]
        if not common:
            supported = ",".join(VERSIONS)
            raise RefusedError("no common version", f"this broker speaks {supported}", version=supported)
        if not self._may_log_in(frame.headers):
            raise RefusedError("access refused", "login or passcode is wrong")
        session.version = common[-1]
        session.login = frame.headers.get("login", "")
        session.client_id = frame.headers.get("client-id", "")
        session.connected = True
        headers = {"version": session.version, "server": self._server, "session": str(session.number)}
        if session.version != "1.0":
            beats = heart_beats(frame.headers)
            session.beat_out, session.beat_in = (0, 0) if self._faults.refuse_heartbeats else beats
            headers["heart-beat"] = f"{session.beat_out},{session.beat_in}"
        session.send(StompFrame(command="CONNECTED", headers=headers))

    def replace_users(self, users: Mapping[str, str] | None) -> None:
        """Accept these logins from now on."""
        self._users = users

    def _may_log_in(self, headers: Mapping[str, str]) -> bool:
        if self._users is None:
            return True
        expected = self._users.get(headers.get("login", ""))
        given = headers.get("passcode", "")
        same = hmac.compare_digest((expected or "").encode(), given.encode())
        return same and expected is not None

    def _send(self, session: Session, frame: StompFrame, now: float) -> None:
        message = message_of(frame, now)
        self.router.admit(message.destination)
        if not self._in_transaction(session, frame):
            self.router.publish(message, now)

    # -- subscribing -------------------------------------------------------------------------------------------

    def _subscribe(self, session: Session, frame: StompFrame, now: float) -> None:
        headers = frame.headers
        destination = destination_of(headers)
        identity = headers.get("id", "")
        if not identity and session.version != "1.0":
            raise RefusedError("no id", "SUBSCRIBE needs an id header")
        key = identity or destination
        if key in session.subscriptions:
            raise RefusedError("duplicate subscription id", subscription=identity)
        if "selector" in headers:
            raise RefusedError("selectors are not supported", "remove the selector header and filter in the client")
        ack, prefetch = ack_mode(headers), prefetch_of(headers)
        if len(session.subscriptions) >= self._limits.max_subscriptions:
            raise RefusedError("too many subscriptions")
        durable = durable_name(session, headers, destination)
        queue = self.router.queue_for(destination, durable=durable, private=f"private {session.number} {key}")
        subscription = BrokerSubscription(
            id=identity, session=session, queue=queue, destination=destination, ack=ack, prefetch=prefetch
        )
        session.subscriptions[key] = subscription
        queue.consumers.append(subscription)
        self.router.dispatch(queue, now)

    def _unsubscribe(self, session: Session, frame: StompFrame, now: float) -> None:
        headers = frame.headers
        key = headers.get("id") or (headers.get("destination", "") if session.version == "1.0" else "")
        subscription = session.subscriptions.get(key)
        if subscription is None:
            raise RefusedError("no such subscription", "UNSUBSCRIBE names an id that is not subscribed")
        queue = subscription.queue
        del session.subscriptions[key]
        self.router.end_subscription(subscription, now)
        if queue.durable and (headers.get("durable") == "true" or "activemq.subscriptionName" in headers):
            for other in self.router.delete_durable(queue, now):
                gone = RefusedError("subscription gone", "its durable queue was deleted", subscription=other.id)
                self.refuse(other.session, gone, now)

    # -- acknowledging -----------------------------------------------------------------------------------------

    def _target(self, session: Session, frame: StompFrame) -> tuple[BrokerSubscription, str] | None:
        """Return which delivery an ACK or NACK is for; None when its subscription was ended meanwhile."""
        headers = frame.headers
        name = "id" if session.version == "1.2" else "message-id"
        key = headers.get(name)
        if key is None:
            raise RefusedError(f"no {name}", f"{frame.command} needs an {name} header on STOMP {session.version}")
        subscription: BrokerSubscription | None
        if session.version == "1.2":
            subscription = session.by_ack.get(key)
        elif session.version == "1.1":
            if "subscription" not in headers:
                raise RefusedError("no subscription", f"{frame.command} needs a subscription header on STOMP 1.1")
            subscription = session.subscriptions.get(headers["subscription"])
        else:
            subscription = next((s for s in session.subscriptions.values() if key in s.unacked), None)
        if subscription is not None and key in subscription.unacked:
            return subscription, key
        if key in session.late:
            return None
        raise RefusedError("unknown message", f"{frame.command} names a message not delivered on this connection")

    def _ack(self, session: Session, frame: StompFrame, now: float) -> bool:
        if self._faults.take_lost_ack():
            return False
        self._target(session, frame)
        if not self._in_transaction(session, frame):
            self._settle(session, frame, now)
        return True

    def _settle(self, session: Session, frame: StompFrame, now: float) -> None:
        target = self._target(session, frame)
        if target is None:
            return
        subscription, last = target
        keys = [last]
        if subscription.ack == "client":  # cumulative: this one and all before it
            unacked = list(subscription.unacked)
            keys = unacked[: unacked.index(last) + 1]
        queue = subscription.queue
        requeue = frame.headers.get("requeue") == "true"
        for key in keys:
            entry = subscription.unacked.pop(key)
            session.by_ack.pop(key, None)
            if frame.command == "ACK":
                self.router.counters["acked"] += 1
                self.router.settle(queue, entry)
            elif requeue:
                self.router.counters["requeued"] += 1
                queue.give_back(entry)
            else:
                self.router.dead_letter(queue, entry, frame.headers.get("reason", "rejected"), now)
        self.router.dispatch(queue, now)

    # -- transactions ------------------------------------------------------------------------------------------

    def _transaction(self, session: Session, frame: StompFrame) -> Transaction:
        name = frame.headers.get("transaction", "")
        if name not in session.transactions:
            raise RefusedError("no such transaction", f"{frame.command} names a transaction that was not begun")
        return session.transactions[name]

    def _begin(self, session: Session, frame: StompFrame, _now: float) -> None:
        name = frame.headers.get("transaction")
        if not name or name in session.transactions:
            raise RefusedError("bad transaction", "BEGIN needs a transaction header with a name not in use")
        if len(session.transactions) >= 100:
            raise RefusedError("too many transactions")
        session.transactions[name] = Transaction()

    def _abort(self, session: Session, frame: StompFrame, _now: float) -> None:
        self._transaction(session, frame)
        del session.transactions[frame.headers["transaction"]]

    def _in_transaction(self, session: Session, frame: StompFrame) -> bool:
        """Keep the frame for COMMIT when it belongs to a transaction; return whether it does."""
        if "transaction" not in frame.headers:
            return False
        transaction = self._transaction(session, frame)
        transaction.frames.append(frame)
        transaction.size += len(frame.body)
        limits = self._limits
        if len(transaction.frames) > limits.max_transaction_frames or transaction.size > limits.max_transaction_bytes:
            raise RefusedError("transaction too large", "commit more often")
        return True

    def _commit(self, session: Session, frame: StompFrame, now: float) -> None:
        held = self._transaction(session, frame)
        for one in held.frames:  # all or nothing: a message that cannot be settled any more refuses the commit
            if one.command != "SEND":
                self._target(session, one)
        del session.transactions[frame.headers["transaction"]]
        for one in held.frames:
            if one.command == "SEND":
                self.router.publish(message_of(one, now), now)
                continue
            with contextlib.suppress(RefusedError):  # settled by an earlier frame of this same transaction
                self._settle(session, one, now)

    def _has_room(self, session: Session, frame: StompFrame) -> bool:
        if not session.connected:
            return True
        if frame.command == "SEND":
            return "transaction" in frame.headers or self.router.has_room(frame.headers.get("destination", ""))
        if frame.command == "COMMIT":
            held = session.transactions.get(frame.headers.get("transaction", ""))
            sends = [] if held is None else [one for one in held.frames if one.command == "SEND"]
            return all(self.router.has_room(one.headers.get("destination", "")) for one in sends)
        return True
