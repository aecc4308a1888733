"""Press, sign, go back: two people, two browsers with passkeys, two consoles, five agents on RabbitMQ, PostgreSQL.

Everything is pressed in Chromium. What nodes did is read from their disks, their audits and the bus.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import attrs
import pytest

from deploykit.daemons.access.daemon import AccessDaemon
from deploykit.fleet.plan import Target
from tests.brokers.process import PortLease
from tests.brokers.rabbitmq import RabbitMQ
from tests.support.browser import chromium, serious_findings, tab
from tests.support.chain.brokers import RealBroker
from tests.support.guardedservers import GuardedServer, guarded
from tests.support.postgres import running_postgres
from tests.support.pressworld import Person, PressConsole, PressFleet
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.rabbitmq,
]

PEOPLE = {"ann": "ann@fleet", "bob": "bob@fleet"}
NODES = ("web1", "web2", "web3", "web4", "web5")


@attrs.frozen(kw_only=True)
class World:
    """Everything that runs."""

    fleet: PressFleet
    server: GuardedServer
    one: PressConsole
    two: PressConsole
    ann: Person
    bob: Person

    def live(self) -> dict[str, Target | None]:
        """What is live on each node's disk."""
        return {short: self.fleet.live(short) for short in NODES}

    def decided(self, short: str, rollout: str = "") -> list[tuple[str, str, str]]:
        """What a node has in its audit, of a rollout or of all: what was asked, what was decided, and why."""
        records = self.fleet.records(short)
        return [(one.action, one.decision, one.reason) for one in records if rollout in ("", one.correlation_id)]

    def plans(self, new: Target, **options: str) -> Page:
        """Let ann choose a release for all nodes in her browser; return the page with the plan."""
        page = self.ann.open("/")
        page.get_by_role("link", name="shop", exact=True).first.click()
        page.get_by_role("link", name="Deploy", exact=True).click()
        page.get_by_label(re.compile("^(Another tag|Tag) or branch")).fill(new.name)
        if options:
            page.get_by_text("How it goes").click()
            for label, value in options.items():
                field = page.get_by_label(label.replace("_", " "), exact=True)
                field.select_option(value) if field.evaluate("one => one.tagName") == "SELECT" else field.fill(value)
        page.get_by_label("Why", exact=True).fill("the sale")
        page.get_by_role("button", name="Show what would happen").click()
        plan = page.locator("#plan")
        plan.wait_for()
        page.wait_for_load_state()  # it is whole
        assert plan.locator("tbody tr[data-row]").count() == len(NODES)
        assert "2 people" in plan.inner_text()
        return page

    def deploys(self, new: Target, **options: str) -> str:
        """Let ann propose a release to all nodes in her browser; return the rollout's id."""
        page = self.plans(new, **options)
        page.get_by_role("button", name=re.compile("Ask for 2 signatures: v")).click()
        page.wait_for_url("**/approve?*")
        return page.url.partition("/deploys/")[2].partition("/")[0]

    def sign(self, rollout: str, first: Person, second: Person) -> None:
        """Let two people sign, each in their own browser; the second one's console begins the rollout."""
        first.sign(rollout, "1 more person must sign")
        second.sign(rollout, "It has begun")


def ended(page: Page, state: str) -> None:
    """Wait until the page of a rollout, which is not loaded again, says how it ended."""
    page.locator("#deploy-state h2", has_text=state).wait_for()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Two people who have arrived, and whose signing keys the operators have distributed."""
    root = tmp_path_factory.mktemp("press")
    with ExitStack() as stack:
        browser = stack.enter_context(chromium())
        server = stack.enter_context(guarded("nginx", root / "nginx"))
        database = stack.enter_context(running_postgres())
        broker = RealBroker(stack.enter_context(RabbitMQ()))
        leases = [PortLease(), PortLease()]
        for lease in leases:
            stack.callback(lease.release)
        one, two = (PressConsole(f"console{at}", lease) for at, lease in enumerate(leases, 1))
        (root / "fleet").mkdir()
        fleet = stack.enter_context(
            PressFleet(
                root / "fleet",
                broker,
                people=tuple(PEOPLE.values()),
                origins=(one.url, two.url),
                users=server.settings.file,
            )
        )
        daemon = stack.enter_context(AccessDaemon(fleet.places["web1"].settings))
        for console in (one, two):
            console.set_up(fleet, database, tuple(PEOPLE))
            stack.callback(console.member.kill)
            console.member.spawn()
        for console in (one, two):
            console.member.wait_ready()
        assert daemon.wait_connected(60)
        people = [
            Person(name, PEOPLE[name], stack.enter_context(tab(browser)), console)
            for name, console in (("ann", one), ("bob", two))
        ]
        for person in people:
            person.arrive()
            line = person.enrol()
            with fleet.signers.open("a") as file:
                file.write(f"{line}\n")
            assert len(person.device.credentials) == 2  # one logs in, the other signs
        fleet.level()
        yield World(fleet=fleet, server=server, one=one, two=two, ann=people[0], bob=people[1])


def test_a_signed_canary_fails_then_another_rollout_is_aborted_and_taken_back_by_one_button(world: World) -> None:
    fleet, ann, bob = world.fleet, world.ann, world.bob
    old = fleet.level()

    # Four eyes: ann's press alone sends nothing. Then the canary fails, and no other node is asked.
    new = fleet.push()
    fleet.order("fail", "web1", "post-deploy", new)
    rollout = world.deploys(new)
    ann.sign(rollout, "1 more person must sign")
    assert fleet.asked("activate", new) == set()
    bob.open("/")
    bob.page.get_by_role("link", name="Look at it").click()
    bob.sign(rollout, "the end of its log")
    bob.page.locator("#tails", has_text="post-deploy runs on").wait_for()
    assert serious_findings(bob.page) == []
    assert fleet.asked("activate", new) == {"web1"}
    assert world.live() == dict.fromkeys(NODES, old)

    # Another one: one node fails and is borne, one waits; bob stops it, and what went live goes back.
    new = fleet.push()
    fleet.order("fail", "web2", "post-deploy", new)
    fleet.order("hold", "web3", "post-deploy", new)
    rollout = world.deploys(new, Then_at_a_time="1", **{"Failures that are borne": "1"})
    world.sign(rollout, ann, bob)
    fleet.wait_held("web3", "post-deploy", new)
    assert fleet.live("web1") == new
    bob.press("Abort and go back")
    bob.page.get_by_role("button", name=re.compile("^Stop, and take")).click()
    bob.page.get_by_text("It was asked for").wait_for()
    fleet.let_go()
    ended(bob.page, "rolled back")
    ended(ann.page, "rolled back")  # the page on which she signed went on by itself
    assert world.live() == dict.fromkeys(NODES, old)
    assert fleet.asked("activate", new) == {"web1", "web2", "web3"}
    approval, *commands = world.decided("web1", rollout)
    assert approval == ("rollout.approval", "allowed", "it counts")
    assert [one[0] for one in commands] == [
        *["deploy", "deploy.result"] * 2,
        "rollout.abort",
        "deploy",
        "deploy.result",
    ]
    (signers,) = [
        one.actor for one in fleet.records("web1") if (one.action, one.correlation_id) == ("rollout.approval", rollout)
    ]
    assert all(f"{one.principal} ({one.fingerprint})" in signers for one in (ann, bob))  # by passkeys, no other key
    assert ann.problems == bob.problems == []


def test_locked_by_one_person_nobody_deploys_until_that_person_unlocks(world: World) -> None:
    fleet, ann, bob = world.fleet, world.ann, world.bob
    old = fleet.level()
    page = bob.open("/sites/shop")
    page.get_by_role("link", name="Lock", exact=True).click()
    page.get_by_label("Why").fill("stocktaking")
    page.get_by_label("For", exact=True).select_option("4h")
    page.get_by_role("button", name="Lock shop").click()
    page.get_by_text("5 of 5 nodes have it").wait_for()
    assert all(world.decided(short)[-1] == ("site.lock", "allowed", "it decides") for short in NODES)
    new = fleet.push()
    page = world.plans(new)
    assert "stocktaking" in page.locator("#press").inner_text()
    assert page.locator("#press button").count() == 0
    assert "bob has locked it" in ann.open("/sites/shop/lock").inner_text("main")
    assert world.live() == dict.fromkeys(NODES, old)
    page = bob.open("/sites/shop/lock")
    bob.press("Unlock shop")
    page.get_by_text("shop unlocked by bob").wait_for()
    rollout = world.deploys(new)
    world.sign(rollout, bob, ann)
    ended(ann.page, "succeeded")
    assert world.live() == dict.fromkeys(NODES, new)
    assert ann.problems == bob.problems == []


def test_a_console_is_killed_in_the_middle_and_the_other_persons_browser_sees_the_end(world: World) -> None:
    fleet, ann, bob = world.fleet, world.ann, world.bob
    new = fleet.push()
    fleet.order("hold", "web2", "post-deploy", new)
    rollout = world.deploys(new)
    world.sign(rollout, bob, ann)  # so ann's console coordinates it
    page = bob.open(f"/deploys/{rollout}")
    fleet.wait_held("web2", "post-deploy", new)
    page.locator("#nodes").get_by_text("active", exact=True).wait_for()  # the canary
    world.one.member.kill()
    try:
        fleet.let_go()
        ended(page, "succeeded")
        assert world.live() == dict.fromkeys(NODES, new)
    finally:
        world.one.member.start()
    ended(ann.open(f"/deploys/{rollout}"), "succeeded")
    assert ann.problems == bob.problems == []


def test_access_is_granted_and_ended_on_a_real_nginx(world: World) -> None:
    server, page = world.server, world.ann.open("/access")
    assert server.status("carol", "x") == 401
    page.get_by_label("Site").select_option("docs")
    page.get_by_label("User").fill("carol")
    page.get_by_label("For", exact=True).select_option("7d")
    page.get_by_role("button", name="Make a password").click()
    password = page.locator("#password").inner_text()
    page.locator("#access").get_by_text("granted", exact=True).wait_for()
    assert server.status("carol", password) == 200
    page = world.bob.open("/access")  # at the other console
    page.get_by_role("link", name="End the access of carol to docs").click()
    page.get_by_role("button", name="Keep carol out").click()
    wait_until(lambda: server.answers("carol", password, 401), "carol is kept out", 30)
    page.get_by_text("Nobody was given access").wait_for()
    asked = ["access.grant", "access.result", "access.revoke", "access.result"]
    assert [one for one, _, _ in world.decided("web1") if one.startswith("access.")] == asked
    assert world.ann.problems == world.bob.problems == []
