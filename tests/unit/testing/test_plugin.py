"""The pytest plugin, as a project that uses deploykit meets it."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]

_SUITE = """
    import socket

    def test_broker(deploykit_broker):
        with socket.create_connection(("127.0.0.1", deploykit_broker.port), timeout=60) as client:
            client.sendall(b"CONNECT\\nlogin:guest\\npasscode:guest\\n\\n\\0")
            client.sendall(b"SEND\\ndestination:/topic/t\\nx:1\\n\\nhello\\0")
            deploykit_broker.wait_for(lambda stats: stats.counters.get("published") == 1)
        (frame,) = deploykit_broker.sent("/topic/t")
        assert (frame.body, frame.headers["x"]) == (b"hello", "1")
        assert deploykit_broker.sent("/topic/other") == ()

    def test_fresh_for_each_test(deploykit_broker):
        assert deploykit_broker.sent() == ()

    def test_proxy(deploykit_broker, deploykit_proxy):
        assert deploykit_proxy.address_for("guest:guest").endswith(f"@127.0.0.1:{deploykit_proxy.port}")
        with socket.create_connection(("127.0.0.1", deploykit_proxy.port), timeout=60) as client:
            client.sendall(b"CONNECT\\nlogin:guest\\npasscode:guest\\n\\n\\0")
            assert client.recv(9) == b"CONNECTED"
"""


def test_users_get_the_fixtures_without_asking_and_without_a_warning(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(_SUITE)
    result = pytester.runpytest_subprocess("-W", "error", "-q", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=3)


def test_a_project_that_uses_none_of_it_loads_none_of_it() -> None:
    code = """
import sys, pytest
before = set(sys.modules)
import deploykit.testing.plugin
print(*sorted(name for name in set(sys.modules) - before if not name.startswith("encodings")))
"""
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["deploykit", "deploykit._version", "deploykit.testing", "deploykit.testing.plugin"]
