"""`deploykit message`: messages as files, for scripts, for tests of other clients, and to look at what came."""

from __future__ import annotations

import json
from pathlib import Path
from typing import BinaryIO

import click

from deploykit.cli.message_signing import sign, verify
from deploykit.cli.options import json_option, print_json
from deploykit.errors import MessageError, UsageError

_MAX_BODY = 1024 * 1024


@click.group()
def message() -> None:
    """Encode, decode, sign and verify messages.

    \b
    Example:
      deploykit message encode notice text="hello" | deploykit message decode
    """


message.add_command(sign)
message.add_command(verify)


@message.command()
@click.argument("type_name", metavar="TYPE")
@click.argument("words", metavar="[FIELD=VALUE]...", nargs=-1)
@click.option("--data", type=click.File("rb"), help="The fields as a JSON object; FIELD=VALUE wins. - is stdin.")
@click.option("--source", default="operator", show_default=True, help="The publisher, as in `git/HOST`.")
@click.option("--id", "message_id", default="", help="The message's id; a fresh one when absent.")
@click.option("--correlation-id", default="", help="The thread it belongs to.")
@click.option("--legacy", is_flag=True, help="Write the original's text format.")
@click.option("--label", default="", help="What the original's access daemon calls the site; with --legacy.")
@click.option("--headers", is_flag=True, help="Print the headers and an empty line before the body.")
@json_option
def encode(
    *,
    type_name: str,
    words: tuple[str, ...],
    data: BinaryIO | None,
    source: str,
    message_id: str,
    correlation_id: str,
    legacy: bool,
    label: str,
    headers: bool,
    as_json: bool,
) -> None:
    """Make a message of TYPE and print its body.

    \b
    TYPE is a wire type, its middle (`deploy.requested`) or a class (`DeployRequested`); `message schema` lists them.
    Lists are JSON or texts with commas; times are RFC 3339 or `+10m` from now.

    \b
    Example:
      deploykit message encode deploy.requested site=shop ref=refs/tags/v1 commit=$(git rev-parse v1^{}) \\
        audience=web-1,web-2 expires=+10m > request.json
    """
    from deploykit.messages import utc_now
    from deploykit.wire import codec
    from deploykit.wire.from_words import message_from_words
    from deploykit.wire.legacy import encode_legacy
    from deploykit.wire.schema import wire_class

    try:
        made = message_from_words(
            wire_class(type_name),
            words,
            now=utc_now(),
            data=_object(data),
            source=source,
            id=message_id,
            correlation_id=correlation_id,
        )
        frame = encode_legacy(made, label=label) if legacy else codec.encode(made)
    except MessageError as error:  # the caller's own words are wrong, not bytes from outside
        raise UsageError(error.problem, error.remedy, problems=error.problems) from error
    if as_json:
        print_json({"headers": dict(frame.headers), "body": frame.body.decode()})
        return
    if headers:
        click.echo("".join(f"{name}:{value}\n" for name, value in frame.headers.items()))
    click.echo(frame.body, nl=False)


@message.command()
@click.argument("body", type=click.File("rb"), default="-")
@click.option("-H", "--header", "given", multiple=True, metavar="NAME:VALUE", help="A header of the message; repeat.")
@click.option("-d", "--destination", default="", help="Where it was sent to; the original's messages need it.")
@json_option
def decode(*, body: BinaryIO, given: tuple[str, ...], destination: str, as_json: bool) -> None:
    """Read the body of a message and print its fields. Secrets are not shown.

    Without a content-type header, a body that begins with { is taken for the native form, any other for the
    original's text.

    \b
    Example:
      deploykit message decode push.txt -H "subject:[shop] refs/heads/main 2222" --json
    """
    from deploykit.messages import one_line
    from deploykit.wire import codec
    from deploykit.wire.redacted import redact

    raw = _read(body)
    headers = dict(_header(line) for line in given)
    headers.setdefault("content-type", codec.CONTENT_TYPE if raw.lstrip()[:1] == b"{" else "text/plain")
    found = codec.decode(headers, raw, destination)
    if as_json:
        print_json(None if found is None else redact(found))
    elif found is None:
        click.echo("a keepalive: nothing to handle")
    else:
        shown = redact(found)
        click.echo(one_line(found.summary))
        for name, value in shown.items():
            if name != "summary" and value not in ("", None, []):
                text = value if isinstance(value, str) else json.dumps(value)
                click.echo(f"  {name:16} {one_line(text)}")


@message.command()
@click.argument("type_name", metavar="[TYPE]", required=False)
@click.option("--write", type=click.Path(path_type=Path, file_okay=False, exists=True), help="Update files there.")
@json_option
def schema(*, type_name: str | None, write: Path | None, as_json: bool) -> None:
    """Print the JSON Schema of TYPE; without one, list the types.

    --write updates the schema files of every type in a directory, and refuses a change that older readers could not
    take.

    \b
    Example:
      deploykit message schema deploy.requested
    """
    from deploykit.messages import BY_TYPE
    from deploykit.wire import schema as schemas

    if write is not None and type_name is not None:
        raise UsageError("--write updates the files of all types", f"leave out {ascii(type_name)[:60]}")
    if write is not None:
        changed = schemas.updates({file.name: file.read_text(errors="replace") for file in write.glob("*.json")})
        for name, text in changed.items():
            (write / name).write_text(text)
        if as_json:
            print_json({"written": sorted(changed)})
        else:
            click.echo(f"{len(changed)} of {len(BY_TYPE)} schemas written to {write}")
    elif type_name is not None:
        click.echo(schemas.schema_text(schemas.wire_class(type_name)), nl=False)
    elif as_json:
        print_json({wire_type: schemas.schema(cls) for wire_type, cls in BY_TYPE.items()})
    else:
        for wire_type, cls in BY_TYPE.items():
            click.echo(f"{wire_type:42} {cls.__name__}")


def _object(file: BinaryIO | None) -> dict[str, object] | None:
    from deploykit.wire.strictjson import parse

    if file is None:
        return None
    found = parse(_read(file))
    if not isinstance(found, dict):
        raise UsageError("--data is not a JSON object")
    return found


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name:
        raise UsageError(f"{ascii(line)[:60]} is not a header", "write NAME:VALUE")
    return name.strip().lower(), value.strip()


def _read(file: BinaryIO) -> bytes:
    data = file.read(_MAX_BODY + 1)
    if len(data) > _MAX_BODY:
        raise UsageError(f"{getattr(file, 'name', 'the body')} is longer than {_MAX_BODY} bytes")
    return data
