"""People enrol a signing key and sign in a real browser: on the console's own page, and on that of another origin."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from deploykit.errors import SignatureError
from deploykit.trust.signature import HEADER, verify
from deploykit.wire import CONTENT_TYPE, Frame
from tests.support.browser import Tab, chromium, serious_findings, tab
from tests.support.fixedactions import FixedActions
from tests.support.loginworld import PASSWORDS, access, write_passwords
from tests.support.passkeys import COMMIT, VirtualAuthenticator, mandate_body
from tests.support.signworld import SignWorld, sign_world

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def own(tmp_path: Path) -> Iterator[SignWorld]:
    """A console that signs on its own pages."""
    with sign_world(tmp_path) as world:
        yield world


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[SignWorld]:
    """A console that leads to another origin for signing."""
    with sign_world(tmp_path, elsewhere=True, host="deploy.localhost") as world:
        yield world


def complaints(opened: Tab) -> list[str]:
    """What the browser complained about, but that a key may only be ES256: it is to."""
    return [problem for problem in opened.problems if "pubKeyCredParams" not in problem]


def begin_enrolling(page: Page, world: SignWorld) -> None:
    page.goto(f"{world.url}/account/signing")
    page.fill("#sites", "shop")
    page.fill("#principal", "ann@example.com")
    page.click("text=Go on")


def enrolled(page: Page, world: SignWorld) -> str:
    """Enrol a key; its line is distributed and returned."""
    begin_enrolling(page, world)
    if world.sign:
        page.click("[data-part=link]")
        page.wait_for_url(f"{world.sign}/**")
        page.click("[data-part=press]")
        page.click("[data-part=back]")
    else:
        page.click("[data-part=press]")
    page.wait_for_selector("#line")
    line = page.input_value("#line")
    world.lines.append(line)
    return line


def accepted(world: SignWorld, body: bytes, header: str) -> bool:
    """Whether a node takes a signature, one that lists only the origin where people sign."""
    frame = Frame({"content-type": CONTENT_TYPE, HEADER: header}, body)
    try:
        return verify(frame, world.allowed, datetime.now(UTC)).is_principal("ann@example.com")
    except SignatureError:
        return False


def test_a_key_is_enrolled_and_signs_on_the_consoles_own_page(browser: Browser, own: SignWorld) -> None:
    own.bodies["shop-1"] = mandate_body()
    with tab(browser) as opened:
        page = opened.page
        device = VirtualAuthenticator(page)
        line = enrolled(page, own)
        assert [key["userName"] for key in device.credentials] == ["SIGN shop releases (local)"]
        assert line.endswith(" SIGN shop releases (local)")
        assert f'rp_ids = ["{device.credentials[0]["rpId"]}"]' in page.input_value("#settings")
        assert serious_findings(page) == []
        page.goto(f"{own.url}/account/signing")
        assert "it may sign" in page.inner_text("main")
        page.goto(f"{own.url}/deploys/shop-1/approve")
        page.wait_for_selector(".mandate")
        assert page.inner_text("[data-part=press]") == "Sign: v1.4 on 5 nodes of shop"
        assert serious_findings(page) == []
        page.focus("[data-part=press]")
        page.keyboard.press("Enter")
        page.wait_for_selector("#taken")
        assert complaints(opened) == []
    ((rollout, header),) = own.posted
    assert rollout == "shop-1"
    assert accepted(own, own.bodies["shop-1"], header)
    assert [(note.action, note.decision) for note in own.notes] == [("signing key", "done")]


def test_the_page_of_another_origin_signs_and_comes_back(browser: Browser, apart: SignWorld) -> None:
    apart.bodies["shop-1"] = mandate_body()
    with tab(browser) as opened:
        page = opened.page
        device = VirtualAuthenticator(page)
        enrolled(page, apart)
        assert [key["rpId"] for key in device.credentials] == ["sign.localhost"]
        page.goto(f"{apart.url}/deploys/shop-1/approve")
        page.click("[data-part=link]")
        page.wait_for_selector(".mandate")
        assert page.url.startswith(f"{apart.sign}/#")
        assert COMMIT in page.inner_text(".mandate")
        assert serious_findings(page) == []
        asked = len(opened.requests)
        page.click("[data-part=press]")
        page.wait_for_selector("#taken")
        # Between the press and the console nothing was asked for, of anybody.
        assert [url for url in opened.requests[asked:] if "sign.localhost" in url] == []
        assert complaints(opened) == []
    ((rollout, header),) = apart.posted
    assert rollout == "shop-1"
    assert accepted(apart, apart.bodies["shop-1"], header)
    assert {name.partition(".")[0] for name in apart.asked} == {"index", "sign", "signpage"}


def test_a_login_by_cookie_outlasts_the_way_to_the_other_origin(browser: Browser, tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    write_passwords(passwords, **PASSWORDS)
    more: dict[str, Any] = {"login": "password", "password_file": passwords, "access": (access("ann", role="stage"),)}
    with sign_world(tmp_path, elsewhere=True, host="deploy.localhost", **more) as world, tab(browser) as opened:
        world.bodies["shop-1"] = mandate_body()
        page = opened.page
        VirtualAuthenticator(page)
        page.goto(f"{world.url}/account/signing")
        page.fill("#name", "ann")
        page.fill("#password", PASSWORDS["ann"])
        page.keyboard.press("Enter")
        page.wait_for_selector("#sites")
        enrolled(page, world)
        page.goto(f"{world.url}/deploys/shop-1/approve")
        page.click("[data-part=link]")
        page.click("[data-part=press]")
        page.wait_for_selector("#taken")
        assert accepted(world, world.bodies["shop-1"], world.posted[0][1])


def test_the_commit_behind_the_text_is_the_one_that_is_shown(browser: Browser, own: SignWorld) -> None:
    """A console that was taken over says one thing, and has the bytes of another signed."""
    own.bodies["shop-1"] = mandate_body(commit="0" * 39 + "1", ref="refs/heads/evil", rollout="other-9", site="bank")
    own.text = f"Sign v1.4, {COMMIT}, for shop"
    with tab(browser) as opened:
        page = opened.page
        VirtualAuthenticator(page)
        enrolled(page, own)
        page.goto(f"{own.url}/deploys/shop-1/approve")
        page.wait_for_selector(".mandate")
        shown = page.inner_text(".mandate")
        assert "0" * 39 + "1" in shown
        assert "refs/heads/evil" in shown
        assert COMMIT not in shown
        assert page.inner_text("[data-part=press]") == "Sign: evil on 5 nodes of bank"


def test_what_cannot_be_read_has_no_button(browser: Browser, own: SignWorld, apart: SignWorld) -> None:
    for world in (own, apart):
        world.bodies["shop-1"] = mandate_body()[:-2] + b',"also":1}}'
        with tab(browser) as opened:
            page = opened.page
            VirtualAuthenticator(page)
            enrolled(page, world)
            page.goto(f"{world.url}/deploys/shop-1/approve")
            if world.sign:
                page.click("[data-part=link]")
            page.wait_for_selector("[data-part=status].bad")
            assert "it has fields that this page does not know: also" in page.inner_text("[data-part=status]")
            assert page.is_hidden("[data-part=press]")
            assert page.query_selector(".mandate") is None


def test_a_mandate_that_is_over_has_no_button(browser: Browser, own: SignWorld) -> None:
    long_ago = datetime(2026, 1, 1, tzinfo=UTC)
    own.bodies["shop-1"] = mandate_body(not_before=long_ago, not_after=long_ago)
    with tab(browser) as opened:
        VirtualAuthenticator(opened.page)
        enrolled(opened.page, own)
        opened.page.goto(f"{own.url}/deploys/shop-1/approve")
        opened.page.wait_for_selector("[data-part=status].bad")
        assert "Its time is over" in opened.page.inner_text("[data-part=status]")
        assert opened.page.is_hidden("[data-part=press]")


def test_ten_thousand_nodes_go_by_a_link(browser: Browser, apart: SignWorld) -> None:
    nodes = tuple(f"web{number:05}.production.example.org" for number in range(10_000))
    apart.bodies["shop-1"] = mandate_body(nodes=nodes)
    with tab(browser, width=320) as opened:
        page = opened.page
        VirtualAuthenticator(page)
        enrolled(page, apart)
        page.goto(f"{apart.url}/deploys/shop-1/approve")
        page.click("[data-part=link]")
        page.wait_for_selector(".mandate")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.inner_text("[data-part=press]") == "Sign: v1.4 on 10000 nodes of shop"
        assert nodes[-1] in page.inner_text(".mandate .long")
        page.click("[data-part=press]")
        page.wait_for_selector("#taken")
    assert accepted(apart, apart.bodies["shop-1"], apart.posted[0][1])


def test_a_signature_in_a_foreign_link_is_not_posted_by_itself(browser: Browser, apart: SignWorld) -> None:
    """A link from elsewhere must not make somebody who only reads start a rollout."""
    apart.bodies["shop-1"] = mandate_body()
    with tab(browser) as opened:
        page = opened.page
        VirtualAuthenticator(page)
        enrolled(page, apart)
        page.goto(f"{apart.url}/deploys/shop-1/approve#signature=U1NIU0lH")
        page.wait_for_selector("text=A signature came with this address.")
        assert page.url == f"{apart.url}/deploys/shop-1/approve"
        assert apart.posted == []
        page.click("text=Take it over")
        page.wait_for_selector("#taken")
        assert apart.posted == [("shop-1", "U1NIU0lH")]


def test_the_page_of_the_other_origin_is_in_no_frame(browser: Browser, apart: SignWorld) -> None:
    with tab(browser) as opened:
        page = opened.page
        page.goto(f"{apart.sign}/")
        page.wait_for_selector("text=There is nothing to sign.")
        assert page.is_hidden("[data-part=press]")
        framing = "<iframe srcdoc='' hidden></iframe>"
        page.set_content(framing)
        page.evaluate(
            "u => new Promise((done) => { const f = document.createElement('iframe'); f.onload = done; f.src = u;"
            " document.body.append(f); })",
            apart.sign,
        )
        assert all("There is nothing to sign" not in (frame.text_content("body") or "") for frame in page.frames[1:])


def test_what_comes_in_the_fragment_is_not_believed(browser: Browser, apart: SignWorld) -> None:
    hostile = [
        "mandate=%FF",
        "mandate=<script>alert(1)</script>",
        "mandate=eyJhIjoxfQ&keys=..,,.",
        "enrol=x&sites=shop&who=a&principal=a%20cert-authority",
        'enrol=x&sites=shop";x&who=a&principal=a',
        "enrol=x",
    ]
    with tab(browser) as opened:
        page = opened.page
        VirtualAuthenticator(page)
        page.goto(f"{apart.sign}/")
        for fragment in hostile:
            page.goto("about:blank")
            page.goto(f"{apart.sign}/#{fragment}")
            page.wait_for_selector("[data-part=status].bad")
            assert page.is_hidden("[data-part=press]")
        assert complaints(opened) == []


def test_a_registration_counts_once_and_for_whom_it_was_asked(browser: Browser, own: SignWorld) -> None:
    with tab(browser) as opened:
        page = opened.page
        VirtualAuthenticator(page)
        posted: list[str] = []
        page.on("request", lambda request: posted.append(request.post_data or "") if request.method == "POST" else None)
        enrolled(page, own)
        (body,) = posted
        again = page.evaluate(
            "async (body) => (await fetch('/account/signing/new', { method: 'POST', body,"
            " headers: { 'content-type': 'application/x-www-form-urlencoded' } })).status",
            body,
        )
        assert again == 409
    assert [note.decision for note in own.notes] == ["done", "refused"]
    assert len(own.ledger.passkeys.list(purpose="signing")) == 1


def test_without_script_the_way_by_the_command_line_is_named(browser: Browser, own: SignWorld) -> None:
    own.bodies["shop-1"] = mandate_body()
    with tab(browser) as opened:
        VirtualAuthenticator(opened.page)
        enrolled(opened.page, own)
    with tab(browser, script=False) as opened:
        opened.page.goto(f"{own.url}/deploys/shop-1/approve")
        assert "The command line does the same." in opened.page.inner_text("main")
        begin_enrolling(opened.page, own)
        opened.page.wait_for_url("**/account/signing/new**")
        assert "deploykit approve" in opened.page.inner_text("main")


def test_a_wrong_purpose_is_shown_again_with_its_field(browser: Browser, own: SignWorld) -> None:
    with tab(browser) as opened:
        page = opened.page
        page.goto(f"{own.url}/account/signing/new?sites=a%2Fb&principal=ann")
        assert "expected sites or patterns" in page.inner_text("#sites-problem")
        assert page.input_value("#sites") == "a/b"
        assert serious_findings(page) == []


def test_a_removed_key_is_offered_no_more(browser: Browser, own: SignWorld) -> None:
    own.bodies["shop-1"] = mandate_body()
    with tab(browser) as opened:
        page = opened.page
        VirtualAuthenticator(page)
        enrolled(page, own)
        page.click("text=Remove it from this list")
        page.wait_for_url(f"{own.url}/account/signing")
        page.goto(f"{own.url}/deploys/shop-1/approve")
        assert "You have no passkey for signing yet." in page.inner_text("main")
    assert [note.detail.partition(" ")[0] for note in own.notes] == ["enrolled", "removed"]


@pytest.mark.parametrize(("elsewhere", "width", "scheme"), [(False, 320, "dark"), (True, 1280, "light")])
def test_the_consoles_page_of_a_proposal_takes_the_signature(
    browser: Browser, tmp_path: Path, elsewhere: bool, width: int, scheme: Literal["light", "dark"]
) -> None:
    actions = FixedActions(needs={"shop": 2})
    host = "deploy.localhost" if elsewhere else "localhost"
    with (
        sign_world(tmp_path, elsewhere=elsewhere, host=host, actions=actions) as world,
        tab(browser, width=width, scheme=scheme) as opened,
    ):
        body = mandate_body()
        world.bodies["shop-1"] = body
        actions.waiting["shop-1"] = world.proposal("shop-1")
        page = opened.page
        VirtualAuthenticator(page)
        enrolled(page, world)
        key = world.ledger.passkeys.list()[0].credential
        for path in ("", "/new?sites=shop", f"/{key}"):
            page.goto(f"{world.url}/account/signing{path}")
            assert serious_findings(page) == []
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.goto(f"{world.url}/deploys/shop-1/approve")
        if not elsewhere:
            page.wait_for_selector(".mandate")
        assert serious_findings(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        if elsewhere:
            page.click("[data-part=link]")
            page.wait_for_selector(".mandate")
            assert serious_findings(page) == []
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.click("[data-part=press]")
        page.wait_for_selector("text=1 more person must sign")  # a tab that is closed on its way somewhere may hang
        ((rollout, header),) = actions.calls("sign")
        assert rollout == "shop-1"
        assert accepted(world, body, str(header))
