"""One nginx, one Apache and one haproxy: each form of hash, ends without a command, and a configuration that breaks."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest

from deploykit.daemons.access.accessfile import form_of
from deploykit.daemons.access.decisions import change_of
from deploykit.daemons.access.keeper import AccessKeeper, EndedAccess
from deploykit.daemons.access.sitefile import AccessChange, SiteAccessFile
from deploykit.errors import MessageError, PolicyRefused
from deploykit.messages import AccessGrantRequested
from deploykit.names import SiteName
from deploykit.settings import AccessSettings, AccessSiteSettings
from deploykit.settings.access import AccessKind
from deploykit.system.passwordmaking import hash_bcrypt, hash_sha512
from tests.support.accessworld import HASH, PASSWORD, SHOP
from tests.support.guardedservers import GuardedServer, guarded
from tests.support.needs import needs, needs_root
from tests.support.wait import wait_until

KINDS = ("nginx", "apache", "haproxy")
LONG = "x" * 72
#: What counts for a decision is the kind of the file.
SITES: dict[AccessKind, AccessSiteSettings] = {
    "htpasswd": AccessSiteSettings(file=Path("/a")),
    "haproxy": AccessSiteSettings(file=Path("/b"), kind="haproxy", userlist="stage"),
}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, GuardedServer]]:
    root = tmp_path_factory.mktemp("s")
    with ExitStack() as stack:
        yield {kind: stack.enter_context(guarded(kind, root / kind)) for kind in KINDS}


def change(kind: AccessKind, user: str, **more: object) -> AccessChange:
    """What the daemon makes of a grant, for a server that takes it."""
    now = datetime.now(UTC)
    site = AccessSettings(sites={SHOP: SITES[kind]})
    return change_of(AccessGrantRequested(site=SHOP, user=user, time=now, **more), site, now)  # type: ignore[arg-type]  # by name


def by_tool(*words: str) -> str:
    """The hash that htpasswd or openssl made of the password."""
    done = subprocess.run(words, input=f"{PASSWORD}\n", capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip().rpartition(":")[2]


@cache
def forms_taken() -> dict[str, str]:
    """A hash of the password in each form that we take, for every server."""
    htpasswd, openssl = str(needs("htpasswd", package="apache2-utils")), str(needs("openssl", package="openssl"))
    bcrypt = hash_bcrypt(PASSWORD, 8)
    return {
        "2y": by_tool(htpasswd, "-niB", "-C", "8", "x"),
        "2b": bcrypt,
        "2a": bcrypt.replace("$2b$", "$2a$"),
        "sha512": by_tool(openssl, "passwd", "-6", "-stdin"),
        "rounds": by_tool(openssl, "passwd", "-6", "-salt", "rounds=9000$saltsalt", "-stdin"),
        "ours": hash_sha512(PASSWORD),
    }


@cache
def forms_refused() -> dict[str, str]:
    """A hash in each other form of the table, most of which some server would let in."""
    htpasswd, openssl = str(needs("htpasswd", package="apache2-utils")), str(needs("openssl", package="openssl"))
    return {
        "apr1": by_tool(htpasswd, "-nim", "x"),
        "md5crypt": by_tool(openssl, "passwd", "-1", "-stdin"),
        "sha256": by_tool(openssl, "passwd", "-5", "-stdin"),
        "sha": by_tool(htpasswd, "-nis", "x"),
        "des": by_tool(htpasswd, "-nid", "x"),
        "bcrypt 5": by_tool(htpasswd, "-niB", "-C", "5", "x"),
        "few rounds": by_tool(openssl, "passwd", "-6", "-salt", "rounds=1000$saltsalt", "-stdin"),
        "ssha": "{SSHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g4c2FsdA==",
        "plain": "{PLAIN}" + PASSWORD.replace(" ", ""),
        "yescrypt": "$y$j9T$saltsaltsalt$" + "a" * 43,
        "scrypt": "$7$CU..../....saltsaltsalt$" + "a" * 43,
        "clear": "correcthorse",
        "locked": "*0",
    }


@pytest.mark.parametrize("kind", KINDS)
def test_each_form_of_hash_that_is_taken_opens_the_door(
    servers: dict[str, GuardedServer], tmp_path: Path, kind: str
) -> None:
    server, forms = servers[kind], forms_taken()
    changes = [change(server.settings.kind, user, password_hash=hash) for user, hash in forms.items()]
    outcomes = SiteAccessFile(SHOP, server.settings, tmp_path).apply(changes)
    assert {each.outcome for each in outcomes} == {"granted"}
    assert {user: server.status(user, PASSWORD) for user in forms} == dict.fromkeys(forms, 200)
    assert {user: server.status(user, PASSWORD + "x") for user in forms} == dict.fromkeys(forms, 401)
    assert server.status("ours", "") == 401


def is_refused(kind: AccessKind, hash: str) -> bool:
    """Whether no grant with this hash is obeyed."""
    try:
        change(kind, "alice", password_hash=hash)
    except (PolicyRefused, MessageError):
        return True
    return False


@pytest.mark.parametrize("kind", ["htpasswd", "haproxy"])
def test_no_other_form_of_hash_is_taken(kind: AccessKind) -> None:
    for name, hash in forms_refused().items():
        assert is_refused(kind, hash), name
    for slow in (hash_bcrypt(PASSWORD, 9), hash_sha512(PASSWORD).replace("$6$", "$6$rounds=50000$")):
        if kind == "haproxy":  # each request would hold up all its clients
            with pytest.raises(PolicyRefused, match="for haproxy"):
                change(kind, "alice", password_hash=slow)
        else:
            assert change(kind, "alice", password_hash=slow).hash == slow


@pytest.mark.parametrize("kind", ["nginx", "apache"])
def test_somebody_elses_hash_stays_in_use_beside_ours(
    servers: dict[str, GuardedServer], tmp_path: Path, kind: str
) -> None:
    server = servers[kind]
    theirs = f"monitor:{forms_refused()['apr1']}\n".encode()
    server.settings.file.write_bytes(theirs)
    (outcome,) = SiteAccessFile(SHOP, server.settings, tmp_path).apply(
        [change("htpasswd", "alice", password_hash=HASH)]
    )
    assert outcome.outcome == "granted"
    assert server.settings.file.read_bytes().startswith(theirs)
    assert [server.status(user, PASSWORD) for user in ("monitor", "alice")] == [200, 200]


@pytest.mark.parametrize("kind", ["nginx", "apache", "haproxy"])
def test_more_than_72_bytes_of_a_password_count(servers: dict[str, GuardedServer], tmp_path: Path, kind: str) -> None:
    server = servers[kind]
    made = [
        change(server.settings.kind, "long", password=LONG + "a"),
        change(server.settings.kind, "fit", password=LONG),
    ]
    assert {each.outcome for each in SiteAccessFile(SHOP, server.settings, tmp_path).apply(made)} == {"granted"}
    assert server.status("long", LONG + "a") == 200
    assert server.status("long", LONG + "b") == 401, "bcrypt would let that in"
    assert server.status("fit", LONG) == 200


def test_an_access_ends_by_itself_on_every_server(servers: dict[str, GuardedServer], tmp_path: Path) -> None:
    """Nobody asks for anything, and nobody wakes the keeper: its timer alone ends each access."""
    (tmp_path / "access").mkdir()
    sites = {SiteName(kind): server.settings for kind, server in servers.items()}
    files = {name: SiteAccessFile(name, settings, tmp_path / "access") for name, settings in sites.items()}
    ended: list[EndedAccess] = []
    keeper = AccessKeeper(files, tmp_path, gather=0.0, on_ended=ended.extend, now=lambda: datetime.now(UTC))
    keeper.prepare()
    stop = threading.Event()
    thread = threading.Thread(target=keeper.run, args=(stop,))
    thread.start()
    try:
        now = datetime.now(UTC)
        until = (now + timedelta(seconds=4)).replace(microsecond=0)
        granted = AccessChange(kind="grant", user="guest", hash=HASH, until=until, asked_at=now)
        futures = [keeper.submit(site, granted) for site in files]
        assert {future.result(60).outcome for future in futures} == {"granted"}
        if datetime.now(UTC) < until - timedelta(seconds=1):  # else the machine is busy: they may be out again
            assert {kind: server.status("guest", PASSWORD) for kind, server in servers.items()} == dict.fromkeys(
                KINDS, 200
            )
        for kind, server in servers.items():
            wait_until(lambda server=server: server.status("guest", PASSWORD) == 401, kind, every=0.05)  # type: ignore[misc]  # bound
        assert datetime.now(UTC) >= until
        wait_until(lambda: len(ended) == 3, "what has ended")
        assert {(each.site, each.user, each.outcome) for each in ended} == {(s, "guest", "expired") for s in files}
    finally:
        stop.set()
        keeper.wake()
        thread.join(60)


@pytest.mark.parametrize("kind", KINDS)
def test_a_configuration_that_does_not_pass_serves_on_with_the_old_file(
    servers: dict[str, GuardedServer], tmp_path: Path, kind: str
) -> None:
    server = servers[kind]
    site = SiteAccessFile(SHOP, server.settings, tmp_path)
    made = change(server.settings.kind, "stays", password_hash=HASH)
    assert site.apply([made])[0].outcome == "granted"
    before, good = server.settings.file.read_bytes(), server.config.read_text()
    server.config.write_text(good + "\nnonsense\n")
    try:
        revoked = AccessChange(kind="revoke", user="stays", asked_at=datetime.now(UTC))
        outcomes = site.apply([change(server.settings.kind, "late", password_hash=HASH), revoked])
        assert {each.outcome for each in outcomes} == {"failed"}
        assert "the test of the server's configuration failed" in outcomes[0].detail
    finally:
        server.config.write_text(good)
    assert server.settings.file.read_bytes() == before
    assert [server.status(user, PASSWORD) for user in ("stays", "late")] == [200, 401]


@needs_root("to give a file to another user")
def test_the_owner_and_the_group_of_a_file_stay(tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_text("# ours\n")
    os.chown(file, 33, 65534)
    file.chmod(0o640)
    settings = AccessSiteSettings(file=file)
    (outcome,) = SiteAccessFile(SHOP, settings, tmp_path).apply([change("htpasswd", "alice", password_hash=HASH)])
    found = file.stat()
    assert (outcome.outcome, found.st_uid, found.st_gid, found.st_mode & 0o7777) == ("granted", 33, 65534, 0o640)
    assert [each.user for each in form_of(settings).users(file.read_bytes())] == ["alice"]
