"""Which line of a file of credentials counts for an origin."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import pytest

from deploykit.git.transport.address import parse_origin_url
from deploykit.git.transport.login import login_for
from deploykit.settings import MirrorSettings
from tests.support.origins import run_git


def no_helper(argv: Sequence[str], question: str, limit: float) -> str:
    raise AssertionError("no helper is in the settings")


def login(tmp_path: Path, lines: str, url: str) -> str:
    """Return USER:PASSWORD for a URL, empty where no line counts."""
    file = tmp_path / "credentials"
    file.write_text(lines)
    file.chmod(0o600)
    settings = MirrorSettings(credentials_file=file)
    header = login_for(parse_origin_url(url, allow_http=True), settings, no_helper, 10.0)
    return base64.b64decode(header.removeprefix("Basic ")).decode()


@pytest.mark.parametrize("host", ["git.example.net", "git.example.net:8443", "[::1]:8443", "[::1]"])
def test_what_git_credential_store_writes_is_found(host: str, tmp_path: Path) -> None:
    file = tmp_path / "store"
    asked = f"protocol=https\nhost={host}\nusername=me@work\npassword=p/w:1%\n\n"
    run_git(tmp_path, "credential-store", f"--file={file}", "store", data=asked.encode())
    assert login(tmp_path, file.read_text(), f"https://{host}/site.git") == "me@work:p/w:1%"


@pytest.mark.parametrize(
    ("line", "url", "counts"),
    [
        ("https://u:p@host:8443", "https://host:8443/x", True),
        ("https://u:p@host%3A8443", "https://host:8443/x", True),
        ("https://u:p@HOST", "https://host/x", True),
        ("https://u:p@host:443", "https://host/x", True),
        ("https://u:p@host", "https://host:443/x", True),
        ("https://u:p@host", "https://host:8443/x", False),
        ("https://u:p@host%3a8443", "https://host/x", False),
        ("https://u:p@host%3a8443", "http://host:8443/x", False),
        ("https://u:p@host/a%20b", "https://host/a%20b", True),
        ("https://u:p@host/a", "https://host/b", False),
        ("https://u:p@evil%2fhost", "https://host/x", False),
        ("https://u:p@evil%40host", "https://host/x", False),
        ("https://u:p@host%2f", "https://host/x", False),
        ("https://u:p@host%3aport", "https://host/x", False),
        ("https://u:p@%5b::1", "https://[::1]/x", False),
        ("https://u:p@host%0a", "https://host/x", False),
        ("https://host", "https://host/x", False),
    ],
)
def test_a_line_counts_for_its_scheme_host_and_port(line: str, url: str, counts: bool, tmp_path: Path) -> None:
    assert login(tmp_path, f"nonsense\n{line}\n", url) == ("u:p" if counts else "")


def test_a_helper_is_asked_for_the_host_as_git_writes_it(tmp_path: Path) -> None:
    asked: list[str] = []

    def helper(argv: Sequence[str], question: str, limit: float) -> str:
        asked.append(question)
        return "username=u\npassword=p\n"

    settings = MirrorSettings(credential_helper=("x",))
    assert login_for(parse_origin_url("https://[::1]:8443/x"), settings, helper, 10.0)
    assert asked == ["protocol=https\nhost=[::1]:8443\n\n"]
