"""What a hook is told: the later place wins key by key, and every mistake is named with its place."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import attrs
import pytest

from deploykit.errors import SettingsError
from deploykit.messages.topics import PRESETS, TopicMap
from deploykit.settings import BusSettings
from deploykit.settings.hooks import _RULES, HookSettings, default_spool, load_hook_settings, read_plain


@pytest.fixture
def system(tmp_path: Path) -> Path:
    (tmp_path / "repo").mkdir()
    return tmp_path / "hooks.toml"


def load(system: Path, *config: tuple[str, str]) -> HookSettings:
    return load_hook_settings(str(system.parent / "repo"), config=config, system_file=str(system))


def test_nothing_is_needed(system: Path) -> None:
    assert load(system) == HookSettings()


def test_the_repository_wins_over_the_system_and_git_config_over_both(system: Path) -> None:
    system.write_text('spool = "/a"\nroot = "/srv/git"\nstrict = true\n')
    (system.parent / "repo" / "deploykit.toml").write_text('spool = "/b"\nrepo = "by/file"\n')
    found = load(system, ("repo", "by/config"), ("strict", "no"))
    assert (found.spool, found.root, found.repo, found.strict) == ("/b", "/srv/git", "by/config", False)
    assert found.files == (str(system), str(system.parent / "repo" / "deploykit.toml"))


@pytest.mark.parametrize(
    ("key", "value", "name", "meant"),
    [
        ("strict", "true", "strict", True),
        ("strict", "", "strict", True),
        ("legacy", "off", "legacy", False),
        ("signingkey", "/k", "signing_key", "/k"),
        ("timeout", "30", "timeout", 30.0),
        ("timeout", "0.5", "timeout", 0.5),
        ("refs", "refs/notes/*", "refs", ("refs/notes/*",)),
        ("relay", "", "relay", ""),
    ],
)
def test_git_config_says_it_in_its_own_way(system: Path, key: str, value: str, name: str, meant: object) -> None:
    assert getattr(load(system, (key, value)), name) == meant


def test_git_config_may_name_several_refs_and_single_topics(system: Path) -> None:
    found = load(
        system, ("refs", "refs/a/*"), ("refs", "refs/b/*"), ("topics.source", "/topic/x"), ("topics.preset", "future")
    )
    assert found.refs == ("refs/a/*", "refs/b/*")
    assert found.topics == attrs.evolve(PRESETS["future"], source="/topic/x")


def test_all_mistakes_are_told_at_once(system: Path) -> None:
    system.write_text('a = 1\nspool = 7\ntopics = "x"\nrepo = "../x"\n')
    with pytest.raises(SettingsError) as caught:
        load(system, ("strict", "perhaps"))
    problems = caught.value.problems
    assert len(problems) == 5
    assert [p for p in problems if p.startswith(f"{system}: ")] == list(problems[:4])
    assert problems[4].startswith("git config deploykit: strict: expected true or false")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("table", "where"),
    [
        ('source = ""', "source"),
        ('source = "/topic/a\\nb"', "source"),
        ('notice = " \\u0000"', "notice"),
        ("notices = { git = 5 }", "notices.git"),
        ('notices = { git = "" }', "notices.git"),
    ],
)
def test_a_destination_that_nothing_can_be_sent_to_is_a_mistake(system: Path, table: str, where: str) -> None:
    system.write_text(f'[topics]\nbuild_success = ""\n{table}\n')
    with pytest.raises(SettingsError) as caught:
        load(system)
    assert caught.value.problems == (f"{system}: topics.{where}: expected a destination, e.g. /topic/deploykit.source",)


def test_a_number_without_an_end_is_a_problem_like_any_other(system: Path) -> None:
    system.write_text(f"spool = 7\ntimeout = {'9' * 400}\n")
    with pytest.raises(SettingsError) as caught:
        load(system)
    assert [problem.removeprefix(f"{system}: ").partition(":")[0] for problem in caught.value.problems] == [
        "spool",
        "timeout",
    ]


def test_legacy_goes_to_the_originals_topics_unless_others_are_named(system: Path) -> None:
    system.write_text("legacy = true\n")
    assert load(system).topics == PRESETS["future"]
    system.write_text('legacy = true\n[topics]\nsource = "/topic/mine"\n')
    assert load(system).topics == attrs.evolve(PRESETS["future"], source="/topic/mine")
    system.write_text('legacy = true\n[topics]\npreset = "deploykit"\nsource = "/topic/mine"\n')
    assert load(system).topics == TopicMap(source="/topic/mine")


def test_topics_of_one_file_are_of_the_originals_fleet_where_another_says_legacy(system: Path) -> None:
    system.write_text('[topics]\nsource = "/topic/mine"\n')
    found = load(system, ("legacy", "true"), ("legacyDeletes", "true"))
    assert found.topics == attrs.evolve(PRESETS["future"], source="/topic/mine")
    assert found.legacy_deletes


def test_settings_name_what_came_from_gits_own_configuration(system: Path) -> None:
    found = load(system, ("refs", "refs/heads/*"), ("topics.source", "/topic/x"))
    assert (found.files, found.git_config) == ((), ("refs", "topics"))


def test_every_setting_has_a_rule_and_every_rule_a_setting() -> None:
    assert {field.name for field in attrs.fields(HookSettings)} - {"files", "git_config"} == set(_RULES)


def test_hook_settings_hold_no_secret() -> None:
    """Threat 24: what every pusher may read names files, and holds no passcode."""
    secret = {field.name for field in attrs.fields(BusSettings) if field.repr is False}
    assert not secret & set(_RULES)
    assert "passcode" not in _RULES


@pytest.mark.parametrize(
    ("environ", "state"),
    [
        ({"XDG_STATE_HOME": "/x/state", "HOME": "/h"}, "/x/state"),
        ({"XDG_STATE_HOME": "relative", "HOME": "/h"}, "/h/.local/state"),
        ({"XDG_STATE_HOME": "", "HOME": "/h"}, "/h/.local/state"),
        ({"HOME": "../h"}, None),
        ({}, None),
    ],
)
def test_the_spool_of_ones_own_is_in_an_absolute_place(
    environ: dict[str, str], state: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative place would be in the repository, and another one for each."""
    monkeypatch.setattr("deploykit.settings.hooks.SYSTEM_SPOOL", "/nonexistent/spool")
    home = pwd.getpwuid(os.geteuid()).pw_dir
    assert default_spool(environ) == (f"{state or home + '/.local/state'}/deploykit/spool", False)


def test_settings_are_read_from_plain_files_only(system: Path) -> None:
    """A push must not wait for a FIFO that nobody writes to, or read a device to its end."""
    own = system.parent / "repo" / "deploykit.toml"
    os.mkfifo(own)
    with pytest.raises(SettingsError, match="not a plain file"):
        load(system)
    own.unlink()
    for device in ("/dev/zero", "/dev/tty"):
        own.symlink_to(device)
        with pytest.raises(SettingsError, match=f"cannot read {own}"):
            load(system)
        own.unlink()
    own.mkdir()
    with pytest.raises(SettingsError, match=f"cannot read {own}"):
        load(system)
    own.rmdir()
    own.symlink_to("/dev/null")
    assert load(system).files == (str(own),)
    own.unlink()
    own.write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(SettingsError, match="longer than"):
        load(system)


def test_a_file_is_read_to_its_end_and_its_limit(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 100)
    assert read_plain(str(file), 100) == b"x" * 100
    with pytest.raises(OSError, match="longer than 99 bytes"):
        read_plain(str(file), 99)
