"""HTTP/1.1 by hand: requests that no client library would send, and whatever comes back."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Mapping


def request_head(path: str, headers: Mapping[str, str], *, method: str = "POST") -> bytes:
    """Return the lines before a body."""
    lines = [f"{method} {path} HTTP/1.1", "Host: hooks.example.org"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def exchange(port: int, pieces: Iterable[bytes], *, timeout: float = 30.0) -> bytes:
    """Send pieces to a port of this machine; return all that comes until the connection ends, or nothing more does."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        with contextlib.suppress(ConnectionError):  # it may have answered and closed before everything was sent
            for piece in pieces:
                connection.sendall(piece)
        return read_answer(connection)


def read_answer(connection: socket.socket) -> bytes:
    """Return the bytes of one answer: to the end of its body by `Content-Length`, or to the end of the connection."""
    data = b""
    with contextlib.suppress(ConnectionError):  # a reset is an end, too: what came before it counts
        while part := connection.recv(65536):
            data += part
            head, end, body = data.partition(b"\r\n\r\n")
            length = next((int(x[15:]) for x in head.lower().split(b"\r\n") if x.startswith(b"content-length:")), None)
            if end and length is not None and len(body) >= length and not head.startswith(b"HTTP/1.1 1"):
                break
    return data


def status_of(answer: bytes) -> int:
    """Return the status of an answer; 0 where nothing came. A `100 Continue` before it is skipped."""
    while answer.startswith(b"HTTP/1.1 100"):
        answer = answer.partition(b"\r\n\r\n")[2]
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0
