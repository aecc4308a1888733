"""Logging in by passkeys and by a provider in a real browser: Chromium with a virtual authenticator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from deploykit.settings.oidc import OidcSettings
from deploykit.settings.service import parse_listen_address
from deploykit.web.listener import SharedListener
from deploykit.web.login.passkeys import INVITATION
from deploykit.web.server import WebServer
from tests.support.browser import Tab, chromium, serious_findings, tab
from tests.support.loginworld import PASSWORDS, LoginWorld, login_world
from tests.support.oidcprovider import CLIENT, SECRET, oidc_provider

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@attrs.frozen(kw_only=True)
class Served:
    """A console with its address at `localhost`, without a slash at its end."""

    world: LoginWorld
    url: str


@contextmanager
def served(tmp_path: Path, **values: Any) -> Iterator[Served]:
    """Serve a console whose `[web] url` is where it serves."""
    listener = SharedListener(parse_listen_address("127.0.0.1:0"), setting="[web] listen")
    world = login_world(tmp_path, **values)
    with WebServer(world.asker.app, listener) as server:
        url = server.url.replace("127.0.0.1", "localhost").rstrip("/")
        world.login.reload(attrs.evolve(world.login.settings, url=url))
        try:
            yield Served(world=world, url=url)
        finally:
            world.login.close()
            world.ledger.close()


@contextmanager
def device(page: Page, *, verified: bool = True) -> Iterator[str]:
    """Give the browser an authenticator; `verified`: it knows the person."""
    session = page.context.new_cdp_session(page)
    session.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": verified,
        "automaticPresenceSimulation": True,
    }
    made = session.send("WebAuthn.addVirtualAuthenticator", {"options": options})
    try:
        yield str(made["authenticatorId"])
    finally:
        session.detach()


def invite(at: Served, name: str = "ann") -> str:
    code = at.world.ledger.once.put(INVITATION, name, 24 * 3600)
    return f"{at.url}/invite/{code}"


def accept(page: Page, address: str) -> None:
    page.goto(address)
    page.fill("#label", "laptop")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")


@pytest.mark.parametrize(("width", "scheme"), [(320, "dark"), (1280, "light")])
def test_a_person_is_invited_makes_a_passkey_and_logs_in_by_keys_alone(
    browser: Browser, tmp_path: Path, width: int, scheme: Any
) -> None:
    with served(tmp_path, mode="passkey") as at, tab(browser, width=width, scheme=scheme) as opened:
        page = opened.page
        with device(page):
            address = invite(at)
            page.goto(address)
            assert serious_findings(page) == []
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            accept(page, address)
            page.wait_for_url(f"{at.url}/")
            assert page.inner_text("body").startswith("ann *=look ")
            page.context.clear_cookies()
            page.goto(f"{at.url}/sites/shop?x=1")
            assert serious_findings(page) == []
            page.focus("#passkey")
            page.keyboard.press("Enter")
            page.wait_for_url(f"{at.url}/sites/shop?x=1")
            assert page.inner_text("body").startswith("ann *=look ")
        # The page behind the login is plain text here, for which a browser asks for /favicon.ico.
        assert [problem for problem in opened.problems if "404" not in problem] == []
        assert all(address.startswith(at.url) for address in opened.requests)


def test_a_device_that_has_not_verified_the_person_lets_nobody_in(browser: Browser, tmp_path: Path) -> None:
    with served(tmp_path, mode="passkey") as at, tab(browser) as opened:
        page = opened.page
        with device(page, verified=False):
            accept(page, invite(at))
            page.locator("#passkey-problem:visible").wait_for()
            assert "was cancelled" in page.inner_text("#passkey-problem")
            assert at.world.ledger.passkeys.list() == ()


def test_a_passkey_that_is_gone_is_refused_in_words(browser: Browser, tmp_path: Path) -> None:
    with served(tmp_path, mode="passkey") as at, tab(browser) as opened:
        page = opened.page
        with device(page):
            accept(page, invite(at))
            page.wait_for_url(f"{at.url}/")
            (passkey,) = at.world.ledger.passkeys.list("ann")
            at.world.ledger.passkeys.remove(passkey.credential, "ann")
            page.goto(f"{at.url}/login")
            page.click("#passkey")
            page.locator("#passkey-problem:visible").wait_for()
            assert "does not know this passkey" in page.inner_text("#passkey-problem")
            assert page.evaluate("document.activeElement.id") == "passkey"


def log_in(opened: Tab, at: Served) -> Page:
    page = opened.page
    page.goto(f"{at.url}/login?next=/account")
    page.fill("#name", "ann")
    page.fill("#password", PASSWORDS["ann"])
    page.keyboard.press("Enter")
    page.wait_for_url(f"{at.url}/account")
    return page


def test_a_passkey_beside_a_password_is_added_renamed_and_removed(browser: Browser, tmp_path: Path) -> None:
    with served(tmp_path, passkeys=True) as at, tab(browser) as opened:
        page = log_in(opened, at)
        with device(page):
            page.fill("#label", "phone")
            page.keyboard.press("Enter")
            page.locator("[aria-label='Name of the passkey phone']").wait_for()
            assert serious_findings(page) == []
            page.fill("[aria-label='Name of the passkey phone']", "tablet")
            page.keyboard.press("Enter")
            page.locator("[aria-label='Name of the passkey tablet']").wait_for()
            page.click("#add-passkey")
            page.locator("#passkey-problem:visible").wait_for()
            assert "has a passkey for this console already" in page.inner_text("#passkey-problem")
            page.click("[aria-label='Remove the passkey tablet']")
            page.get_by_text("None yet.").first.wait_for()
        assert [one for one in opened.problems if "CSP" in one or "Content Security" in one] == []


@pytest.mark.parametrize("width", [320, 1280])
def test_tokens_and_sessions_work_without_script(browser: Browser, tmp_path: Path, width: int) -> None:
    with served(tmp_path) as at, tab(browser, width=width, script=False) as opened:
        page = log_in(opened, at)
        page.fill("#token-label", "nightly")
        page.fill("#token-days", "0")
        page.press("#token-label", "Enter")
        page.locator("#problem-days").wait_for()
        assert page.input_value("#token-label") == "nightly"
        page.fill("#token-days", "30")
        page.press("#token-label", "Enter")
        page.locator("#secret").wait_for()
        assert page.inner_text("#secret").startswith("dk_")
        page.click("[aria-label='Revoke the token nightly']")
        page.wait_for_url(f"{at.url}/account#tokens")
        assert at.world.ledger.tokens.list() == ()


def test_the_account_page_is_fit_for_everybody(browser: Browser, tmp_path: Path) -> None:
    with served(tmp_path, passkeys=True) as at, tab(browser, width=320, scheme="dark") as opened:
        page = log_in(opened, at)
        page.fill("#token-label", "nightly")
        page.press("#token-label", "Enter")
        page.locator("#secret").wait_for()
        assert serious_findings(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("script", [True, False])
def test_a_person_logs_in_by_a_provider_and_out_again(browser: Browser, tmp_path: Path, script: bool) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    with oidc_provider() as provider, tab(browser, script=script) as opened:
        oidc = OidcSettings(issuer=provider.issuer, client_id=CLIENT, client_secret_file=secret)
        with served(tmp_path, mode="oidc", oidc=oidc) as at:
            page = opened.page
            page.goto(f"{at.url}/sites/shop?x=1")
            page.click("#provider")
            page.wait_for_url(f"{at.url}/sites/shop?x=1")
            assert page.inner_text("body").startswith("ann *=look ")
            page.goto(f"{at.url}/account")
            if script:
                assert serious_findings(page) == []
            page.get_by_role("button", name="Log out").click()
            page.wait_for_url(f"{at.url}/login?out=provider")
            page.click("#logged-out a")
            page.wait_for_url(lambda address: address.startswith(f"{provider.issuer}/logout"))
            page.goto(f"{at.url}/")
            assert page.url.startswith(f"{at.url}/login")
