"""What is written: settings and secrets for their owner alone, nothing over what is there; comments stay comments."""

from __future__ import annotations

import os
import stat
import tomllib
from pathlib import Path

import pytest

from deploykit.config import load_settings
from deploykit.config.migrate.model import MigrationDraft
from deploykit.config.migrate.render import render, without_passcode
from deploykit.config.migrate.writing import acceptance_problems, write_draft
from deploykit.errors import UsageError
from tests.support.oldsettings import KEEPALIVE, R10K, STOMP_GIT, STOMP_JENKINS, drafted

SECRETS = ("gitpw", "SINGLE-KEY", "BASKET-KEY", "SEARCH-KEY", "gitbot-pw", "queue-user's p/w", "token@")


@pytest.fixture
def draft() -> MigrationDraft:
    return drafted(STOMP_GIT, STOMP_JENKINS, KEEPALIVE, R10K)


def test_every_file_is_its_owners_alone_and_the_settings_are_read(draft: MigrationDraft, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        files = write_draft(draft, [Path("stomp-git.yaml")], tmp_path / "deploykit.toml")
    finally:
        os.umask(before)
    assert sorted(files) == sorted(tmp_path.iterdir())
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    settings = load_settings(tmp_path / "deploykit.toml")
    assert settings.broker.passcode_file == tmp_path / "passcode"
    assert (tmp_path / "jenkins-several-team%2Fbasket.token").read_text() == "BASKET-KEY"


def test_no_secret_is_in_what_is_printed(draft: MigrationDraft) -> None:
    text = render(draft, [Path("stomp-git.yaml")]) + repr(draft) + "".join(map(str, (*draft.lost, *draft.warnings)))
    assert [secret for secret in SECRETS if secret in text] == []
    assert len(draft.secrets) == 7


def test_nothing_that_is_there_is_written_over(draft: MigrationDraft, tmp_path: Path) -> None:
    (tmp_path / "passcode").write_text("mine")
    with pytest.raises(UsageError, match=r"there already: .*/passcode .*--force"):
        write_draft(draft, [], tmp_path / "deploykit.toml")
    assert [file.name for file in tmp_path.iterdir()] == ["passcode"]
    write_draft(draft, [], tmp_path / "deploykit.toml", force=True)
    assert (tmp_path / "passcode").read_text() == "gitpw"
    assert stat.S_IMODE((tmp_path / "passcode").stat().st_mode) == 0o600


def test_a_symlink_is_not_followed(draft: MigrationDraft, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "passcode").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="there already"):
        write_draft(draft, [], tmp_path / "new" / "deploykit.toml")
    with pytest.raises(UsageError, match="passcode is no file"):
        write_draft(draft, [], tmp_path / "new" / "deploykit.toml", force=True)
    assert [file.name for file in tmp_path.rglob("*")] == ["new", "passcode"]


def test_nothing_but_a_file_is_written_over(draft: MigrationDraft, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "deploykit.toml")  # or /dev/stdout, which is a symlink
    with pytest.raises(UsageError, match=r"deploykit\.toml is no file"):
        write_draft(draft, [], tmp_path / "deploykit.toml", force=True)
    assert [file.name for file in tmp_path.iterdir()] == ["deploykit.toml"]


@pytest.mark.parametrize("name", ["hooks.toml", "passcode"])
def test_the_settings_are_in_no_other_file_of_the_result(draft: MigrationDraft, tmp_path: Path, name: str) -> None:
    """hooks.toml can be read by everybody, and a secret would be lost under the settings."""
    with pytest.raises(UsageError, match="the name of another file"):
        write_draft(draft, [], tmp_path / name)
    assert [*tmp_path.iterdir()] == []


def test_where_one_file_cannot_be_written_none_is_left(draft: MigrationDraft, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot write"):
        write_draft(draft, [], tmp_path / ("x" * 300))
    assert [*tmp_path.iterdir()] == []
    with pytest.raises(UsageError, match=r"there is no directory .*/none"):
        write_draft(draft, [], tmp_path / "none" / "deploykit.toml")


def test_a_comment_stays_a_comment() -> None:
    draft = MigrationDraft()
    draft.values["legacy",] = True
    draft.comments["legacy",] = "one\r\x00\u2028[broker]\naddress = 'x'"
    found = tomllib.loads(render(draft, [Path("a\n[x]\ny = 1")]))
    assert found == {"legacy": True}


def test_what_would_not_be_accepted_is_said() -> None:
    draft = MigrationDraft()
    draft.values["broker", "address"] = "nonsense"
    assert any("broker.address" in problem for problem in acceptance_problems(draft))


def test_passcodes_of_an_address_are_replaced() -> None:
    address = "failover:(stomp://a:x%3Ay@h:1,stomp://b:z@[::1]:2)?randomize=false"
    assert without_passcode(address) == "failover:(stomp://a:PASSCODE@h:1,stomp://b:PASSCODE@[::1]:2)?randomize=false"
