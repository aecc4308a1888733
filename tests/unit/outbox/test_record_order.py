"""The order of records: by when they were put, whatever clocks, reboots and other processes do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deploykit.outbox import Outbox, Outgoing
from tests.support.spools import A, Clocks, bodies, frame, put_in_turn, the_file


@pytest.mark.parametrize("jump", [-3600, 3600, -10 * 365 * 86400])
def test_a_clock_that_jumps_does_not_turn_the_order(outbox: Outbox, clocks: Clocks, jump: int) -> None:
    put_in_turn(outbox, clocks, "1", "2")
    clocks.wall += jump * 10**9
    put_in_turn(outbox, clocks, "3", "4")
    clocks.wall -= jump * 10**9
    put_in_turn(outbox, clocks, "5")
    assert bodies(outbox) == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("jump", [0, -3600, 3600, -40 * 365 * 86400])
def test_a_reboot_with_a_wrong_clock_does_not_turn_the_order(outbox: Outbox, clocks: Clocks, jump: int) -> None:
    put_in_turn(outbox, clocks, "1", "2")
    clocks.reboot("second", jump)
    put_in_turn(outbox, clocks, "3", "4")
    clocks.reboot("third", -jump)
    put_in_turn(outbox, clocks, "5", "6")
    assert bodies(outbox) == ["1", "2", "3", "4", "5", "6"]


@pytest.mark.parametrize("anchor", ["", "no number", "-5", "9" * 20, "9" * 4000, "1.5"])
def test_a_damaged_anchor_costs_no_record(outbox: Outbox, clocks: Clocks, spool: Path, anchor: str) -> None:
    if anchor:
        (spool / ".clock-first").symlink_to(anchor)
    else:
        (spool / ".clock-first").write_text("a file")
    put_in_turn(outbox, clocks, "1", "2")
    assert bodies(outbox) == ["1", "2"]


def test_without_a_boot_id_the_wall_clock_serves(outbox: Outbox, clocks: Clocks) -> None:
    clocks.boot_id = ""
    put_in_turn(outbox, clocks, "1", "2")
    assert bodies(outbox) == ["1", "2"]


def test_a_name_from_the_far_future_does_not_use_up_the_digits(outbox: Outbox, clocks: Clocks, spool: Path) -> None:
    outbox.put(A, frame("joke"))
    the_file(outbox).rename(spool / f"{'9' * 20}-00000000.rec")
    clocks.reboot("second")
    put_in_turn(outbox, clocks, "1", "2")
    assert bodies(outbox) == ["1", "2", "joke"]


def test_order_holds_across_processes(outbox: Outbox) -> None:
    code = "import sys; from deploykit.outbox import Outbox; from deploykit.wire.frame import Frame\n"
    code += "Outbox(sys.argv[1]).put('/topic/a', Frame({}, sys.argv[2].encode()))"
    for n in range(4):
        subprocess.run([sys.executable, "-c", code, outbox.path, str(2 * n)], check=True)
        outbox.put(A, frame(str(2 * n + 1)))
    assert bodies(outbox) == list("01234567")


def test_writers_at_the_same_time_lose_nothing_and_each_keeps_its_own_order(outbox: Outbox) -> None:
    code = "import sys; from deploykit.outbox import Outbox; from deploykit.wire.frame import Frame\n"
    code += "box, me = Outbox(sys.argv[1]), sys.argv[2].encode()\n"
    code += "for n in range(50): box.put('/topic/a', Frame({}, b'%s %d' % (me, n)))"
    writers = [subprocess.Popen([sys.executable, "-c", code, outbox.path, f"w{n}"]) for n in range(4)]
    assert [w.wait(60) for w in writers] == [0] * 4
    found = [text.split() for text in bodies(outbox)]
    for n in range(4):
        assert [int(number) for who, number in found if who == f"w{n}"] == list(range(50))
    assert len(found) == 200


def test_pending_goes_round_by_round_without_skipping_or_repeating(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploykit.outbox.reader.ROUND", 3)
    for n in range(3):
        outbox.put(A, frame(str(n)))
        outbox.put_many([Outgoing(A, frame(f"{n}a")), Outgoing(A, frame(f"{n}b"))])
    assert bodies(outbox) == ["0", "0a", "0b", "1", "1a", "1b", "2", "2a", "2b"]
