"""The page that asks for the same page again: the address in it is ours, whatever was asked for."""

from __future__ import annotations

import re

import pytest
from starlette.responses import HTMLResponse

from deploykit.web.login.askagain import ask_again


@pytest.mark.parametrize(
    ("path", "query", "address"),
    [
        (b"/sites/shop", b"", "/sites/shop"),
        (b"/sites/shop", b"x=1&y=2", "/sites/shop?x=1&amp;y=2"),
        (b"//evil.example/", b"", "/evil.example/"),
        (b"/\\evil.example/", b"", "/%5Cevil.example/"),
        (b"/a%2Fb", b"", "/a%2Fb"),
        (b'/a"><script>', b'"><b>', "/a&quot;&gt;&lt;script&gt;?&quot;&gt;&lt;b&gt;"),
    ],
)
def test_it_leads_to_our_own_page(path: bytes, query: bytes, address: str) -> None:
    answer = ask_again({"type": "http", "path": path.decode(), "raw_path": path, "query_string": query})
    assert isinstance(answer, HTMLResponse)
    found = re.search(r'content="0; url=([^"]*)"', bytes(answer.body).decode())
    assert found is not None
    assert found[1] == address


def test_its_script_is_below_where_the_console_is_mounted() -> None:
    answer = ask_again({"type": "http", "path": "/deploy/x", "root_path": "/deploy", "query_string": b""})
    assert b'<script src="/deploy/static/again.' in bytes(answer.body)
