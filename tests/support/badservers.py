"""The least of a broker that misbehaves, where the embedded one is too well-behaved."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def raw_server(greeting: bytes) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                with peer:
                    try:
                        peer.sendall(greeting)
                        peer.settimeout(1)
                        peer.recv(1000)
                    except OSError:
                        continue

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(60)


@contextmanager
def dripping(begin: bytes, every: float = 0.05) -> Iterator[int]:
    """Yield the port of a server that sends `begin`, then one byte after another, and no end, until it is left."""
    over = threading.Event()

    def drip(peer: socket.socket) -> None:
        with peer, suppress(OSError):  # whoever asked may be gone
            peer.sendall(begin)
            while not over.wait(every):
                peer.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as server:
        threads: list[threading.Thread] = []

        def serve() -> None:
            with suppress(OSError):  # it was shut down
                while True:
                    peer, _ = server.accept()
                    threads.append(threading.Thread(target=drip, args=(peer,), daemon=True))
                    threads[-1].start()

        threads.append(threading.Thread(target=serve, daemon=True))
        threads[0].start()
        try:
            yield server.getsockname()[1]
        finally:
            over.set()
            server.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join(60)


class PoisonServer:
    """The least of a broker: confirms everything, but closes when it reads the poison, without a word."""

    def __init__(self, poison: bytes) -> None:
        self._poison = poison
        self._server = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    @property
    def address(self) -> str:
        return f"stomp://127.0.0.1:{self._server.getsockname()[1]}"

    def __enter__(self) -> PoisonServer:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in self._threads:
            thread.join(60)

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._server.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(peer,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, peer: socket.socket) -> None:
        data = b""
        with peer:
            while True:
                try:
                    chunk = peer.recv(65536)
                except OSError:
                    return
                if not chunk:
                    return
                data += chunk
                while b"\x00" in data:
                    frame, _, data = data.partition(b"\x00")
                    frame = frame.lstrip(b"\n")
                    if self._poison in frame:
                        return
                    self._answer(peer, frame)

    def _answer(self, peer: socket.socket, frame: bytes) -> None:
        if frame.startswith(b"CONNECT"):
            peer.sendall(b"CONNECTED\nversion:1.2\n\n\x00")
        for line in frame.partition(b"\n\n")[0].split(b"\n"):
            if line.startswith(b"receipt:"):
                peer.sendall(b"RECEIPT\nreceipt-id:" + line[8:] + b"\n\n\x00")


class FloodServer(PoisonServer):
    """Sends many messages as soon as somebody subscribes, whatever he can take."""

    def __init__(self, count: int, size: int = 0) -> None:
        super().__init__(b"\xff never")
        self._count = count
        self._size = size

    def _answer(self, peer: socket.socket, frame: bytes) -> None:
        super()._answer(peer, frame)
        if frame.startswith(b"SUBSCRIBE"):
            for n in range(self._count):
                body = str(n).ljust(self._size).encode()
                peer.sendall(
                    b"MESSAGE\nsubscription:deploykit-1\nmessage-id:%d\nack:%d\ndestination:/queue/q\n"
                    b"content-length:%d\n\n%s\x00" % (n, n, len(body), body)
                )


class WordyServer(PoisonServer):
    """Puts more into a RECEIPT than it has to."""

    def _answer(self, peer: socket.socket, frame: bytes) -> None:
        if b"\nreceipt:" in frame:
            receipt = frame.partition(b"\nreceipt:")[2].partition(b"\n")[0]
            peer.sendall(b"RECEIPT\ncontent-length:0\nreceipt-id:" + receipt + b"\n\n\x00")
        else:
            super()._answer(peer, frame)
