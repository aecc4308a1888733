"""How an item reads, and that nothing in it calls people, is markup, or is a command."""

from __future__ import annotations

from datetime import timedelta

import pytest

from deploykit.daemons.notify.ircprotocol import parts_of
from deploykit.daemons.notify.wording import LATE, LONGEST, ZERO_WIDTH_SPACE, guarded, harmless, text_of
from deploykit.settings.notify import ChannelKind
from tests.support.newsworld import NOW, item, notice, proposal, rollout

PEOPLE: tuple[ChannelKind, ...] = ("irc", "matrix", "slack", "email")


def test_a_line_comes_as_it_is_with_its_link() -> None:
    found = item(proposal(reason="sale"), console="https://c.example.org")
    assert text_of(found, "", "irc") == (
        "rollout deploy shop v1.2 waits for approval (0 of 2 signed): sale https://c.example.org/deploys/r-2/approve"
    )


def test_a_template_has_the_last_word() -> None:
    found = item(rollout(detail="no disk"), console="https://c.example.org")
    template = "[{site}] {ref} {state}: {reason} {{see}} {link}"
    assert text_of(found, template, "irc") == ("[shop] v1.2 failed: no disk {see} https://c.example.org/deploys/r-1")


def test_what_is_unsigned_says_so_unless_the_template_does() -> None:
    assert text_of(item(notice("hello"), "unsigned"), "", "irc") == "hello (unsigned)"
    assert text_of(item(notice("hello"), "not verified"), "{line}", "irc") == "hello (not verified)"
    assert text_of(item(notice("hello"), "unsigned"), "{standing}: {line}", "irc") == "unsigned: hello"
    assert text_of(item(notice("hello")), "", "irc") == "hello"


def test_late_news_says_of_when_it_is() -> None:
    soon, late = NOW + LATE, NOW + LATE + timedelta(seconds=1)
    assert text_of(item(notice("hello"), received=soon), "", "irc") == "hello"
    assert text_of(item(notice("hello"), received=late), "", "irc") == "hello (of 2026-11-30 03:00 UTC)"
    assert text_of(item(notice("hello"), received=NOW - LATE * 2), "", "irc").startswith("hello (of ")


@pytest.mark.parametrize("kind", ["irc", "matrix", "slack"])
@pytest.mark.parametrize("word", ["@channel", "@here", "@everyone", "@room", "@ann", "x@everyone", "(@here)", "@Here"])
def test_nobody_is_called(kind: ChannelKind, word: str) -> None:
    shown = text_of(item(notice(f"look {word} now")), "", kind)
    assert word not in shown
    assert word in shown.replace(ZERO_WIDTH_SPACE, "")


def test_an_address_of_a_person_stays_as_it_is() -> None:
    assert harmless("by ann@laptop", "irc") == "by ann@laptop"
    assert harmless("by ann+x@laptop", "slack") == "by ann+x@laptop"


@pytest.mark.parametrize(
    "hostile",
    ["<!channel>", "<@U024BE7LH>", "<https://evil.example|bank>", "&lt;!here&gt;", "[bank](https://evil.example)"],
)
def test_nothing_is_slack_s_or_markdown_s_markup(hostile: str) -> None:
    shown = text_of(item(notice(f"see {hostile}")), "", "slack")
    assert "<" not in shown
    assert ">" not in shown
    assert "](" not in shown
    assert "&lt;!here&gt;" not in shown


@pytest.mark.parametrize("kind", PEOPLE)
@pytest.mark.parametrize(
    "hostile",
    [
        "a\r\nQUIT :bye",
        "a\nBcc: x@y.z",
        "a\x00b",
        "a\x01ACTION dies\x01",
        "a\x0304red",
        "a\u202egnp",
        "a\u2028b",
        "a\x1b[2J",
    ],
)
def test_a_line_is_one_line_without_control_characters(kind: ChannelKind, hostile: str) -> None:
    shown = text_of(item(notice(hostile)), "", kind)
    assert shown.replace(ZERO_WIDTH_SPACE, "").isprintable()


@pytest.mark.parametrize("line", ["!op mallory", "/quit", ".kick ann", "# heading", "> quote", "- item", "~x", "@x y"])
def test_no_line_begins_as_a_command_or_as_markup(line: str) -> None:
    assert guarded(line) == f"- {line}"
    assert text_of(item(notice(line)), "", "irc").startswith("- ")


def test_a_line_is_bounded_and_keeps_its_marks() -> None:
    template = "{line} " * 40
    shown = text_of(item(notice("x" * 5000), "unsigned"), template, "irc")
    assert len(shown) <= LONGEST + len(" (unsigned)")
    assert shown.endswith("… (unsigned)")


def test_a_mark_in_irc_is_sent_however_many_bytes_the_line_has() -> None:
    found = item(notice("\N{ROCKET}" * 290), "unsigned", received=NOW + LATE * 2, console="https://c.example.org")
    for template in ("{line} {reason} {line}", "{reason} {reason} {reason}", ""):
        said = " ".join(parts_of(text_of(found, template, "irc")))
        assert said.endswith("(unsigned) (of 2026-11-30 03:00 UTC)")


@pytest.mark.parametrize("text", ["<@&123>", "<@!123>", "<@123>"])
def test_no_id_of_a_person_or_a_role_calls_them(text: str) -> None:
    assert f"@{ZERO_WIDTH_SPACE}" in harmless(text, "slack")
