"""Where a URL leads: host, port and what the Host header says."""

from __future__ import annotations

import pytest

from deploykit.httpclient.exchange import HttpServer


@pytest.mark.parametrize(
    ("url", "host", "port", "header"),
    [
        ("https://ci.example.org/jenkins/", "ci.example.org", 443, "ci.example.org"),
        ("https://ci.example.org:8443/", "ci.example.org", 8443, "ci.example.org:8443"),
        ("https://ci.example.org:80/", "ci.example.org", 80, "ci.example.org:80"),
        ("http://localhost/", "localhost", 80, "localhost"),
        ("http://127.0.0.1:8080", "127.0.0.1", 8080, "127.0.0.1:8080"),
        ("http://[::1]:8080/", "::1", 8080, "[::1]:8080"),
    ],
)
def test_a_url_names_a_server(url: str, host: str, port: int, header: str) -> None:
    server = HttpServer.of(url, ca_file=None, connect_timeout=1.0)
    assert (server.host, server.port, server.host_header) == (host, port, header)
    assert (server.context is None) == url.startswith("http:")
