"""Answers as values: headers, Retry-After, and a text for people that hostile bytes cannot slow down."""

from __future__ import annotations

from datetime import UTC, datetime
from time import thread_time

import pytest

from deploykit.httpclient.reply import HttpReply, HttpRequest

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("", None),
        ("0", 0.0),
        ("120", 120.0),
        ("99999999999999999999", 86400.0),
        ("Thu, 01 Jan 2026 12:01:30 GMT", 90.0),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0.0),
        ("Fri, 01 Jan 2027 12:00:00 GMT", 86400.0),
        ("soon", None),
        ("-5", None),
        ("²", None),
    ],
)
def test_retry_after_is_read_in_both_forms_and_bounded(value: str, seconds: float | None) -> None:
    reply = HttpReply(status=503, headers=(("retry-after", value),) if value else ())
    assert reply.retry_after(NOW) == seconds


def test_the_text_is_one_line_without_markup() -> None:
    body = b"<html><head><title>Oops</title></head><body><style>a{}</style><p>No valid\n crumb &amp; more</p>\x1b[31m"
    assert HttpReply(status=403, body=body).text() == "No valid crumb & more [31m"


def test_a_hostile_body_costs_no_time() -> None:
    began = thread_time()
    for piece in (b"<", b"<style>", b"<style", b"&", b"\xff"):
        HttpReply(status=500, body=piece * (65536 // len(piece))).text()
    assert thread_time() - began < 2


def test_what_may_hold_a_secret_is_not_in_repr() -> None:
    request = HttpRequest(method="POST", target="/x?token=canary", headers=(("A", "canary"),), body=b"canary")
    assert "canary" not in repr(request) + repr(HttpReply(status=200, body=b"canary"))
