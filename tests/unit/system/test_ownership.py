"""Who can change a file: threat 35, as a table of ways to it."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import struct
from pathlib import Path
from types import SimpleNamespace

import pytest

from deploykit.system.ownership import OthersCanChange, check_owned, is_private_group
from tests.support.needs import missing, needs_root
from tests.support.strangers import NOBODY

pytestmark = needs_root("to make files of other users")

ROOT = frozenset({0})
NOGROUP = grp.getgrnam("nogroup").gr_gid
DAEMON = pwd.getpwnam("daemon")


@pytest.fixture
def way(tmp_path: Path) -> Path:
    """`top/mid/file`, all root's."""
    (tmp_path / "top" / "mid").mkdir(parents=True)
    (tmp_path / "top" / "mid" / "file").write_text("x")
    return tmp_path / "top"


def _own(path: Path, uid: int = 0, gid: int = 0, mode: int | None = None) -> None:
    os.chown(path, uid, gid, follow_symlinks=False)
    if mode is not None:
        path.chmod(mode)


@pytest.mark.parametrize("place", ["", "mid", "mid/file"])
@pytest.mark.parametrize(
    ("uid", "gid", "mode", "why", "remedy"),
    [
        (NOBODY.pw_uid, 0, 0o755, f"it belongs to uid {NOBODY.pw_uid} (nobody)", "chown root "),
        (0, NOGROUP, 0o775, "the group nogroup can write it", "chmod g-w "),
        (0, 0, 0o757, "everybody can write it", "chmod o-w "),
    ],
)
def test_threat_35_one_place_on_the_way_that_others_can_change_is_named_with_its_remedy(
    way: Path, place: str, uid: int, gid: int, mode: int, why: str, remedy: str
) -> None:
    check_owned(way / "mid" / "file", ROOT)
    bad = way / place
    _own(bad, uid, gid, mode)
    with pytest.raises(OthersCanChange) as caught:
        check_owned(way / "mid" / "file", ROOT)
    assert (caught.value.place, caught.value.why, caught.value.remedy) == (str(bad), why, remedy + str(bad))


def test_threat_35_the_user_a_script_runs_as_may_own_all_of_it_and_nobody_else_may(way: Path) -> None:
    for place in (way, way / "mid", way / "mid" / "file"):
        _own(place, NOBODY.pw_uid, NOGROUP)
    check_owned(way / "mid" / "file", frozenset({0, NOBODY.pw_uid}))
    with pytest.raises(OthersCanChange):
        check_owned(way / "mid" / "file", frozenset({0, DAEMON.pw_uid}))


def test_threat_35_a_sticky_directory_is_good_on_the_way_and_not_as_the_place_itself(way: Path) -> None:
    """In one like /tmp nobody takes away what is ours, but everybody adds a script of the next step's name."""
    way.chmod(0o1777)
    check_owned(way / "mid" / "file", ROOT)
    check_owned(way, ROOT, sticky=True)
    with pytest.raises(OthersCanChange, match="everybody can write it"):
        check_owned(way, ROOT)
    _own(way, NOBODY.pw_uid, 0, 0o1777)  # its owner may take away everything
    with pytest.raises(OthersCanChange, match="it belongs to"):
        check_owned(way / "mid" / "file", ROOT)


@pytest.mark.parametrize("last", [True, False])
def test_threat_35_a_symlink_is_a_part_of_the_way_and_so_is_all_that_leads_to_its_target(
    way: Path, tmp_path: Path, last: bool
) -> None:
    """What `stat` shows of a symlink's target says nothing of who can swap the target."""
    (tmp_path / "eve" / "mid").mkdir(parents=True)
    (tmp_path / "eve" / "mid" / "file").write_text("x")
    link, target = (way / "link", tmp_path / "eve" / "mid" / "file") if last else (way / "l", tmp_path / "eve" / "mid")
    path = link if last else link / "file"
    link.symlink_to(target)
    check_owned(path, ROOT)
    _own(tmp_path / "eve", NOBODY.pw_uid)
    with pytest.raises(OthersCanChange, match="/eve: it belongs to"):
        check_owned(path, ROOT)
    _own(tmp_path / "eve", 0)
    way.chmod(0o1777)
    _own(link, NOBODY.pw_uid)  # who owns a link in a sticky directory can replace it
    with pytest.raises(OthersCanChange, match=f"{link}: it belongs to"):
        check_owned(path, ROOT)


def test_links_are_followed_as_the_kernel_does(way: Path) -> None:
    (way / "a").symlink_to("mid/../mid/.//")
    (way / "b").symlink_to(way / "a")
    (way / "loop").symlink_to("loop")
    check_owned(way / "b" / "file", ROOT)
    check_owned(way / "b" / ".." / "mid", ROOT)
    check_owned(Path("/"), ROOT)
    check_owned(Path("/bin/sh"), ROOT)
    for path, number in ((way / "loop", errno.ELOOP), (way / "no", errno.ENOENT), (way / "mid/file/x", errno.ENOTDIR)):
        with pytest.raises(OSError) as caught:
            check_owned(path, ROOT)
        assert caught.value.errno == number


@pytest.mark.parametrize("place", ["mid", "mid/file"])
def test_threat_35_an_access_list_hides_behind_the_bits_of_a_private_group(way: Path, place: str) -> None:
    """With an access list, the group's bits are its mask: they show that somebody can write, not who."""
    bad = way / place
    bad.chmod(0o775)
    check_owned(way / "mid" / "file", ROOT)  # the group is root's own
    entries = ((1, 7, -1), (2, 7, NOBODY.pw_uid), (4, 5, -1), (0x10, 7, -1), (0x20, 5, -1))
    listed = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    try:
        os.setxattr(bad, "system.posix_acl_access", listed)
    except OSError as error:
        missing(f"access lists in {bad} ({error.strerror})")
    with pytest.raises(OthersCanChange, match="its access list lets others write it"):
        check_owned(way / "mid" / "file", ROOT)
    bad.chmod(0o755)  # the remedy: the mask takes it from all of them
    check_owned(way / "mid" / "file", ROOT)


@pytest.mark.parametrize(
    ("name", "members", "gid", "private"),
    [
        ("daemon", [], DAEMON.pw_gid, True),
        ("daemon", ["daemon", "root"], DAEMON.pw_gid, True),
        ("daemon", ["nobody"], DAEMON.pw_gid, False),
        ("daemon", ["who-is-this"], DAEMON.pw_gid, False),
        ("staff", [], DAEMON.pw_gid, False),  # not a user's own: who else is in it need not be listed
        ("nobody", [], DAEMON.pw_gid, False),
        ("daemon", [], NOBODY.pw_gid, False),  # somebody else's primary group
    ],
)
def test_a_group_is_private_when_it_is_named_like_a_trusted_user_and_nobody_else_is_in_it(
    monkeypatch: pytest.MonkeyPatch, name: str, members: list[str], gid: int, private: bool
) -> None:
    """As umask 002 needs it on Debian, and as OpenSSH reads it there."""
    monkeypatch.setattr(grp, "getgrgid", lambda _: SimpleNamespace(gr_name=name, gr_mem=members))
    assert is_private_group(gid, frozenset({0, DAEMON.pw_uid})) == private
