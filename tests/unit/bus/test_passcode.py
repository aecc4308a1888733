"""The passcode's file: private, read again each time, and never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploykit.bus import Bus
from deploykit.bus.passcode import read_passcode, secrets_of, with_passcode
from deploykit.errors import SettingsError
from deploykit.settings import BusSettings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "passcode"
    path.write_text("canary-1\n")
    path.chmod(0o600)
    return path


def test_the_passcode_is_the_files_one_line_as_it_is_now(file: Path) -> None:
    settings = BusSettings(passcode_file=file)
    assert read_passcode(settings) == "canary-1"
    assert with_passcode(settings) == BusSettings(passcode="canary-1")
    file.write_text("canary-2")
    file.chmod(0o640)
    assert read_passcode(settings) == "canary-2"
    assert secrets_of(settings)() == ("canary-2",)
    assert "canary" not in repr(settings)


def test_without_a_file_the_settings_own_passcode_counts() -> None:
    settings = BusSettings(passcode="canary")
    assert read_passcode(settings) == "canary"
    assert with_passcode(settings) is settings


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [
        (b"canary", 0o644, "mode 0644 .*chmod 0600 or 0640"),
        (b"canary", 0o602, "mode 0602"),
        (b"canary\nmore\n", 0o600, "more than one line"),
        (b"canary\xff", 0o600, "not UTF-8"),
        (None, 0o600, "No such file"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_without_its_content(
    file: Path, content: bytes | None, mode: int, says: str
) -> None:
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
        file.chmod(mode)
    settings = BusSettings(passcode_file=file)
    for use in (read_passcode, with_passcode, Bus):
        with pytest.raises(SettingsError, match=f"passcode_file: .*{says}") as caught:
            use(settings)
        assert "canary" not in str(caught.value)
        assert caught.value.__cause__ is None
    assert secrets_of(settings)() == ()


def test_a_passcode_that_was_changed_is_a_secret_and_the_old_one_stays_one(tmp_path: Path) -> None:
    file = tmp_path / "passcode"
    file.write_text("canary-1\n")
    file.chmod(0o600)
    secrets = secrets_of(BusSettings(passcode_file=file))
    assert secrets() == ("canary-1",)
    file.write_text("canary-22\n")
    assert secrets() == ("canary-1", "canary-22")
    file.unlink()
    assert secrets() == ("canary-1", "canary-22")
