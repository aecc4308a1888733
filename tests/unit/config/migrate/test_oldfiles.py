"""Old files are hostile until parsed: what Ruby wrote is read, and nothing that YAML can do beyond it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deploykit.config.migrate.oldfiles import MAX_OLD_FILE, parse_old_file, read_old_file
from deploykit.errors import UsageError
from tests.support.oldsettings import old_file


def test_symbols_of_ruby_become_text() -> None:
    text = ":login: a\n:reliable: true\nmode: :tags\n:'a b': 1\n:\"c d\": 2\n'quoted':\n- :x\n- ::1\n"
    assert old_file(text).data == {
        "login": "a",
        "reliable": True,
        "mode": "tags",
        "a b": 1,
        "c d": 2,
        "quoted": ["x", "::1"],
    }


@pytest.mark.parametrize(
    ("written", "read", "noted"),
    [
        ("yes", True, True),
        ("Off", False, True),
        ("true", True, False),
        ("'yes'", "yes", False),
        ("0755", "0755", True),
        ("0x1f", "0x1f", True),
        ("1_000", "1_000", True),
        ("1.10", "1.10", True),
        ("1.5", 1.5, False),
        ("10:30", "10:30", True),
        ("2012-04-19", "2012-04-19", True),
        ("1e5", "1e5", True),
        (".5", ".5", True),
        (".inf", ".inf", True),
        ("+7", "+7", True),
        ("61613", 61613, False),
        ("1" * 30, "1" * 30, True),
        ("~", None, False),
        ("", None, False),
        ("refs/heads/x", "refs/heads/x", False),
        ("|\n  0755\n", "0755\n", False),
    ],
)
def test_what_yaml_reads_as_something_else_stays_as_it_is_written(written: str, read: object, noted: bool) -> None:
    file = old_file(f"first: 1\nkey: {written}\n")
    assert file.data["key"] == read
    assert type(file.data["key"]) is type(read)
    assert [note.partition(":")[0] for note in file.notes] == (["line 2"] if noted else [])


def test_a_note_has_no_value_in_it() -> None:
    assert "0755" not in "".join(old_file("passcode: 0755\n").notes)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: !ruby/object:Gem::Requirement {x: y}\n", "line 2: the tag !ruby/object:Gem::Requirement"),
        ("a: 1\nb: !!python/object/apply:os.system [id]\n", "line 2: the tag tag:yaml.org,2002:python/object"),
        ("a: !!binary aGVsbG8=\n", "line 1: the tag"),
        ("!ruby/hash:X a: 1\n", "line 1: the tag"),
        ("!!str a: 1\n", "line 1: the tag"),
        ("a: 1\nb: 2\na: 3\n", "line 3: the key 'a' is given twice"),
        ("a: 1\n:a: 3\n", "line 2: the key 'a' is given twice"),
        ("a: 1\n---\nb: 2\n", "line 2: a second document begins"),
        ("a:\n\tb: 1\n", "line 2: a tab"),
        ("a: *nothing\n", "line 1: "),
        ("a: &x [*x]\n", "line 1: an alias for something that is not there, or holds itself"),
        ("? [a, b]\n: 1\n", "line 1: a key that is no plain text"),
        ("a: {<<: 1}\n", "line 1: << takes keys from a map"),
        ("a: [1\nb: 2\n", "line 2: "),
        ("a: \x01\n", "line 1: "),
        ('a: "\\ud800"\n', "line 1: "),
        ("- a\n- b\n", "holds no settings"),
        ("just text\n", "holds no settings"),
        ("", "holds no settings"),
        ("# nothing\n", "holds no settings"),
        ("a: " + "[" * 40 + "]" * 40, "nested deeper"),
        ("a: " + "[" * 200_000, "nest"),
    ],
)
def test_what_is_refused_is_named_with_its_line(text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        old_file(text)
    assert says in str(caught.value)
    assert "old.yaml" in str(caught.value)


def test_aliases_count_for_all_that_they_stand_for() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(UsageError, match=r"line [0-9]+: more than 50000 values"):
        old_file("\n".join(lines))


def test_anchors_and_merged_keys_are_read_as_ruby_reads_them() -> None:
    file = old_file("base: &base {user: www, mode: tags}\nshop: {<<: *base, mode: branch}\nold: *base\n")
    assert file.data["shop"] == {"user": "www", "mode": "branch"}
    assert file.data["old"] == {"user": "www", "mode": "tags"}


def test_line_ends_and_a_mark_at_the_start_do_not_matter() -> None:
    assert old_file(b"\xef\xbb\xbfa: 1\r\nb: x\r\n").data == {"a": 1, "b": "x"}


@pytest.mark.parametrize("raw", [b"a: 1\nb: caf\xe9\n", "a: 1\nb: x\n".encode("utf-16")])
def test_what_is_not_utf8_is_refused_with_its_line(raw: bytes) -> None:
    with pytest.raises(UsageError, match=r"line [12]: not UTF-8"):
        old_file(raw)


def test_a_file_that_is_too_large_is_refused() -> None:
    with pytest.raises(UsageError, match="larger than"):
        parse_old_file(b"a: " + b"x" * MAX_OLD_FILE, Path("old.yaml"))


def test_facts_are_read_as_lines_json_and_yaml() -> None:
    assert old_file("# facts\na=1\n\nsitedir_shop=/srv/a=b\r\n", "site.txt").data == {
        "a": "1",
        "sitedir_shop": "/srv/a=b",
    }
    assert old_file("a=1\nb=x\n", "site").data == {"a": "1", "b": "x"}
    assert old_file('{"a": 1, "b": ["x"]}', "site.json").data == {"a": 1, "b": ["x"]}
    assert old_file('{"a": 1, "b": ["x"]}', "site.yaml").data == {"a": 1, "b": ["x"]}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("site.txt", "a=1\na=2\n", "line 2: 'a' is given twice"),
        ("site.txt", "a=1\nnothing\n", "line 2: not a line of the form name=value"),
        ("site.json", '{"a": 1, "a": 2}', "twice"),
        ("site.json", "[1]", "holds no settings"),
        ("site.json", "{" * 5000, "site.json"),
    ],
)
def test_facts_that_are_none_are_refused(name: str, text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        old_file(text, name)
    assert says in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*none.yaml"):
        read_old_file(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match=r"Is a directory .give the files in it"):
        read_old_file(tmp_path)
    (tmp_path / "deploykit.toml").write_text('node = "web1"\n')
    with pytest.raises(UsageError, match=r"no old settings are TOML .give the old files"):
        read_old_file(tmp_path / "deploykit.toml")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="holds no settings"):
        read_old_file(tmp_path / "pipe")  # nobody writes to it: read as empty, and not waited for


def test_the_mode_of_a_file_is_known(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: 1\n")
    (tmp_path / "a.yaml").chmod(0o640)
    assert read_old_file(tmp_path / "a.yaml").mode == 0o640


@pytest.mark.parametrize(
    "written",
    ["!S3cret", "!!S3cret", "!<S3cret> x", "*S3cret", "%S3cret", "@S3cret", "`S3cret", "|S3cret", "'S3cret", "[S3cret"],
)
def test_a_passcode_without_quotes_is_refused_with_its_line_and_not_shown(written: str) -> None:
    with pytest.raises(UsageError, match=r"line [23]: .* quotes\)$") as caught:
        old_file(f"first: 1\npasscode: {written}\nlast: 1\n")
    assert "S3cret" not in str(caught.value)


def test_a_passcode_that_yaml_takes_for_an_anchor_is_named() -> None:
    file = old_file("first: 1\npasscode: &S3cret\n")
    assert file.data["passcode"] is None
    assert file.notes == ("line 2: empty in YAML: a text that begins with & needs quotes",)


@pytest.mark.parametrize("text", ["a: <%= x %>\n", "a: '{{ x }}'\n", "# <% no %>\na: 1\nb: <%= x %>\n", "a=<%= x %>\n"])
def test_a_template_is_noted(text: str) -> None:
    line = len(text.splitlines())
    assert old_file(text).notes == (f"line {line}: looks like a template: give the file that is made of it",)


@pytest.mark.parametrize("text", ["a:\n<% x.each do |y| %>\n- 1\n<% end %>\n", "a: {{ x }}\n", "a: 1\n{% if x %}\n"])
def test_a_template_that_cannot_be_read_is_called_one(text: str) -> None:
    with pytest.raises(UsageError, match="looks like a template"):
        old_file(text)


def test_a_file_in_one_line_is_yaml() -> None:
    assert old_file("{a: x, b: [1, yes], c: {d: }}\n").data == {"a": "x", "b": [1, True], "c": {"d": None}}
    assert old_file('{"a": "x", "b": [1, true]}\n').data == {"a": "x", "b": [1, True]}
    with pytest.raises(UsageError, match=r"line 1: .*write login: in place of :login:"):
        old_file("{:login: x}\n")


def test_lines_may_begin_with_tabs_and_quotes_are_noted() -> None:
    file = parse_old_file(b"\ta\t=\tb c\r\n# d\n  e = 'f'\n", Path("server.cfg"))
    assert file.data == {"a": "b c", "e": "'f'"}
    assert file.notes == ("line 3: the quotes are a part of the value",)
