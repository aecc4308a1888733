"""Pages on which something is done, in Debian's Chromium: by mouse, by keyboard alone, and with script switched off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs
import pytest

from deploykit.web.actions.shown import PersonPresent
from deploykit.web.pages import acting
from deploykit.web.viewer import EVERYBODY
from tests.support.actingworld import PAUSED, WAITING, busy_actions, busy_world
from tests.support.browser import Scheme, Tab, chromium, serious_findings, tab
from tests.support.consoleworld import NOW
from tests.support.fixedaccess import PASSWORD
from tests.support.fixedactions import FixedActions
from tests.support.fixedqueries import FixedQueries
from tests.support.served import Served, console_of
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PLAN = "/sites/shop/deploy?ref=v2.4.1&who=all"
PAGES = (
    "/sites/shop/deploy", PLAN, "/sites/shop/deploy?typed=v9&who=list&first=x&nodes=web-1", "/sites/billing/lock",
    "/sites/shop/rollback?who=all", "/deploys/r-7f31/retry", f"/deploys/{PAUSED}", "/approvals",
    f"/deploys/{PAUSED}/control?kind=abort&rollback=1",
    f"/deploys/{WAITING}/approve", "/access", "/sites/docs", "/refs/shop%2Ffrontend",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@attrs.frozen(kw_only=True)
class Desk:
    """A console with its fixed actions, and a browser's tab."""

    served: Served
    acts: FixedActions
    one: Tab

    @property
    def page(self) -> Page:
        return self.one.page

    def open(self, path: str) -> Page:
        """Open a page."""
        self.page.goto(self.served.url + path)
        return self.page

    def asked(self, what: str) -> int:
        return len(self.acts.calls(what))


@pytest.fixture(scope="module")
def console(browser: Browser) -> Iterator[Console]:
    acts, world = busy_actions(), busy_world()
    with console_of(world, viewer=EVERYBODY, actions=acts.console) as served:
        yield Console(browser=browser, served=served, acts=acts, world=world)


@attrs.frozen(kw_only=True)
class Console:
    """One console for all tests; each begins with the same night."""

    browser: Browser
    served: Served
    acts: FixedActions
    world: FixedQueries

    def begin_anew(self) -> None:
        """Put everything back to how the night began."""
        fresh = busy_actions()
        for part, other in ((self.acts, fresh), (self.acts.access, fresh.access)):
            for field in attrs.fields(type(part)):
                if field.name != "access":
                    setattr(part, field.name, getattr(other, field.name))
        self.world.rollout_list = busy_world().rollout_list

    @contextmanager
    def desk(self, *, script: bool = True, width: int = 1280, scheme: Scheme = "light") -> Iterator[Desk]:
        """Open a tab at the beginning of the night."""
        self.begin_anew()
        with tab(self.browser, width=width, scheme=scheme, script=script) as one:
            yield Desk(served=self.served, acts=self.acts, one=one)


@pytest.fixture(autouse=True)
def _nothing_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done here is told on no bus: no page waits for that."""
    monkeypatch.setattr(acting, "HEARD_WITHIN", 0.0)


# What fits does not depend on colours, and contrast not on the width.
@pytest.mark.parametrize(("width", "scheme"), [(320, "dark"), (768, "light"), (1280, "dark")])
def test_every_page_fits_and_can_be_used_by_everybody(console: Console, width: int, scheme: Scheme) -> None:
    with console.desk(width=width, scheme=scheme) as at:
        for path in PAGES:
            page = at.open(path)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
            assert serious_findings(page) == [], path
        assert [text for text in at.one.problems if "422" not in text] == []
        assert {url.removeprefix(at.served.url)[:1] for url in at.one.requests} == {"/"}


def deploys(at: Desk) -> None:
    page = at.open("/sites/shop")
    page.get_by_role("link", name="Deploy", exact=True).click()
    page.get_by_role("radio", name="v2.4.1").check()
    page.get_by_label("Some of them").check()
    page.get_by_label("web-1", exact=True).check()
    page.get_by_label("Names or patterns").fill("web-2")
    page.get_by_role("button", name="Show what would happen").click()
    page.get_by_role("button", name="Put v2.4.1 live on web-1, then 1 other").click()
    page.get_by_text("It has begun").wait_for()


def goes_back(at: Desk) -> None:
    page = at.open("/sites/shop")
    page.get_by_role("link", name="Go back").click()
    page.get_by_role("button", name="Show what would happen").click()
    wait_until(lambda: page.get_by_text("its previous release, live until").count() == 3, "the plan of three nodes")
    page.get_by_role("button", name="Take web-1 back, then 2 others").click()
    page.get_by_text("It has begun").wait_for()


def tries_again(at: Desk) -> None:
    page = at.open("/deploys/r-7f31")
    page.get_by_role("link", name="Try again where it failed").click()
    page.get_by_role("button", name="Try v2.4.1 again on web-1").click()
    page.get_by_text("It has begun").wait_for()


def goes_on(at: Desk) -> None:
    page = at.open(f"/deploys/{PAUSED}")
    page.get_by_role("button", name="Go on").click()
    page.get_by_text("It was asked to resume").wait_for()


def aborts_and_goes_back(at: Desk) -> None:
    page = at.open(f"/deploys/{PAUSED}")
    page.get_by_role("link", name="Abort and go back").click()
    page.get_by_role("button", name="Stop, and take 1 node back").click()
    page.get_by_text("It was asked to abort and go back").wait_for()


def signs(at: Desk) -> None:
    page = at.open("/")
    page.get_by_role("link", name="Look at it").click()
    page.locator("#approvals a").first.click()
    page.get_by_text("Paste a signature").click()
    page.get_by_label("Signature, in one line").fill("c2lnbmF0dXJlIG9mIGJvYg==")
    page.get_by_role("button", name="Add the signature").click()
    page.get_by_text("All have signed").wait_for()


def withdraws(at: Desk) -> None:
    page = at.open(f"/deploys/{WAITING}/approve")
    page.get_by_role("link", name="Withdraw it").click()
    page.get_by_role("button", name="Withdraw it").click()
    page.get_by_text("Nothing waits").wait_for()


def locks(at: Desk) -> None:
    page = at.open("/sites/shop")
    page.get_by_role("link", name="Lock", exact=True).click()
    page.get_by_label("Why").fill("stocktaking")
    page.get_by_label("For", exact=True).select_option("4h")
    page.get_by_role("button", name="Lock shop").click()
    page.get_by_text("web-4 has not answered").wait_for()


def unlocks(at: Desk) -> None:
    page = at.open("/sites/billing/lock")
    page.get_by_role("button", name="Unlock billing").click()
    page.get_by_text("The lock is lifted").wait_for()


def grants(at: Desk) -> None:
    page = at.open("/access")
    page.get_by_label("Site").select_option("docs")
    page.get_by_label("User").fill("dan")
    page.get_by_role("button", name="Make a password").click()
    assert page.locator("#password").inner_text() == PASSWORD


def extends(at: Desk) -> None:
    page = at.open("/access")
    page.get_by_role("button", name="A week more for carol on billing").click()
    page.get_by_text("carol may stay longer").wait_for()


def revokes(at: Desk) -> None:
    page = at.open("/access")
    page.get_by_role("link", name="End the access of carol to billing").click()
    page.get_by_role("button", name="Keep carol out").click()
    page.get_by_text("Nobody was given access").wait_for()


ACTIONS: tuple[tuple[Callable[[Desk], None], str], ...] = (
    (deploys, "begin"), (goes_back, "begin"), (tries_again, "retry"), (goes_on, "control"),
    (aborts_and_goes_back, "control"), (signs, "sign"), (withdraws, "withdraw"), (locks, "lock"), (unlocks, "unlock"),
    (grants, "grant"), (extends, "extend"), (revokes, "revoke"),
)  # fmt: skip


@pytest.mark.parametrize("script", [False, True], ids=["plain", "script"])
def test_everything_is_done_with_and_without_script(console: Console, script: bool) -> None:
    with console.desk(script=script, width=768) as at:
        for action, method in ACTIONS:
            console.begin_anew()
            action(at)
            assert at.asked(method) == 1, action.__name__
        assert at.one.problems == []


def reach(page: Page, selector: str) -> None:
    """Move the focus by Tab until it is on an element."""
    for _ in range(90):
        if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not lead to {selector}")


@pytest.mark.parametrize(
    ("path", "steps", "method"),
    [
        ("/sites/shop/deploy", [("[name=ref]", " "), (".after button", "Enter"), ("#press button", "Enter")], "begin"),
        ("/sites/shop/rollback", [(".after button", "Enter"), ("#press button", " ")], "begin"),
        ("/deploys/r-7f31", [("#do-retry", "Enter"), ("#press button", "Enter")], "retry"),
        (f"/deploys/{PAUSED}", [("#do-resume", " ")], "control"),
        (f"/deploys/{PAUSED}", [("#do-abort-back", "Enter"), ("#do-it", "Enter")], "control"),
        (f"/deploys/{WAITING}/approve", [("details:has(textarea) summary", " "), ("textarea", "c2lnbmF0dXJl"),
                                         ("form button", "Enter")], "sign"),
        (f"/deploys/{WAITING}/approve", [("a[href$=withdraw]", "Enter"), ("#do-it", "Enter")], "withdraw"),
        ("/sites/shop/lock", [("#f-reason", "stocktaking"), ("main .primary", "Enter")], "lock"),
        ("/sites/billing/lock", [("main .danger", "Enter")], "unlock"),
        ("/access", [("#f-user", "dan"), ("main .primary", "Enter")], "grant"),
        ("/access", [("#access form button", " ")], "extend"),
        ("/access", [("#access a.go", "Enter"), ("#do-it", "Enter")], "revoke"),
    ],
)  # fmt: skip
def test_the_keyboard_alone_is_enough_for_every_action(
    console: Console, path: str, steps: list[tuple[str, str]], method: str
) -> None:
    with console.desk() as at:
        page = at.open(path)
        for selector, key in steps:
            page.wait_for_selector(selector, state="attached")
            page.wait_for_load_state()  # its script moves the focus first
            reach(page, selector)
            if len(key) > 1 and key != "Enter":
                page.keyboard.type(key)
            else:
                page.keyboard.press(key)
        wait_until(lambda: at.asked(method) == 1, f"{method} was asked")
        page.locator("#done, #once").first.wait_for()
        page.wait_for_load_state()  # its script has run
        assert page.evaluate("document.activeElement.matches('[data-focus]')")  # a screen reader begins there


def test_no_key_deploys_or_aborts(console: Console) -> None:
    with console.desk() as at:
        for path in (PLAN, f"/deploys/{PAUSED}", f"/deploys/{PAUSED}/control?kind=abort"):
            page = at.open(path)
            page.locator("#stream-words", has_text="live").wait_for()
            for key in "abcefghijkmopqrstuvwxyzABDPRU0123456789":
                page.keyboard.press(key)
        assert {one.what for one in at.acts.asked} <= {"here", "plan"}


def test_a_button_that_is_pressed_twice_does_it_once(console: Console) -> None:
    with console.desk() as at:
        page = at.open(PLAN)
        stopped = page.evaluate(
            "[1, 2].map(() => !document.querySelector('#press form')"
            ".dispatchEvent(new SubmitEvent('submit', {bubbles: true, cancelable: true})))"
        )
        assert stopped == [False, True]
        page.reload()
        page.locator("#press button").dblclick()
        page.get_by_text("It has begun").wait_for()
        assert at.asked("begin") == 1


def test_the_focus_goes_to_the_field_that_is_wrong(console: Console) -> None:
    with console.desk() as at:
        page = at.open("/sites/shop/deploy?typed=v9&who=all")
        wait_until(lambda: page.evaluate("document.activeElement.name") == "typed", "the focus is in the field")
        assert page.locator("#f-typed").get_attribute("aria-describedby")


def test_people_see_each_other_and_no_plan_is_made_for_that(console: Console) -> None:
    with console.desk() as at:
        page = at.open(PLAN)
        page.locator("#stream-words", has_text="live").wait_for()
        planned = at.asked("plan")
        at.acts.present = (PersonPresent(name="mallory", what="prepares a way back", since=NOW),)
        at.served.feed.send("presence", site="shop")
        page.locator("#here", has_text="mallory prepares a way back").wait_for()
        assert at.asked("plan") == planned == 1
        assert page.locator("#here").get_attribute("aria-live") == "polite"
        assert page.locator("#press button").is_visible()


def test_a_page_that_stays_open_says_so_to_the_others(console: Console) -> None:
    with console.desk() as at:
        at.page.clock.install()
        at.open("/sites/shop/deploy")
        at.page.locator("#stream-words", has_text="live").wait_for()
        seen = at.asked("here")
        at.page.clock.fast_forward(45_000)
        wait_until(lambda: at.page.evaluate("1") and at.asked("here") > seen, "the page was seen again")


def test_buttons_follow_the_rollout_and_keep_the_focus(console: Console) -> None:
    with console.desk() as at:
        page = at.open(f"/deploys/{PAUSED}")
        page.locator("#stream-words", has_text="live").wait_for()
        first, *rest = console.world.rollout_list
        for state, focus in (("rolling", "do-abort"), ("canary", "do-pause")):
            page.locator(f"#{focus}").focus()
            console.world.rollout_list = (attrs.evolve(first, state=state), *rest)
            at.served.feed.send("deploy", site="search")
            page.locator("#deploy-state h2", has_text=state).wait_for()
            assert page.evaluate("document.activeElement.id") == focus
        assert page.locator("#do-resume").count() == 0
        assert page.locator("#do-promote").count() == 1


def test_a_password_can_be_copied_and_is_gone_with_the_next_page(console: Console) -> None:
    with console.desk() as at:
        at.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        grants(at)
        at.page.get_by_role("button", name="Copy").click()
        at.page.get_by_role("button", name="Copied").wait_for()
        assert at.page.evaluate("navigator.clipboard.readText()") == PASSWORD
        at.page.get_by_role("link", name="Handed on").click()
        at.page.wait_for_url("**/access")
        assert PASSWORD not in at.page.content()
