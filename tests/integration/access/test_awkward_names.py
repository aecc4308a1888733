"""A trusted key signs commands that name a user or a site by every awkward character: no file holds any of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.messages import new_id
from deploykit.names import SiteName
from deploykit.settings import AccessSiteSettings
from deploykit.wire import Frame, encode
from deploykit.wire.codec import ID_HEADER
from tests.support.accessworld import HASH, SHOP, AccessWorld

STAGE = SiteName("stage")
AWKWARD = (
    *("a:b", "a b", " a", "a ", "a\tb", "a\nroot:x", "a\r", "a\0b", "#a", "a#b", '"a"', "a'b", "a\\", "a/b", "../a"),
    *(
        "jörg",
        "用户",
        "a\u200bb",
        "a\u2028b",
        "\u202ea",
        "a\x1b[31m",
        "${HOME}",
        "$(id)",
        "`id`",
        "a;b",
        "a|b",
        "*",
        "-a",
    ),
    *("", "a" * 65, "a" * 5000, "%0a", "{SHA}", "a password b"),
)
HASHES = (
    *("", "clear", f"{HASH} # x", f"{HASH}:x", f"{HASH}\nroot:x", f"{HASH} ", '"' + HASH + '"', "*0", "{SHA}abc"),
    *("$apr1$abc$def", HASH[:-1], HASH + "a", HASH.replace("$6$", "$5$"), "$2b$10$" + "é" * 53, "$6$" + "a" * 5000),
)


@pytest.fixture
def world(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Iterator[AccessWorld]:
    userlist = tmp_path / "users.cfg"
    userlist.write_text("userlist stage\n")
    sites = {
        SHOP: AccessSiteSettings(file=tmp_path / "users"),
        STAGE: AccessSiteSettings(file=userlist, kind="haproxy", userlist="stage"),
    }
    (tmp_path / "users").touch(0o640)
    with AccessWorld(tmp_path, deploykit_broker.address, sites) as made:
        yield made


def altered(world: AccessWorld, **fields: object) -> Frame:
    """A grant in which fields say what no program of ours would write."""
    frame = encode(world.grant())
    body = json.loads(frame.body)
    place = next(table for table in (body, *body.values()) if isinstance(table, dict) and "user" in table)
    assert set(fields) <= set(place)
    place.update(fields)
    number = new_id()
    if "id" in body:
        body["id"] = str(number)
    return Frame({**frame.headers, ID_HEADER: str(number)}, json.dumps(body).encode())


def test_nothing_that_is_no_name_gets_into_a_file(world: AccessWorld) -> None:
    with world.daemon():
        for site in (SHOP, STAGE):
            for name in AWKWARD:
                world.send(world.grant(), frame=altered(world, user=name, site=site))
            for hash in HASHES:
                world.send(world.grant(), frame=altered(world, password_hash=hash, site=site))
        for name in AWKWARD:
            world.send(world.grant(), frame=altered(world, site=name))
        for value in (None, 5, ["alice"], {"alice": 1}, True):
            world.send(world.grant(), frame=altered(world, user=value))
        assert world.do(world.grant("good")).outcome == "granted"
        assert world.do(world.grant("good", site=STAGE)).outcome == "granted"
    assert [line.split(":")[0] for line in world.file.read_text().splitlines()] == ["good"]
    lines = (world.root / "users.cfg").read_text().splitlines()
    assert lines[0] == "userlist stage"
    assert [line.split()[:2] for line in lines[1:]] == [["user", "good"]]
    assert {report.user for report in world.reports() if report.outcome == "granted"} == {"good"}
    outside = {path.name for path in world.root.iterdir()}
    assert outside <= {
        *("users", "users.cfg", "state", "spool", "desk", "desk-spool", "allowed_signers"),
        *(f"{who}.key{end}" for who in ("operator", "looker", "node", "stranger") for end in ("", ".pub")),
    }, outside
