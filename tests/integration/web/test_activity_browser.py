"""The pages of activity and the log in a real browser: widths, axe, hostile text, a log of any length, live."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import attrs
import pytest

from tests.support.activityworld import FAILED_NODE, ROLLOUT, LoggedQueries, activity_world, poisoned_world
from tests.support.browser import WIDTHS, chromium, serious_findings, tab
from tests.support.browsertrace import CATEGORIES, DRAG_LOG, main_thread_tasks
from tests.support.served import Served, console_of
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PAGES: Final = (
    "/deploys", f"/deploys/{ROLLOUT}", f"/deploys/{ROLLOUT}/nodes/{FAILED_NODE}/log", "/repositories",
    "/refs/shop%2Ffrontend", "/pushes", "/builds", "/notices", "/audit", "/history?site=shop",
    "/sites/shop/diff?to=v2.4.1", "/history/diff?site=shop&from=web-1:11&to=web-1:12",
)  # fmt: skip
LONG: Final = f"/deploys/{ROLLOUT}/nodes/web-2/log"
LINES: Final = 100_000
#: Every line that is loaded, and whether its number, and its place, are right.
CHECK: Final = """() => {
  let wanted = null, wrong = 0, lines = 0;
  for (const block of document.querySelectorAll(".block")) {
    const numbers = block.children[0].textContent.split("\\n").map(Number);
    const texts = block.children[1].textContent.split("\\n").slice(0, -1);
    wrong += numbers.length !== texts.length;
    numbers.forEach((number, at) => {
      wrong += (wanted !== null && number !== wanted) + !texts[at].startsWith(`${number}:`);
      wanted = number + 1;
      lines += 1;
    });
  }
  return [wrong, lines, document.querySelectorAll(".block").length, wanted - 1];
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def console() -> Iterator[Served]:
    with console_of(activity_world(log_lines=LINES)) as served:
        yield served


@pytest.mark.parametrize("path", PAGES)
def test_a_page_fits_and_can_be_used_by_everybody(browser: Browser, console: Served, path: str) -> None:
    with tab(browser) as one:
        one.page.goto(console.url + path)
        for width, scheme in ((1280, "light"), (768, "light"), (320, "dark")):
            one.page.set_viewport_size({"width": width, "height": WIDTHS[width]})
            one.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]  # one of its own two words
            assert one.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, width
        assert serious_findings(one.page) == []
        assert one.problems == []
        assert all(url.startswith(console.url) for url in one.requests)


def test_hostile_text_stays_text(browser: Browser) -> None:
    with console_of(poisoned_world()) as served, tab(browser) as one:
        one.page.add_init_script("window.canary = () => { window.hit = true }; window.alert = window.canary;")
        for path in PAGES:
            one.page.goto(served.url + path)
            assert one.page.evaluate("document.querySelectorAll('main img, main script').length") == 0, path
            assert one.page.evaluate("window.hit === undefined"), path
        assert [problem for problem in one.problems if "status of 404" not in problem] == []


def position(page: Page) -> str:
    return page.locator("#log-range").inner_text()


def test_a_log_of_100_000_lines_does_not_freeze_the_page(browser: Browser, console: Served) -> None:
    with tab(browser) as one:
        page = one.page
        browser.start_tracing(page=page, categories=[*CATEGORIES])
        page.goto(console.url + LONG)
        page.locator(".log.live").wait_for()
        assert "of 100,000; 99,001 to 100,000 are loaded" in position(page)
        page.evaluate(DRAG_LOG, [0, 72_000])
        blocks = page.locator(".block").count()
        page.evaluate(DRAG_LOG, [1, 99_900])
        page.locator("#log-find input").fill("needle99000;")
        page.keyboard.press("Enter")
        assert page.locator("#log-found").inner_text() == "line 99,000"
        trace = browser.stop_tracing()
        tasks = main_thread_tasks(trace)
        assert len(tasks) > 100  # it was measured
        # Each of some 20 fetches would be long if it laid out all lines. A busy machine can lengthen a single task.
        assert sorted(tasks)[-3] < 100
        assert blocks == 50
        wrong, lines, blocks, last = page.evaluate(CHECK)
        assert (wrong, blocks, last) == (0, 50, LINES)
        assert lines <= 25_000
        assert one.problems == []


def test_lines_are_found_one_after_the_other_whatever_their_case(browser: Browser, console: Served) -> None:
    with tab(browser) as one:
        page = one.page
        page.goto(console.url + LONG)
        page.locator(".log.live").wait_for()
        page.locator("#log-find input").fill("NEEDLE995")
        found = []
        for _ in range(3):
            page.get_by_role("button", name="Next").click()
            found.append(page.locator("#log-found").inner_text())
        assert found == ["line 99,500", "line 99,501", "line 99,502"]
        page.locator("#log-find input").fill("(.*)+$")
        page.get_by_role("button", name="Next").click()
        assert page.locator("#log-found").inner_text() == "not in lines 99,001 to 100,000"


def test_a_log_is_followed_while_the_node_works(browser: Browser) -> None:
    world = attrs.evolve(activity_world(log_lines=700), open_logs=True)
    assert isinstance(world, LoggedQueries)
    with console_of(world) as served, tab(browser) as one:
        page = one.page
        page.goto(served.url + LONG)
        page.locator("#stream-words", has_text="live").wait_for()
        assert page.locator("#log-follow input").is_checked()
        grown = (*world.logs[ROLLOUT, "web-2"], *(f"{n}: more" for n in range(701, 1301)))
        world.logs = {**world.logs, (ROLLOUT, "web-2"): grown}
        served.feed.send("log", site="shop")
        page.locator("#log-range", has_text="1 to 1,300 are loaded").wait_for()
        assert page.evaluate(CHECK) == [0, 1300, 4, 1300]
        assert page.evaluate("(({scrollHeight, scrollTop, clientHeight}) => scrollHeight - scrollTop - clientHeight)"
                             "(document.getElementById('log-lines'))") < 40  # fmt: skip
        page.locator("#log-lines").hover()
        page.mouse.wheel(0, -5000)
        wait_until(lambda: not page.locator("#log-follow input").is_checked(), "scrolling up stops following")
        world.logs = {**world.logs, (ROLLOUT, "web-2"): (*grown, "1301: last")}
        world.open_logs = False
        served.feed.send("deploy", site="shop")
        page.locator("#log-range", has_text="1 to 1,301 are loaded").wait_for()
        assert "still works" not in position(page)
        assert page.locator("#log-lines").evaluate("(box) => box.scrollHeight - box.scrollTop") > 5000


def test_a_log_that_begins_later_comes_by_itself(browser: Browser) -> None:
    world = attrs.evolve(activity_world(), open_logs=True, logs={(ROLLOUT, "web-2"): ()})
    assert isinstance(world, LoggedQueries)
    with console_of(world) as served, tab(browser) as one:
        one.page.goto(served.url + LONG)
        one.page.get_by_text("Nothing was printed").wait_for()
        one.page.locator("#stream-words", has_text="live").wait_for()
        world.logs = {(ROLLOUT, "web-2"): ("1: first",)}
        served.feed.send("log", site="shop")
        one.page.get_by_text("1: first").wait_for()


def test_the_page_of_a_deploy_follows_its_nodes(browser: Browser) -> None:
    world = activity_world()
    with console_of(world) as served, tab(browser) as one:
        page = one.page
        page.goto(f"{served.url}/deploys/{ROLLOUT}")
        page.locator("#stream-words", has_text="live").wait_for()
        world.rollout_list = tuple(
            attrs.evolve(one, state="rolling") if one.rollout == ROLLOUT else one for one in world.rollout_list
        )
        served.feed.send("deploy", site="shop")
        page.locator("#deploy-state", has_text="rolling").wait_for()


def test_without_script_a_log_is_read_page_by_page(browser: Browser, console: Served) -> None:
    with tab(browser, script=False) as one:
        page = one.page
        page.goto(console.url + LONG)
        page.get_by_role("link", name="First lines").click()
        page.get_by_role("link", name="Lines after").click()
        assert "1001: " in page.locator("#log-lines").inner_text()
        assert page.evaluate(CHECK)[:2] == [0, 1000]
        assert not page.locator("#log-find").is_visible()
