"""Only what can be a package's name, version, architecture or distribution gets anywhere near a program."""

from __future__ import annotations

import contextlib
from typing import Any

import attrs
import pytest

from deploykit.daemons.packages.packagenames import parse_announcement
from deploykit.errors import InvalidName
from deploykit.messages import PackagePublished, utc_now
from deploykit.settings.packages import PackageTool
from deploykit.wire import decode
from deploykit.wire.legacy.decoder import decode_legacy

HELLO = PackagePublished(name="hello", version="2.10-3", architecture="amd64", distribution="bookworm")
#: What must be no part of a package's name anywhere.
HOSTILE = (
    *("", "-", "--", "-o", "-oDir::Etc::sourcelist=/etc/passwd", "--option", "+x", ".x", "~x"),
    *("a b", " hello", "hello ", "a\tb", "hello\n", "a\nb", "a\r\nb", "a\x00b", "a\x1b[2Jb", "a\x85b", "a\u2028b"),
    *("a;id", "a&id", "a|id", "$(id)", "`id`", "a>b", "a<b", "a'b", 'a"b', "a\\b", "a!b", "{a,b}", "a#b"),
    *("a/b", "../a", "/etc/passwd", "a%2fb", "a%b", "a*", "a?b", "[ab]", "a^", "a=1.0", "a:i386", "a,b", "(a)", "a@b"),
    *("hell\u043e", "h\u00e9llo", "\u0661a", "a\u0661", "a\u200bb", "a\u202eb", "\uff41b", "a\ud800", "a" * 129),
)


@pytest.mark.parametrize("tool", ["apt", "dnf"])
@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_a_hostile_name_is_refused_with_one_printable_line(text: str, tool: PackageTool) -> None:
    with pytest.raises(InvalidName) as raised:
        parse_announcement(attrs.evolve(HELLO, name=text), tool)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 300


#: What one of the other texts may be: no option, no pattern, one word.
FINE = {
    ("distribution", "a/b"),
    ("version", "a^"),
    ("version", "a:i386"),
    ("version", "a" * 129),
}


@pytest.mark.parametrize("field", ["version", "architecture", "distribution"])
@pytest.mark.parametrize("text", [each for each in HOSTILE if each], ids=ascii)
def test_a_hostile_version_architecture_or_distribution_is_refused(text: str, field: str) -> None:
    changes: dict[str, Any] = {field: text}
    message = attrs.evolve(HELLO, **changes)
    if (field, text) in FINE:
        assert getattr(parse_announcement(message, "apt"), field) == text
        return
    with pytest.raises(InvalidName) as raised:
        parse_announcement(message, "apt")
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    ("name", "tools"),
    [
        ("hello", {"apt", "dnf"}),
        ("libstdc++6", {"apt", "dnf"}),
        ("python3.11-minimal", {"apt", "dnf"}),
        ("0ad", {"apt", "dnf"}),
        ("NetworkManager", {"dnf"}),
        ("python3-pip_x", {"dnf"}),
        ("R", {"dnf"}),
        ("r", {"dnf"}),
    ],
)
def test_names_are_those_of_the_package_manager(name: str, tools: set[str]) -> None:
    found = set()
    both: tuple[PackageTool, ...] = ("apt", "dnf")
    for tool in both:
        with contextlib.suppress(InvalidName):
            parse_announcement(attrs.evolve(HELLO, name=name), tool)
            found.add(tool)
    assert found == tools


def test_an_announcement_keeps_what_a_report_needs() -> None:
    message = attrs.evolve(HELLO, version="1:2.10-3+b1~deb12u1", distribution="bookworm/updates", correlation_id="push")
    package = parse_announcement(message, "apt")
    assert (package.request, package.correlation_id) == (message.id, "push")
    assert package.target == ("hello", "amd64", "bookworm/updates")


@pytest.mark.parametrize(
    ("file", "name", "version", "architecture"),
    [
        ("hello_2.10-3_amd64.deb", "hello", "2.10-3", "amd64"),
        ("tzdata_1%3a2024a-0_all.deb", "tzdata", "1:2024a-0", "all"),
        ("hello.deb", "hello", "", ""),
    ],
)
def test_the_originals_messages_name_a_file(file: str, name: str, version: str, architecture: str) -> None:
    body = f"package: {file}\n" + r'["Exporting indices...\n"]'
    headers = {"subject": f"Package update: [{file}]"}
    message = decode_legacy(headers, body.encode(), "/topic/future.package.updates", utc_now())
    assert isinstance(message, PackagePublished)
    package = parse_announcement(message, "apt")
    assert (package.name, package.version, package.architecture, package.distribution) == (
        *(name, version, architecture),
        "",
    )


@pytest.mark.parametrize(
    "file",
    [
        *("-oX_1_all.deb", "--x_1_all.deb", "$(id)_1_all.deb", "a b_1_all.deb", "hello_-1_all.deb", "hello_1_-x.deb"),
        *(
            "hello_%2dx_all.deb",
            "hello_1%0a_all.deb",
            "Hello_1_all.deb",
            "x;y.deb",
            "hello_1_all.deb.exe",
            "\u202e.deb",
        ),
        *("hello_1_all.deb --force", "hello_1_all.deb;id", "hello_%24(id)_all.deb", "\u202e.deb"),
    ],
    ids=ascii,
)
def test_a_hostile_file_of_the_originals_is_refused(file: str) -> None:
    message = decode({}, f"package: {file}\n\n".encode(), "/topic/future.package.updates")
    assert isinstance(message, PackagePublished)
    with pytest.raises(InvalidName) as raised:
        parse_announcement(message, "apt")
    assert str(raised.value).isprintable()


def test_of_a_path_in_the_originals_message_only_the_files_name_counts() -> None:
    message = decode({}, b"package: ../../etc/hello_1_all.deb\n\n", "/topic/future.package.updates")
    assert isinstance(message, PackagePublished)
    assert parse_announcement(message, "apt").name == "hello"
