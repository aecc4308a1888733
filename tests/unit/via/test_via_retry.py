"""`--via`: retries are what was shown, and proposed where that was asked for; rollouts are named as on any machine."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner, Result

from deploykit.cli import group
from deploykit.errors import DeploykitError
from deploykit.messages import utc_now
from deploykit.trust.keyfiles import generate_key
from deploykit.web.viewer import Viewer
from tests.support.consoleserver import api_alone, serving
from tests.support.endingconsole import Console


@pytest.fixture
def console() -> Iterator[Console]:
    made = Console(now=utc_now())
    with serving(api_alone(made.queries, actions=made.console)) as server:
        made.url = server.url.rstrip("/")
        yield made


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DEPLOYKIT_CONFIG", str(tmp_path / "none.toml"))
    monkeypatch.delenv("DEPLOYKIT_VIA_TOKEN_FILE", raising=False)


def run(*words: object, input: str | None = None) -> Result:
    result = CliRunner().invoke(group, [str(word) for word in words], input=input)
    if result.exception and not isinstance(result.exception, DeploykitError | SystemExit):
        raise result.exception
    return result


def error_of(result: Result) -> DeploykitError:
    assert isinstance(result.exception, DeploykitError), result.output
    return result.exception


def test_a_retry_that_is_proposed_starts_nothing(console: Console) -> None:
    done = run("rollout", "retry", "r-1", "--propose", "--reason", "once more", "--via", console.url)
    assert done.exit_code == 0, done.output
    assert "proposed; nothing was sent" in done.output
    assert console.calls("plan_retry") == [("r-1", "approval")]
    assert console.calls("retry")[0][2:] == ("approval", "once more")
    assert console.running == {}


def test_a_retry_is_signed_where_a_key_is_given_and_only_as_it_was_shown(console: Console, tmp_path: Path) -> None:
    key = tmp_path / "ann.key"
    generate_key(key)
    retry = ("rollout", "retry", "r-1", "--approve-with", key, "-y", "--via", console.url)
    done = run(*retry)
    assert done.exit_code == 0, done.output
    assert len(console.calls("sign")) == 1
    other = attrs.evolve(console._retried(approval=True), ref="refs/tags/v6.6.6")
    held = console._proposed(Viewer(name="ann"), "r-9999", other, "")
    console._proposed = lambda viewer, rollout, plan, reason: attrs.evolve(  # type: ignore[method-assign] # a liar
        held, rollout=rollout, body=base64.b64encode(_renamed(held.body, rollout)).decode()
    )
    assert "v6.6.6, not refs/tags/v2.4.1" in str(error_of(run(*retry)))
    assert len(console.calls("sign")) == 1, "nothing was signed"


def _renamed(body: str, rollout: str) -> bytes:
    return base64.b64decode(body).replace(b"r-9999", rollout.encode())


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("deploy", "blog", "--ref", "v2.4.1"), "is of site shop, not blog"),
        (("deploy", "shop", "--ref", "v9"), "is of v2.4.1, not v9"),
        (("deploy", "shop", "--commit", "2" * 40), "is of commit"),
        (("deploy", "shop", "-I", "web-2"), "--node cannot be used"),
        (("deploy", "shop", "--batch", "3"), "--batch cannot be used"),
    ],
)
def test_a_retry_is_of_the_site_and_ref_that_are_named(console: Console, words: tuple[str, ...], problem: str) -> None:
    assert problem in str(error_of(run(*words, "--retry-failed", "r-1", "--via", console.url)))
    assert console.calls("retry") == []


def test_a_rollout_is_named_by_last_and_by_the_beginning_of_its_id(console: Console) -> None:
    for _ in range(2):
        run("deploy", "shop", "--ref", "v2.4.1", "-I", "web-1", "--via", console.url)
    newest, older = (each.rollout for each in console.queries.rollout_list[:2])
    assert run("rollout", "retry", "last", "--dry-run", "--via", console.url).exit_code == 0
    assert console.calls("plan_retry") == [(newest,)]
    assert "more than one rollout begins with r-" in str(error_of(run("rollout", "show", "r-", "--via", console.url)))
    assert newest in run("rollout", "show", newest, "--via", console.url).output
    assert older in run("rollout", "show", older, "--via", console.url).output
    assert "knows no rollout" in str(error_of(run("rollout", "show", "no/such", "--via", console.url)))


def test_what_waits_for_people_is_shown_and_withdrawn_by_last(console: Console) -> None:
    run("deploy", "shop", "--ref", "v2.4.1", "-I", "web-1", "--propose", "--reason", "carts", "--via", console.url)
    (rollout,) = console.waiting
    shown = run("rollout", "show", rollout[:-1], "--via", console.url)
    assert shown.exit_code == 0, shown.output
    assert "carts" in shown.output
    assert "must sign" in shown.output
    assert json.loads(run("rollout", "show", rollout, "--json", "--via", console.url).output)["reason"] == "carts"
    console.queries.rollout_list = ()
    assert f"{rollout} is withdrawn" in run("rollout", "abort", "last", "--via", console.url).output
    assert console.waiting == {}


def test_what_is_suggested_at_the_end_goes_to_the_same_console(console: Console) -> None:
    console.ends = "failed"
    done = run("deploy", "shop", "--ref", "v2.4.1", "-I", "web-1", "--via", console.url)
    (line,) = (line for line in done.output.splitlines() if "--retry-failed" in line)
    assert line.endswith(f" --via {console.url}")
