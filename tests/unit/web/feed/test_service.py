"""The console as a service: what it is made of, what a reload keeps, and what it frees."""

from __future__ import annotations

import gc
import socket
import weakref
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import bcrypt
import httpx
import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus
from deploykit.daemons.service.metrics import Metrics
from deploykit.daemons.service.registry import check_names, make_group
from deploykit.errors import SettingsError, UsageError
from deploykit.messages import Notice
from deploykit.names import NodeName
from deploykit.settings import BusSettings, OutboxSettings, Settings
from deploykit.settings.web import WebSettings
from deploykit.settings.webhook import WebhookSettings, WebhookSourceSettings
from deploykit.web.assembly import console_routes, hook_paths
from deploykit.web.counting import part_of
from deploykit.web.service import ConsoleService
from deploykit.wire import encode
from tests.support.forges import forged
from tests.support.wait import wait_until
from tests.support.webhooks import SECRETS, source_of


@pytest.fixture
def settings(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Settings:
    """A console on a free port, without keys."""
    return Settings(
        node=NodeName("desk"),
        state=tmp_path / "state",
        broker=BusSettings(address=deploykit_broker.address, backoff_max=0.2),
        outbox=OutboxSettings(path=tmp_path / "spool"),
        web=WebSettings(listen="127.0.0.1:0"),
    )


def with_web(settings: Settings, **changes: Any) -> Settings:
    return attrs.evolve(settings, web=attrs.evolve(settings.web, **changes))


def with_passwords(settings: Settings, file: Path) -> Settings:
    return with_web(settings, login="password", password_file=file)


@pytest.fixture
def passwords(tmp_path: Path) -> Path:
    file = tmp_path / "passwords"
    file.write_text("anna:" + bcrypt.hashpw(b"correct horse", bcrypt.gensalt(4)).decode() + "\n")
    file.chmod(0o600)
    return file


def test_what_comes_over_the_bus_is_on_the_pages_and_in_the_metrics(settings: Settings) -> None:
    metrics = Metrics()
    with ConsoleService(settings, metrics=metrics) as console, Bus(settings.broker) as bus:
        assert console.wait_connected(60)
        assert console.working
        assert console.name == f"console at {console.url}"
        assert bus.wait_connected(60)
        bus.publish(settings.topics.notice, encode(Notice(text="tea is ready")), timeout=30)
        wait_until(lambda: "tea is ready" in httpx.get(f"{console.url}notices", timeout=60).text, "the notice is shown")
        health = httpx.get(f"{console.url}api/v1/health", timeout=60).json()
        assert (health["connected"], health["unverified"]) == (True, True)
    assert metrics.series("web_messages_total")["kept",] == 1
    assert metrics.series("web_events_total")[()] != 0
    answers = metrics.series("web_requests_total")
    assert answers["page", "2xx"] != 0
    assert answers["api", "2xx"] == 1


def test_the_gauge_of_readers_falls_when_they_leave(settings: Settings) -> None:
    metrics = Metrics()
    with ConsoleService(settings, metrics=metrics) as console:
        with httpx.stream("GET", f"{console.url}api/v1/events", timeout=60) as stream:
            assert stream.status_code == 200
            assert metrics.series("web_readers")[()] == 1
        wait_until(lambda: metrics.series("web_readers")[()] == 0, "the reader has left")
    assert metrics.series("web_requests_total")["events", "2xx"] == 1


def test_without_keys_it_serves_and_says_that_it_cannot_ask(settings: Settings) -> None:
    with ConsoleService(settings) as console:
        wait_until(lambda: "cannot ask the nodes" in " ".join(console.problems), "the question failed")
        assert console.blocking == ()
        assert not httpx.get(f"{console.url}api/v1/health", timeout=60).json()["rebuilding"]


def test_a_webhook_is_taken_at_its_path_and_ends_on_the_pages(settings: Settings, tmp_path: Path) -> None:
    sources = {"forge": source_of("github", tmp_path)}
    taking = attrs.evolve(settings, webhook=WebhookSettings(sources=sources))
    request = forged("github", secret=SECRETS["github"])
    metrics = Metrics()
    with ConsoleService(taking, metrics=metrics) as console:
        answer = httpx.post(f"{console.url}hook/forge", headers=request.headers, content=request.body, timeout=60)
        assert answer.status_code == 202, answer.text
        wait_until(lambda: "widget" in httpx.get(f"{console.url}pushes", timeout=60).text, "the push came over the bus")
        unsigned = forged("github")
        refused = httpx.post(f"{console.url}hook/forge", headers=unsigned.headers, content=unsigned.body, timeout=60)
        assert refused.status_code == 401
    assert metrics.series("web_requests_total")["hook", "2xx"] == 1
    assert metrics.series("webhook_requests_total")["forge", "queued"] == 1


def test_a_webhook_at_the_path_of_a_page_is_refused() -> None:
    source = WebhookSourceSettings(forge="github", secret_files=(Path("/x"),), path="/sites/forge")
    api = attrs.evolve(source, path="/api/hook")
    with pytest.raises(SettingsError) as refused:
        hook_paths(WebhookSettings(sources={"one": source, "two": api}), console_routes())
    assert [line.partition(": ")[0] for line in refused.value.problems] == [
        "webhook.sources.one.path",
        "webhook.sources.two.path",
    ]
    usual = attrs.evolve(source, path="")
    assert hook_paths(WebhookSettings(sources={"forge": usual}), console_routes()) == ("/hook/forge",)


def test_who_is_logged_in_stays_so_over_a_reload_and_a_restart(settings: Settings, passwords: Path) -> None:
    metrics = Metrics()
    loaded = with_passwords(settings, passwords)
    with httpx.Client(follow_redirects=False, timeout=60) as browser:
        first = ConsoleService(loaded, metrics=metrics)
        with first:
            assert browser.get(first.url).status_code in (303, 401)
            entered = browser.post(
                f"{first.url}login",
                data={"name": "anna", "password": "correct horse"},
                headers={"Origin": first.url.rstrip("/")},
            )
            assert entered.status_code == 303, entered.text
            assert browser.get(first.url).status_code == 200
            second = ConsoleService(loaded, metrics=metrics)  # as HUP makes it: before the first one ends
            assert second.url == first.url
        with second:
            assert browser.get(second.url).status_code == 200
    with ConsoleService(loaded, metrics=Metrics()) as third:  # another process: nobody held the memory in between
        assert browser.cookies
        assert httpx.get(third.url, cookies=browser.cookies, timeout=60).status_code == 200


def test_a_password_file_that_cannot_be_used_refuses_the_reload_alone(settings: Settings, passwords: Path) -> None:
    metrics = Metrics()
    loaded = with_passwords(settings, passwords)
    with ConsoleService(loaded, metrics=metrics) as console:
        passwords.chmod(0o644)
        with pytest.raises(SettingsError):
            ConsoleService(loaded, metrics=metrics)
        assert httpx.get(f"{console.url}login", timeout=60).status_code == 200


def test_one_that_is_made_and_never_started_leaves_nothing_behind(settings: Settings) -> None:
    made = ConsoleService(settings)
    host, _, port = made.url.removeprefix("http://").rstrip("/").partition(":")
    made.discard()
    made.discard()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))
    gone = weakref.ref(made)
    del made
    gc.collect()
    assert gone() is None


def test_a_port_that_is_taken_is_found_before_anything_else_ends(settings: Settings) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        wrong = with_web(settings, listen=f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(UsageError, match=r"\[web\] listen"):
            ConsoleService(wrong)


def test_it_runs_beside_other_services_on_one_connection(settings: Settings) -> None:
    group = make_group(check_names(["web", "relay"]), settings)
    with group, Bus(settings.broker) as bus:
        assert bus.wait_connected(60)
        console = next(one for one in group.services if isinstance(one, ConsoleService))
        assert console.link.shared
        wait_until(lambda: httpx.get(f"{console.url}api/v1/health", timeout=60).json()["connected"], "connected")
        bus.publish(settings.topics.notice, encode(Notice(text="tea is ready")), timeout=30)
        wait_until(lambda: "tea is ready" in httpx.get(f"{console.url}notices", timeout=60).text, "the notice is shown")


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("/", "page"),
        ("/sites/shop", "page"),
        ("/api/v1/sites", "api"),
        ("/api/v1/events", "events"),
        ("/static/console.css", "static"),
        ("/hook/forge", "hook"),
        ("/hook/other", "page"),
    ],
)
def test_a_request_is_counted_by_what_it_asks_for(path: str, part: str) -> None:
    assert part_of(path, ("/hook/forge",)) == part
