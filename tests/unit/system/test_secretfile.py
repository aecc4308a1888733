"""Secrets from files: one line, for the owner and its group only, and never in an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploykit.errors import SettingsError
from deploykit.system.secretfile import read_secret, read_secret_text


def written(directory: Path, content: bytes, mode: int = 0o600) -> Path:
    path = directory / "secret"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o400])
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_the_line_is_returned_without_its_end(tmp_path: Path, mode: int, end: bytes) -> None:
    assert read_secret(written(tmp_path, b"canary" + end, mode), "token_file") == "canary"


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [
        (b"canary", 0o644, "has mode 0644"),
        (b"canary", 0o660, "has mode 0660"),
        (b"", 0o600, "is empty"),
        (b"\n", 0o600, "is empty"),
        (b"canary\ncanary", 0o600, "more than one line"),
        (b"canary\x00", 0o600, "more than one line, or a control character"),
        (b"canary\xff", 0o600, "not UTF-8"),
        (b"canary" * 20000, 0o600, "is longer than"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_setting_and_not_shown(
    tmp_path: Path, content: bytes, mode: int, says: str
) -> None:
    with pytest.raises(SettingsError, match=says) as caught:
        read_secret(written(tmp_path, content, mode), "token_file")
    assert "token_file" in str(caught.value)
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"token_file: cannot read .*No such file"):
        read_secret(tmp_path / "absent", "token_file")


def test_a_text_may_have_several_lines(tmp_path: Path) -> None:
    assert read_secret_text(written(tmp_path, b"A: b\nC: d\n"), "headers_file") == "A: b\nC: d\n"
