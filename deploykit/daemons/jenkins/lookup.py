"""Jenkins' JSON about its queue and jobs -> where an order is. Pure; what is not as expected counts as not there.

Rules:

* An order is found by its correlation id, in the parameter `DEPLOYKIT_CORRELATION_ID` and nowhere else. Where another
  parameter of ours has another value, it is another order of the same event.
* A job that does not define that parameter shows no order: what is not found there may have been queued.
* A queue item of another job, or with another correlation id, is not ours, whatever number Jenkins gave us.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final
from urllib.parse import quote, unquote, urlsplit

import attrs

from deploykit.daemons.jenkins.ports import QueueState
from deploykit.httpclient.reply import HttpReply, NoReply
from deploykit.messages.base import one_line

#: The parameter that carries the correlation id.
CORRELATION: Final = "DEPLOYKIT_CORRELATION_ID"
#: How the names of the parameters begin that tell our own orders apart.
OURS: Final = "DEPLOYKIT_"
#: How many of a job's last builds are looked at.
LAST_BUILDS: Final = 50
#: Seconds by which Jenkins' clock may differ from ours.
_CLOCKS: Final = 60.0

_PARAMETERS: Final = "actions[parameters[name,value]]"
_DEFINED: Final = "[parameterDefinitions[name,defaultParameterValue[value]]]"
QUEUE: Final = f"tree={quote(f'items[id,task[url],{_PARAMETERS}]')}"
ITEM: Final = f"tree={quote(f'cancelled,why,task[url],executable[number,url],{_PARAMETERS}')}"
_SHOWN: Final = f"builds[number,timestamp,url,{_PARAMETERS}]"
BUILDS: Final = f"tree={quote(f'property{_DEFINED},actions{_DEFINED},{_SHOWN}')}" + quote(f"{{0,{LAST_BUILDS}}}")
JOB: Final = f"tree={quote(f'_class,buildable,disabled,url,property{_DEFINED},actions{_DEFINED}')}"
#: How Jenkins' classes end that build nothing themselves and look for branches or repositories.
SCANS: Final = ("MultiBranchProject", "OrganizationFolder")
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
#: Largest number that an event can carry.
MOST_NUMBER: Final = 2**53 - 1
_HTTP: Final = re.compile(r"https?://[^\s\"'<>\\]{1,1990}\Z")


@attrs.frozen(kw_only=True, slots=True)
class JobDescription:
    """A job as Jenkins describes it.

    Args:
        kind: Jenkins' class of it, without its package.
        buildable: None where Jenkins does not say (a folder, a multibranch project).
        parameters: names that the job defines.
    """

    kind: str = ""
    buildable: bool | None = None
    parameters: tuple[str, ...] = ()


def parse_object(reply: HttpReply) -> dict[str, object] | None:
    """Return the JSON object of an answer, or None where it is cut off or something else."""
    if not reply.whole:
        return None
    try:
        data = json.loads(reply.body)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def describe(data: dict[str, object]) -> JobDescription:
    """Return what a job's JSON says."""
    kind, buildable, disabled = data.get("_class"), data.get("buildable"), data.get("disabled")
    if disabled is True:
        buildable = False
    return JobDescription(
        kind=one_line(kind.rpartition(".")[2], 80) if isinstance(kind, str) else "",
        buildable=buildable if isinstance(buildable, bool) else None,
        parameters=tuple(dict.fromkeys(_defined(data))),
    )


def item_in_queue(
    data: dict[str, object], correlation_id: str, parts: tuple[str, ...], parameters: Mapping[str, str] = _NOTHING
) -> int | None:
    """Return the number of the queue item with a correlation id, and with nothing else that `parameters` contradict."""
    for item in _objects(data, "items"):
        number = _whole(item, "id")
        if number is not None and _is_order(item, correlation_id, parameters) and _is_of(item, parts):
            return number
    return None


def build_in_job(
    data: dict[str, object], correlation_id: str, parameters: Mapping[str, str] = _NOTHING
) -> tuple[int, str] | None:
    """Return number and URL of the build with a correlation id, and with nothing else that `parameters` contradict."""
    for build in _objects(data, "builds"):
        number = _whole(build, "number")
        if number is not None and _is_order(build, correlation_id, parameters):
            return number, shown_url(build.get("url"))
    return None


def reaches_back(data: dict[str, object], since: float) -> bool:
    """Return whether the builds of a job's JSON are all that were made since then (seconds since 1970).

    Jenkins forgets old builds where a job says so, and no more than `LAST_BUILDS` are asked for.
    """
    oldest = next(reversed(list(_objects(data, "builds"))), None)
    if oldest is None or oldest.get("number") == 1:
        return True
    begun = oldest.get("timestamp")
    return isinstance(begun, int | float) and begun / 1000 < since - _CLOCKS


def _is_order(data: dict[str, object], correlation_id: str, parameters: Mapping[str, str]) -> bool:
    """Return whether a build or queue item is an order's.

    One event may start a job several times: for each project of a revision, under one correlation id. Jenkins may trim
    a value, and a value that a job's own parameter has another type for says nothing.
    """
    if correlation_of(data) != correlation_id:
        return False
    return all(
        value.strip() == parameters[name].strip()
        for name, value in _values(data)
        if name.startswith(OURS) and name in parameters
    )


def correlation_of(data: dict[str, object]) -> str | None:
    """Return the correlation id among the parameters of a build or queue item; None where there is none."""
    return next((value for name, value in _values(data) if name == CORRELATION), None)


def _values(data: dict[str, object]) -> Iterator[tuple[str, str]]:
    for action in _objects(data, "actions"):
        for parameter in _objects(action, "parameters"):
            name, value = parameter.get("name"), parameter.get("value")
            if isinstance(name, str) and isinstance(value, str):
                yield name, value


def queue_state(reply: HttpReply | NoReply, correlation_id: str, parts: tuple[str, ...]) -> QueueState:
    """Return where a queue item is."""
    data = parse_object(reply) if isinstance(reply, HttpReply) and reply.status == 200 else None
    if isinstance(reply, NoReply) or data is None:
        return _unseen(reply)
    other = correlation_of(data)
    if not _is_of(data, parts) or (other and correlation_id and other != correlation_id):
        return QueueState(kind="gone", why="the number that Jenkins gave is that of another build's queue item")
    if data.get("cancelled") is True:
        return QueueState(kind="cancelled", why="somebody took the build out of the queue")
    executable = data.get("executable")
    if isinstance(executable, dict) and (number := _whole(executable, "number")) is not None:
        return QueueState(kind="started", number=number, url=shown_url(executable.get("url")))
    why = data.get("why")
    return QueueState(kind="waiting", why=reply.shown(why) if isinstance(why, str) else "")


def _unseen(reply: HttpReply | NoReply) -> QueueState:
    if isinstance(reply, NoReply):
        return QueueState(kind="unreachable", why=reply.why)
    if reply.status == 404:
        return QueueState(kind="gone", why="Jenkins knows no such queue item (it forgets one 5 minutes after it left)")
    if reply.status in (401, 403):
        return QueueState(kind="hidden", why=f"{reply.status}: the queue item may not be read")
    return QueueState(kind="unreachable", why=f"{reply.status}: not what Jenkins says about a queue item")


def shown_url(value: object) -> str:
    """Return a URL that may be shown, or an empty text for anything else."""
    return value if isinstance(value, str) and value.isprintable() and _HTTP.match(value) else ""


def _is_of(data: dict[str, object], parts: tuple[str, ...]) -> bool:
    """Return whether an item is a job's, as far as it says.

    Jenkins may know itself by another host and path, and leaves characters in its URLs that we quote: `(`, `+`, `@`.
    """
    task = data.get("task")
    url = task.get("url") if isinstance(task, dict) else None
    if not isinstance(url, str):
        return True
    try:
        path = urlsplit(url).path.rstrip("/").split("/")
    except ValueError:
        return False
    wanted = [each for part in parts for each in ("job", part)]
    before, mine = path[: -len(wanted)], path[-len(wanted) :]
    # A further job/NAME before it is a folder: that of another job with the same name.
    return [unquote(each) for each in mine] == wanted and before[-2:-1] != ["job"]


def _defined(data: dict[str, object]) -> Iterator[str]:
    for holder in (*_objects(data, "property"), *_objects(data, "actions")):
        for definition in _objects(holder, "parameterDefinitions"):
            name = definition.get("name")
            if isinstance(name, str):
                yield name


def _objects(data: dict[str, object], name: str) -> Iterator[dict[str, object]]:
    found = data.get(name)
    if isinstance(found, list):
        yield from (entry for entry in found if isinstance(entry, dict))


def _whole(data: dict[str, object], name: str) -> int | None:
    value = data.get(name)
    return value if type(value) is int and 0 < value <= MOST_NUMBER else None


__all__ = [
    "BUILDS",
    "CORRELATION",
    "ITEM",
    "JOB",
    "LAST_BUILDS",
    "MOST_NUMBER",
    "QUEUE",
    "SCANS",
    "JobDescription",
    "build_in_job",
    "correlation_of",
    "describe",
    "item_in_queue",
    "parse_object",
    "queue_state",
    "reaches_back",
    "shown_url",
]
