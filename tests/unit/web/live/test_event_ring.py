"""Which events a reader gets: what it missed, what it may see, and a reset where that is no longer kept."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from deploykit.web.live.events import MAX_BLOCK, EventFilter, EventRing
from deploykit.web.viewer import EVERYBODY, RoleGrant, Viewer

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ALL = EventFilter(viewer=EVERYBODY)
SHOPS = Viewer(name="ann", grants=(RoleGrant(sites="shop*", role="look"),))


def filled(count: int, *, kept: int = 100) -> EventRing:
    ring = EventRing(1000, kept=kept)
    for number in range(count):
        ring.add("log", NOON, site="shop", data={"line": number})
    return ring


def numbers(blocks: bytes) -> list[int]:
    return [int(line[4:]) for line in blocks.decode().splitlines() if line.startswith("id: ")]


def test_a_reader_that_comes_back_gets_what_it_missed() -> None:
    batch = filled(5).after(1002, ALL)
    assert numbers(batch.blocks) == [1003, 1004]
    assert (batch.last, batch.reset, batch.more) == (1004, False, False)


def test_a_reader_that_missed_nothing_gets_nothing() -> None:
    assert filled(5).after(1004, ALL).blocks == b""
    assert filled(0).after(999, ALL).blocks == b""


def test_what_is_no_longer_kept_is_a_reset_and_the_reader_goes_on_from_the_newest() -> None:
    ring = filled(20, kept=5)
    batch = ring.after(1013, ALL)
    assert batch.reset
    assert b"event: reset" in batch.blocks
    assert batch.last == 1019
    assert numbers(ring.after(1014, ALL).blocks) == [1015, 1016, 1017, 1018, 1019]


def test_a_number_of_an_earlier_process_or_of_none_is_a_reset() -> None:
    for number in (0, 998, 1005, 10**14):
        assert filled(5).after(number, ALL).reset, number
    assert filled(0).after(10, ALL).reset


def test_a_long_replay_comes_in_pieces_without_a_gap() -> None:
    ring, at, seen = filled(90), 999, list[int]()
    while True:
        batch = ring.after(at, ALL, most=7)
        seen += numbers(batch.blocks)
        at = batch.last
        if not batch.more:
            break
    assert seen == list(range(1000, 1090))


def test_events_of_other_sites_do_not_reach_a_viewer() -> None:
    ring = EventRing(1)
    ring.add("deploy", NOON, site="shop-a", data={"text": "mine"})
    ring.add("deploy", NOON, site="vault", data={"text": "hidden"})
    ring.add("notice", NOON, data={"text": "hidden"})
    ring.add("health", NOON, data={"connected": False})
    batch = ring.after(0, EventFilter(viewer=SHOPS))
    assert numbers(batch.blocks) == [1, 4]
    assert b"hidden" not in batch.blocks
    assert batch.last == 4, "what is filtered out is passed over, not read again"
    assert ring.after(0, EventFilter(viewer=Viewer(name="nobody"))).blocks == b""


def test_topics_and_site_choose() -> None:
    ring = EventRing(1)
    ring.add("deploy", NOON, site="shop")
    ring.add("log", NOON, site="shop")
    ring.add("log", NOON, site="vault")
    ring.add("push", NOON)
    ring.add("health", NOON)
    assert numbers(ring.after(0, EventFilter(viewer=EVERYBODY, topics=frozenset({"log"}))).blocks) == [2, 3]
    assert numbers(ring.after(0, EventFilter(viewer=EVERYBODY, site="shop")).blocks) == [1, 2, 5]


def test_a_hostile_text_stays_in_its_line() -> None:
    ring = EventRing(1)
    text = "\nid: 9\nevent: reset\ndata: x\n\n\u2028\r\x00\ud800<script>"
    ring.add("log", NOON, site="shop", data={"text": text})
    block = ring.after(0, ALL).blocks
    assert block.count(b"\n") == 4
    assert block.isascii()
    assert json.loads(block.partition(b"\ndata: ")[2])["text"] == text


def test_an_event_that_is_too_long_or_no_json_does_not_stop_the_writer() -> None:
    ring = EventRing(1)
    ring.add("log", NOON, site="shop", data={"text": "x" * MAX_BLOCK})
    ring.add("log", NOON, site="shop", data={"at": NOON})
    long, other = ring.after(0, ALL).blocks.decode().strip().split("\n\n")
    assert json.loads(long.split("data: ")[1])["cut"] is True
    assert len(long) < 500
    assert "2026-03-01" in other


def test_a_listener_hears_of_each_event_until_it_ends_its_subscription_and_of_the_close() -> None:
    ring, heard = EventRing(1), list[int]()
    end = ring.subscribe(lambda: heard.append(ring.newest))
    ring.add("push", NOON)
    ring.add("push", NOON)
    ring.close()
    end()
    ring.add("push", NOON)
    assert heard == [1, 2, 2]
    assert ring.closed
