"""`--via` with a real console, a process, over five real agents: signed here, planned and coordinated there."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result

from deploykit.cli import group
from deploykit.errors import DeploykitError
from deploykit.messages import DeployRequested, RolloutApproved, SiteLocked, SiteUnlocked
from tests.support.consolepair import FleetConsole
from tests.support.fivenodes.brokers import broker_of
from tests.support.fivenodes.world import FiveNodes
from tests.support.wait import wait_until


def run(*words: object) -> Result:
    result = CliRunner().invoke(group, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, DeploykitError | SystemExit):
        raise result.exception
    return result


def why(result: Result) -> str:
    """All that a person would read."""
    return f"{result.output}{result.exception or ''}"


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The machine of the person has no settings, no broker, nothing but a key."""
    monkeypatch.setenv("DEPLOYKIT_CONFIG", str(tmp_path / "none.toml"))


class LockingFleet(FiveNodes):
    """Five nodes on which those who approve may lock, too."""

    def _settings(self, short: str, principal: str) -> Path:
        file = super()._settings(short, principal)
        more = "".join(f'{{ principal = "{one}", types = ["site.locked"] }}, ' for one in self._approvers)
        file.write_text(file.read_text().replace("grants = [", f"grants = [{more}", 1))
        return file


@contextmanager
def fleet_and_console(
    tmp_path: Path, request: pytest.FixtureRequest, *approvers: str
) -> Iterator[tuple[FiveNodes, FleetConsole]]:
    root = tmp_path / "fleet"
    root.mkdir()
    with broker_of("embedded", tmp_path, request) as broker:
        fleet = LockingFleet(root, broker, console=True, approvers=approvers)
        with fleet, FleetConsole(fleet, "console1") as console:
            yield fleet, console


def wait_ended(console: FleetConsole, rollout: str) -> str:
    """Return the state in which a rollout has ended."""

    def state() -> str:
        found = httpx.get(f"{console.url}/api/v1/deploys/{rollout}", timeout=30)
        return str(found.json()["summary"]["state"]) if found.status_code == 200 else ""

    wait_until(
        lambda: state() in ("succeeded", "failed", "aborted", "rolled-back"), "it has ended", timeout=90, every=0.1
    )
    return state()


def test_a_person_signs_here_and_the_console_carries_it_out(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    with fleet_and_console(tmp_path, request, "ann") as (fleet, console):
        key, via = fleet.people[0], ("--via", console.url)
        new = fleet.push()
        chosen = [word for node in fleet.nodes for word in ("-I", node)]
        begin = ("deploy", "shop", "--ref", new.ref, *chosen, "--reason", "the sale", *via)

        # The nodes ask for a person: what the console's key alone would begin, they refuse.
        alone = run(*begin)
        assert alone.exit_code == 3, why(alone)
        assert fleet.live("web1") is None

        done = run(*begin, "--approve-with", key, "-y")
        assert done.exit_code == 0, why(done)
        assert {fleet.live(short) for short in fleet.places} == {new}
        assert "the sale" in done.output, "what is signed is shown from its bytes"
        assert "succeeded" in done.output
        (mandate,) = {one.id: one for one in fleet.books.of(RolloutApproved)}.values()
        assert (mandate.reason, set(mandate.nodes)) == ("the sale", set(fleet.nodes))
        assert "active" in run("rollout", "show", mandate.rollout, *via).output
        assert mandate.rollout in run("rollout", "list", *via).output

        # Proposed now, signed later, by the id alone.
        newer = fleet.push()
        fleet.order("fail", "web1", "post-deploy", newer)
        proposed = run("deploy", "shop", "--ref", newer.ref, *chosen, "--propose", *via)
        assert proposed.exit_code == 0, why(proposed)
        assert "proposed; nothing was sent" in proposed.output
        assert fleet.asked("prepare", newer) == set()
        signed = run("approve", "last", "--key", key, "-y", *via)
        assert signed.exit_code == 0, why(signed)
        rollout = proposed.output.partition("deploykit approve ")[2].partition(" ")[0]
        ended = wait_ended(console, rollout)
        assert ended == "failed"
        shown = run("rollout", "show", rollout, *via)
        assert shown.exit_code == 1
        assert "failed" in shown.output

        # A lock that is signed here reaches every node as it was signed; so does its end.
        locked = run("lock", "shop", "--reason", "audit", "--until", "1h", "--key", key, *via)
        assert locked.exit_code == 0, why(locked)
        fleet.books.wait(SiteLocked, lambda one: one.reason == "audit")
        wait_until(lambda: "audit" in run(*begin, "--dry-run").output, "the plan shows the lock", every=0.3)
        refused = run(*begin)
        assert refused.exit_code != 0
        assert "locked" in why(refused)
        assert run("unlock", "shop", "--key", key, *via).exit_code == 0
        fleet.books.wait(SiteUnlocked, lambda one: one.site == "shop")


def test_with_the_consoles_key_a_request_that_is_sent_twice_begins_once(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with fleet_and_console(tmp_path, request) as (fleet, console):
        new = fleet.push()
        fleet.order("hold", "web1", "post-deploy", new)
        body = {"ref": new.ref, "chosen": {"nodes": list(fleet.nodes)}}
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        url = f"{console.url}/api/v1/sites/shop/deploys"
        answers = [httpx.post(url, json=body, headers=headers, timeout=60) for _ in range(2)]
        assert [one.status_code for one in answers] == [202, 202], answers[1].text
        assert answers[0].content == answers[1].content
        assert answers[0].headers["location"] == answers[1].headers["location"]
        other = httpx.post(url, json={**body, "reason": "another"}, headers=headers, timeout=60)
        assert other.status_code == 422

        # The key is kept in the ledger: the next process knows it, too.
        fleet.wait_held("web1", "post-deploy", new)
        console.member.kill()
        console.member.start()
        again = httpx.post(url, json=body, headers=headers, timeout=60)
        assert (again.status_code, again.content) == (202, answers[0].content)

        fleet.let_go()
        assert wait_ended(console, answers[0].json()["rollout"]) == "succeeded"
        asked = [one.id for one in fleet.books.of(DeployRequested) if one.phase == "prepare"]
        assert len(set(asked)) == 1, "it was begun once"
