"""`deploykit message encode|decode|schema`, as a person and as a script use them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from deploykit.cli.message import message
from deploykit.errors import DeploykitError, MessageError, UsageError
from tests.support.cli import run

PUSH = f"repo: shop\noldrev: {'1' * 40}\nnewrev: {'2' * 40}\nrefname: refs/heads/main\n"


def invoke(*words: str, stdin: str | bytes | None = None) -> Result:
    result = CliRunner().invoke(message, list(words), input=stdin)
    if result.exception and not isinstance(result.exception, DeploykitError | SystemExit):
        raise result.exception
    return result


def output(*words: str, stdin: str | bytes | None = None) -> str:
    result = invoke(*words, stdin=stdin)
    assert result.exit_code == 0, result.output
    return result.stdout


def refusal(*words: str, stdin: str | bytes | None = None) -> DeploykitError:
    error = invoke(*words, stdin=stdin).exception
    assert isinstance(error, DeploykitError)
    return error


def test_words_become_a_message() -> None:
    body = output(
        "encode", "deploy.requested", "site=shop", "ref=refs/tags/v1", f"commit={'2' * 40}",
        "audience=web-1, web-2", "expires=+10m", "--source", "ops/ann", "--id", "42", "--correlation-id", "7",
    )  # fmt: skip
    event = json.loads(body)
    assert (event["id"], event["source"], event["correlationid"]) == ("42", "ops/ann", "7")
    assert event["data"]["audience"] == ["web-1", "web-2"]
    assert event["data"]["expires"] > event["time"]


def test_what_encode_prints_decode_reads() -> None:
    body = output("encode", "Notice", "text=hello: world = fine")
    shown = json.loads(output("decode", "--json", stdin=body))
    assert (shown["type"], shown["text"]) == ("deploykit.notice.v1", "hello: world = fine")
    assert output("decode", stdin=body).startswith("hello: world = fine\n  type             deploykit.notice.v1\n")


def test_data_may_come_from_a_file_and_words_win(tmp_path: Path) -> None:
    file = tmp_path / "data.json"
    file.write_text('{"text": "from the file", "newer": 1}')
    event = json.loads(output("encode", "notice", "--data", str(file), "text=from a word"))
    assert event["data"] == {"text": "from a word", "newer": 1}


def test_headers_and_json_show_the_whole_frame() -> None:
    shown = output("encode", "notice", "text=x", "--headers")
    head, _, body = shown.partition("\n\n")
    assert "subject:x" in head.splitlines()
    assert json.loads(body)["data"] == {"text": "x"}
    frame = json.loads(output("encode", "notice", "text=x", "--json"))
    assert frame["headers"]["deploykit-type"] == "deploykit.notice.v1"
    assert json.loads(frame["body"])["data"] == {"text": "x"}


def test_legacy_bodies_are_written_and_read() -> None:
    body = output("encode", "notice", "text=hello", "--legacy")
    assert body == "hello"
    shown = json.loads(output("decode", "--json", "-H", "subject: Talking to eventbot", stdin=body))
    assert shown["text"] == "hello"
    assert json.loads(output("decode", "--json", stdin=PUSH))["ref"] == "refs/heads/main"


def test_a_keepalive_is_said_to_be_one() -> None:
    assert "nothing to handle" in output("decode", stdin="\n")
    assert output("decode", "--json", stdin="\n") == "null\n"


def test_a_password_is_not_shown() -> None:
    shown = output("decode", stdin="Site: s\nUser: u\nPassword: c4nary\n") + output(
        "decode", "--json", stdin="Site: s\nUser: u\nPassword: c4nary\n"
    )
    assert "c4nary" not in shown
    assert "***" in shown


def test_control_characters_of_a_message_do_not_reach_the_terminal() -> None:
    body = output("encode", "notice", "text=a\x1b[2J\x9bb\u202ec")
    assert not set("\x1b\x9b\u202e") & set(output("decode", stdin=body) + output("decode", "--json", stdin=body))


@pytest.mark.parametrize(
    ("words", "kind", "said"),
    [
        (["encode", "nothing"], UsageError, "no message type 'nothing'"),
        (["encode", "notice", "txt=x"], UsageError, "fields: text"),
        (["encode", "notice", "text"], UsageError, "write field=value"),
        (["encode", "notice"], UsageError, "data.text: is missing"),
        (["encode", "notice", "text=x", "--source", "a b"], UsageError, "source: expected a URI reference"),
        (["encode", "notice", "--data", "-"], UsageError, "data.text: is missing"),
        (["encode", "mirror.updated", "seconds=soon"], UsageError, "this field takes JSON"),
        (["encode", "build.finished", "job=x", "outcome=odd"], UsageError, "one of success, failure"),
        (["encode", "notice", "text=\udcff"], UsageError, "text: the value is not UTF-8"),
        (["encode", "node.queried", "audience=\udcff"], UsageError, "audience: the value is not UTF-8"),
        (["encode", "node.queried", "expires=+999999999d"], UsageError, "expires: +999999999d is after"),
        (["encode", "node.queried", "--legacy"], UsageError, "the original has no message like NodeQueried"),
        (["schema", "notice", "--write", "."], UsageError, "leave out 'notice'"),
        (["decode"], MessageError, "specversion: expected 1.0"),
        (["decode", "-H", "odd"], UsageError, "write NAME:VALUE"),
        (["schema", "nothing"], UsageError, "no message type"),
    ],
)
def test_a_mistake_is_told_with_the_way_out(words: list[str], kind: type[DeploykitError], said: str) -> None:
    error = refusal(*words, stdin="{}")
    assert isinstance(error, kind)
    assert said in str(error)


def test_all_mistakes_are_told_at_once_and_end_with_2() -> None:
    done = run(
        "message", "encode", "deploy.requested", "site=../x", "ref=main", "commit=1", "audience=a", "expires=+1m"
    )
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if line.startswith("  ")] == [
        "  data.site: expected a site name",
        "  data.ref: expected a full ref name, refs/heads/NAME or refs/tags/NAME",
        "  data.commit: expected 40 or 64 lower-case hex digits",
    ]


def test_a_body_over_the_limit_is_not_read_whole() -> None:
    assert "is longer than" in str(refusal("decode", stdin=b"x" * (1024 * 1024 + 1)))


def test_schemas_are_listed_printed_and_written(tmp_path: Path) -> None:
    assert "deploykit.notice.v1" in output("schema")
    assert json.loads(output("schema", "notice"))["title"] == "Notice"
    assert len(json.loads(output("schema", "--json"))) == 25
    assert "25 of 25" in output("schema", "--write", str(tmp_path))
    assert "0 of 25" in output("schema", "--write", str(tmp_path))


def test_a_schema_that_older_readers_could_not_take_is_not_written(tmp_path: Path) -> None:
    output("schema", "--write", str(tmp_path))
    file = tmp_path / "deploykit.notice.v1.json"
    old = json.loads(file.read_text())
    old["properties"]["data"]["required"] = []
    file.write_text(json.dumps(old))
    error = refusal("schema", "--write", str(tmp_path))
    assert "text is required now, older writers leave it out" in str(error)
    assert json.loads(file.read_text()) == old


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\xff"])
def test_a_schema_file_that_cannot_be_read_is_not_written_over(tmp_path: Path, text: str) -> None:
    file = tmp_path / "deploykit.notice.v1.json"
    file.write_bytes(text.encode("latin-1"))
    assert "deploykit.notice.v1.json is not JSON" in str(refusal("schema", "--write", str(tmp_path)))
    assert file.read_bytes() == text.encode("latin-1")
    assert list(tmp_path.iterdir()) == [file]


def test_each_command_shows_an_example() -> None:
    for words in (["--help"], ["encode", "--help"], ["decode", "--help"], ["schema", "--help"]):
        assert "Example:" in output(*words)
