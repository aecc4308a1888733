"""Users and groups by name or number, the same for everything that has an owner."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

import pytest

from deploykit.checkouts import Checkouts
from deploykit.errors import PreflightRefused, SettingsError
from deploykit.settings import CheckoutSettings
from deploykit.system.users import find_group, find_identity, owner_of, parse_identity

_ME = pwd.getpwuid(os.geteuid())
_GROUP = grp.getgrgid(_ME.pw_gid).gr_name


@pytest.mark.parametrize(
    "text",
    [
        _ME.pw_name,
        str(_ME.pw_uid),
        f"{_ME.pw_name}:",
        f"{_ME.pw_name}:{_GROUP}",
        f"{_ME.pw_name}:{_ME.pw_gid}",
        f"{_ME.pw_uid}:{_GROUP}",
        f"{_ME.pw_uid}:{_ME.pw_gid}",
    ],
)
def test_a_user_and_group_are_found_by_name_and_by_number(text: str) -> None:
    found = find_identity(text)
    assert found is not None
    assert (found.uid, found.gid, found.name, found.home) == (_ME.pw_uid, _ME.pw_gid, _ME.pw_name, _ME.pw_dir)
    assert parse_identity(text, "owner") == found
    assert owner_of(text) == (_ME.pw_uid, _ME.pw_gid)


def test_a_group_that_has_only_a_number_will_do() -> None:
    found = find_identity(f"{_ME.pw_name}:54321")
    assert found is not None
    assert found.gid == 54321
    assert 54321 in found.groups


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "nobody-of-this-name",
        f"{_ME.pw_name}:no-such-group",
        "99999999",
        "\u0660",
        "-1",
        "a\0b",
        f"{2**32 - 1}",
    ],
)
def test_what_this_machine_does_not_know_is_refused_by_name(text: str) -> None:
    assert find_identity(text) is None
    with pytest.raises(PreflightRefused, match=r"run_as names .* which this machine does not know"):
        parse_identity(text, "run_as")


def test_a_group_is_found_by_name_and_by_number() -> None:
    assert find_group(_GROUP) == find_group(str(_ME.pw_gid)) == _ME.pw_gid
    assert find_group("no-such-group") is find_group(str(2**32 - 1)) is find_group("a\0b") is None


@pytest.mark.parametrize("text", [str(_ME.pw_uid), f"{_ME.pw_uid}:{_ME.pw_gid}", _ME.pw_name])
def test_an_owner_means_the_same_for_a_checkout_as_for_a_release(text: str, tmp_path: Path) -> None:
    checkouts = Checkouts(CheckoutSettings(mode="tags", target=tmp_path / "site", owner=text))
    assert checkouts._options.owner == owner_of(text)
    with pytest.raises(SettingsError, match="'nobody-of-this-name': no such user or group"):
        Checkouts(CheckoutSettings(mode="tags", target=tmp_path / "site", owner="nobody-of-this-name"))
