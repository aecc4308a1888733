"""`conf.d/*.toml` beside the settings file: what is read, how it merges, and which file a problem names."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest

from deploykit.config import load_settings, load_site_settings, locator, settings_files
from deploykit.config.merge import merge
from deploykit.errors import SettingsError
from tests.support.needs import needs_root

MAIN = 'node = "web1"\n[broker]\naddress = "stomp://127.0.0.1:1"\n'
GRANT = '[[trust.grants]]\nprincipal = "{}@example.org"\ntypes = ["deploykit.deploy.requested.v1"]\n'


@pytest.fixture
def main(tmp_path: Path) -> Path:
    return put(tmp_path / "deploykit.toml", MAIN)


def put(path: Path, text: str, mode: int = 0o600) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def more(main: Path, name: str, text: str, mode: int = 0o600) -> Path:
    return put(main.parent / "conf.d" / name, text, mode)


def problems(main: Path) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load_settings(main)
    return caught.value.problems


# -- what is read ------------------------------------------------------------------------------------------------------


def test_files_are_read_by_name_without_hidden_ones_and_backups(main: Path) -> None:
    for name in ("20-b.toml", "10-a.toml"):
        more(main, name, "")
    for name in (".10-a.toml.swp", ".hidden.toml", "#10-a.toml#", ".#10-a.toml", "10-a.toml~", "x.toml.bak", "x.txt"):
        more(main, name, "not TOML at all [")
    found = settings_files(main)
    assert [path.relative_to(main.parent).as_posix() for path in found] == [
        "deploykit.toml",
        "conf.d/10-a.toml",
        "conf.d/20-b.toml",
    ]
    assert load_settings(main).node == "web1"


def test_the_environment_s_file_has_its_conf_d_too(main: Path) -> None:
    more(main, "10-a.toml", 'state = "/srv/x"\n')
    environ = {"DEPLOYKIT_CONFIG": str(main)}
    assert load_settings(environ=environ).state == Path("/srv/x")
    assert len(settings_files(environ=environ)) == 2


def test_what_was_read_is_logged(main: Path, caplog: pytest.LogCaptureFixture) -> None:
    extra = more(main, "10-a.toml", "")
    with caplog.at_level(logging.INFO, "deploykit"):
        load_settings(main)
    assert f"settings read from {main}, {extra}" in caplog.text


def test_tables_merge_and_lists_of_tables_are_joined(main: Path) -> None:
    main.write_text(MAIN + GRANT.format("ada"))
    more(main, "10.toml", '[broker]\nlogin = "agent"\n' + GRANT.format("bob"))
    more(main, "20.toml", '[repositories.shop]\nurl = "https://git.example.org/shop.git"\n')
    settings = load_settings(main)
    assert (settings.broker.address, settings.broker.login) == ("stomp://127.0.0.1:1", "agent")
    assert [grant.principal for grant in settings.trust.grants] == ["ada@example.org", "bob@example.org"]
    assert list(settings.repositories) == ["shop"]


def test_a_site_of_conf_d_is_found_by_its_directory(main: Path, tmp_path: Path) -> None:
    site = f'[sites.shop]\npath = "{tmp_path}/shop"\nrepo = "shop"\nrelease = {{ keep = 7 }}\n'
    more(main, "10.toml", site + '[repositories.shop]\nurl = "https://git.example.org/shop.git"\n')
    main.write_text('[broker]\naddress = "stomp://127.0.0.1:1"\n')
    assert load_site_settings(main, tmp_path / "shop").keep == 7


def test_settings_of_a_site_alone_have_no_conf_d(main: Path, tmp_path: Path) -> None:
    more(main, "10.toml", "not TOML at all [")
    assert load_site_settings(put(tmp_path / "site.toml", "keep = 4\n"), tmp_path / "shop").keep == 4


# -- what is wrong -----------------------------------------------------------------------------------------------------


def test_a_value_in_two_files_is_an_error_that_names_both(main: Path) -> None:
    one = more(main, "10.toml", '[broker]\naddress = "stomp://127.0.0.1:1"\nwindow = 5\n')
    two = more(main, "20.toml", "[broker]\nwindow = 6\n")
    assert problems(main) == (
        f"broker.address: stands in {main} and in {one}; write it in one of them",
        f"broker.window: stands in {one} and in {two}; write it in one of them",
    )


@pytest.mark.parametrize(
    ("first", "second", "path"),
    [
        ('refs = ["a"]', 'refs = ["b"]', "refs"),
        ("refs = []", "refs = []", "refs"),
        ("x = 1", "[x]", "x"),
        ("[x]", "x = 1", "x"),
        ("[[x]]\na = 1", "x = [1]", "x"),
        ("x = [1]", "[[x]]\na = 1", "x"),
    ],
)
def test_values_that_are_no_tables_do_not_merge(first: str, second: str, path: str) -> None:
    import tomllib

    merged = merge([("one", tomllib.loads(first)), ("two", tomllib.loads(second))])
    assert merged.problems == (f"{path}: stands in one and in two; write it in one of them",)


def test_every_problem_names_the_file_it_stands_in_and_its_place_there(main: Path) -> None:
    main.write_text(MAIN + GRANT.format("ada"))
    one = more(main, "10.toml", GRANT.format("bob") + GRANT.format("eve").replace("types", "tyqes"))
    two = more(main, "20.toml", "reconcile_every = 0\n[broker]\nwindow = 0\nadress = 1\n")
    assert sorted(problems(main)) == sorted(
        (
            f"{one}: trust.grants[1].types: required, but missing",
            f"{one}: trust.grants[1].tyqes: unknown setting (did you mean types?)",
            f"{two}: broker.adress: unknown setting (did you mean address?)",
            f"{two}: broker.window: expected at least 1, not 0",
            f"{two}: reconcile_every: expected at least 1, not 0",
        )
    )


def test_what_no_file_holds_is_of_those_that_have_its_table_or_of_the_main_one() -> None:
    data: list[tuple[str, dict[str, Any]]] = [("one", {"a": {"b": 1}}), ("two", {"a": {"c": 2}}), ("three", {"d": [1]})]
    merged = merge(data)
    assert [merged.located(f"{path}: wrong") for path in ("a.x", "a.b", "a.c.y", "d[0]", "e", "no path at all")] == [
        "one, two: a.x: wrong",
        "one: a.b: wrong",
        "two: a.c.y: wrong",
        "three: d[0]: wrong",
        "one: e: wrong",
        "one: no path at all: wrong",
    ]


def test_files_that_are_no_toml_or_cannot_be_read_are_all_named(main: Path) -> None:
    one = more(main, "10.toml", "x = [")
    two = main.parent / "conf.d" / "20.toml"
    two.mkdir()
    with pytest.raises(SettingsError, match=rf"^{main} with conf\.d has 2 problems$"):
        load_settings(main)
    found = "\n".join(problems(main))
    assert f"{one} is not TOML: " in found
    assert f"cannot read settings {two}: Is a directory" in found


def test_a_passcode_in_a_file_that_others_read_is_refused_whatever_the_main_file_s_mode(main: Path) -> None:
    one = more(main, "10.toml", '[broker]\npasscode = "s3cret-canary"\n', 0o644)
    (problem,) = problems(main)
    assert problem.startswith(f"{one}: broker: the file holds a passcode but has mode 0644")
    assert "canary" not in problem
    one.chmod(0o640)
    main.chmod(0o644)
    assert load_settings(main).broker.passcode == "s3cret-canary"


def test_one_file_alone_is_not_named_in_each_line(main: Path) -> None:
    main.write_text("colour = 1\n[broker]\nwindow = 0\n")
    (main.parent / "conf.d").mkdir()
    assert all(not line.startswith("/") for line in problems(main))
    assert locator(main)("broker.window: wrong") == "broker.window: wrong"


@needs_root("it gives a file away")
@pytest.mark.parametrize("what", ["directory", "file"])
def test_root_reads_nothing_from_conf_d_that_others_can_change(main: Path, what: str) -> None:
    one = more(main, "10.toml", "")
    place = one.parent if what == "directory" else one
    os.chown(place, 65534, 0)
    with pytest.raises(SettingsError, match="not read as root: it belongs to uid 65534") as caught:
        load_settings(main)
    assert f"settings {place} are" in caught.value.problems[0]


@needs_root("it gives a file away")
def test_others_files_in_conf_d_are_not_read_by_a_user_either(main: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings file was named by the user; `conf.d` beside it, in /tmp perhaps, anybody may have made."""
    one = more(main, "10.toml", 'state = "/srv/x"\n')
    monkeypatch.setattr("deploykit.config.files.os.geteuid", lambda: 12345)
    for owner in (0, 12345):
        os.chown(one, owner, 0)
        assert load_settings(main).state == Path("/srv/x")
    os.chown(one, 65534, 0)
    assert problems(main) == (f"settings {one} are not read: they belong to nobody (remove them)",)
