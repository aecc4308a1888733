"""`deploykit trace`: the way of a commit from push to release."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from deploykit.cli.options import Seconds, config_option, json_option, load, print_json
from deploykit.cli.visible import visible

if TYPE_CHECKING:
    from deploykit.fleet.station import Station
    from deploykit.operations.trace import TraceAnswer

#: Seconds by which a sender's clock may differ before the line says so.
_CLOCKS: Final = 5.0
#: Bytes of a log that takes longer than a person waits without a word.
_LARGE: Final = 50 << 20


@click.command()
@click.argument("what", metavar="ID|COMMIT|REF")
@click.option(
    "--from",
    "files",
    multiple=True,
    type=click.Path(path_type=Path, exists=False),
    metavar="FILE",
    help="A log of `watch --record`, its older parts included; more than one may be named, the oldest first.",
)
@click.option(
    "--timeout", default=60.0, show_default=True, type=Seconds(1), help="Without --from: seconds to look at the bus."
)
@config_option
@json_option
@click.pass_context
def trace(
    ctx: click.Context, what: str, files: tuple[Path, ...], timeout: float, config: Path | None, as_json: bool
) -> None:
    """Show the way of a commit: one line for its push, its builds, the nodes that fetched it, the rollout, the commands
    and each node's release, with the time and the seconds since the line before.

    The beginning of a commit (4 digits) or of an id, and a ref without refs/heads/ or refs/tags/, are enough. A ref
    means its newest push. With --from a recorded log is read, else what passes on the bus from now on: until all is
    reported, or the time is over. What was lost on the way, and must have been there, is shown as not seen. Signatures
    are verified where the settings name allowed_signers.

    Ends with 0 when something was found, 1 when nothing was, 2 when the text means several things, which are listed.

    \b
    Examples:
      deploykit watch --json --record /var/log/deploykit/bus.jsonl > /dev/null &
      deploykit trace v1.2 --from /var/log/deploykit/bus.jsonl
      deploykit trace 2e2e2e2 --from /var/log/deploykit/bus.jsonl --json
      deploykit trace v1.3 --timeout 600
    """
    from deploykit.cli import print_error
    from deploykit.errors import UsageError
    from deploykit.operations import trace as operation

    if not what or len(what) > 1100:
        raise UsageError("expected an id, a commit or a ref", "e.g. v1.2, or the beginning of a commit")
    settings = operation.settings_if_any(lambda: load(config), needed=not files or config is not None)
    if files or settings is None:

        def say_large(size: int) -> None:
            if size > _LARGE:
                print_error(f"reading {size >> 20} MiB, several times")

        answer = operation.trace_log(what, files, operation.trace_trust(settings), on_begin=say_large)
    else:
        shown: set[str] = set()

        def show_new(answer: TraceAnswer) -> None:
            lines = _station_lines(answer)
            for line in lines:
                if line not in shown and not as_json:
                    click.echo(line, err=True)
            shown.update(lines)

        answer = operation.trace_bus(
            settings,
            what,
            timeout=timeout,
            on_change=show_new,
            on_ready=lambda: print_error(f"looking at the bus for {timeout:g} s; Ctrl-C ends it"),
        )
    ctx.exit(_print(what, answer, as_json=as_json))


def _print(what: str, answer: TraceAnswer, *, as_json: bool) -> int:
    """Print what was found; return the exit code."""
    from deploykit.cli import print_error

    found = answer.found
    if as_json:
        print_json(_as_json(answer))
    if found.ambiguous is not None:
        print_error(f"{what} means {found.ambiguous.count} things; name one of them whole:")
        for meaning in found.ambiguous.meanings:
            click.echo(f"  {visible(meaning)}", err=True)
        return 2
    trace = found.trace
    if not as_json and trace is not None and found.subject is not None:
        click.echo(visible(f"{found.subject.kind} {found.subject.name}"))
        for line in _station_lines(answer):
            click.echo(line)
    notes = [*(trace.notes if trace is not None else ()), *answer.notes]
    if trace is not None and trace.stations and not answer.verified:
        notes.append("signatures: not verified (the settings name no allowed_signers)")
    for note in notes:
        print_error(note)
    if trace is None or not trace.stations:
        print_error(f"nothing about {what} in {answer.messages} messages")
        return 1
    return 0


def _station_lines(answer: TraceAnswer) -> list[str]:
    """Return a line for each station, control characters escaped."""
    from deploykit.fleet.trace import gaps_between

    stations: Sequence[Station] = answer.found.trace.stations if answer.found.trace is not None else ()
    lines: list[str] = []
    day = ""
    for station, gap in zip(stations, gaps_between(stations), strict=True):
        if (date := f"{station.at:%Y-%m-%d}") != day:
            day = date
            lines.append(f"{date} (UTC)")
        at = f"{station.at:%H:%M:%S}.{station.at.microsecond // 1000:03d}" if station.seen else "    not seen"
        since = "" if gap is None else f"{gap:+.1f} s"
        lines.append(f"{at}  {since:>9}  {station.kind:<8} {visible(station.text)}{visible(_remarks(station))}")
    return lines


def _remarks(station: Station) -> str:
    if not station.seen:
        return f" (not seen: {station.because})"
    found = []
    verdict = station.verdict
    if verdict is not None and verdict.standing == "doubtful":
        found.append(f"NOT BELIEVED: {verdict.why}")
    elif verdict is not None and verdict.standing == "unsigned":
        found.append("unsigned")
    elif verdict is not None and verdict.why:
        found.append(f"not verified: {verdict.why}")
    if station.sent is not None and abs((station.sent - station.at).total_seconds()) > _CLOCKS:
        found.append(f"sent {station.sent:%Y-%m-%d %H:%M:%S} by the sender's clock")
    return f" [{'; '.join(found)}]" if found else ""


def _as_json(answer: TraceAnswer) -> dict[str, object]:
    from deploykit.fleet.trace import gaps_between

    found = answer.found
    stations: Sequence[Station] = found.trace.stations if found.trace is not None else ()
    return {
        "subject": None if found.subject is None else {"kind": found.subject.kind, "name": found.subject.name},
        "ambiguous": list(found.ambiguous.meanings) if found.ambiguous is not None else [],
        "complete": found.trace is not None and found.trace.complete,
        "stations": [
            {
                "kind": one.kind,
                "subject": one.subject,
                "state": one.state,
                "seen": one.seen,
                "because": one.because,
                "at": _time(one.at),
                "until": _time(one.until),
                "gap": gap,
                "sent": None if one.sent is None else _time(one.sent),
                "text": one.text,
                "ids": list(one.ids),
                "signature": None if one.verdict is None else one.verdict.standing,
                "signer": "" if one.verdict is None else one.verdict.signer,
                "why": "" if one.verdict is None else one.verdict.why,
            }
            for one, gap in zip(stations, gaps_between(stations), strict=True)
        ],
        "messages": answer.messages,
        "notes": [*(found.trace.notes if found.trace is not None else ()), *answer.notes],
    }


def _time(at: datetime) -> str:
    return at.isoformat()
