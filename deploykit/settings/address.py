"""Parse broker addresses, pure.

Accepted: `stomp://[login:passcode@]host[:port]`, `stomp+ssl://…`, `failover:(a,b)?options`, and the form that the
original's Ruby gem used, `failover://(a,b)?options`. Rules:

* The case of option names does not matter. An unknown option becomes a warning: the gem silently ignored six options
  of the original's own settings because of their case.
* The original's settings write delays in seconds, in a place where the gem reads milliseconds. A value that makes sense
  in one unit only is taken in that one, with a warning; one that would have us try again without a pause has no effect.
* An option that asks for what the bus does anyway needs no warning.
* A list that mixes TLS and plain brokers is refused: a failover must not turn encryption off.
* Logins and passcodes never show in `repr`, in an error, or in `str(broker)`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import unquote

import attrs

from deploykit.errors import AddressError

DEFAULT_PORT: Final = 61613
DEFAULT_TLS_PORT: Final = 61614

_SCHEMES: Final[Mapping[str, bool]] = {
    "stomp": False,
    "tcp": False,
    "stomp+ssl": True,
    "stomp+tls": True,
    "ssl": True,
    "tls": True,
}
_FAILOVER = re.compile(
    r"failover:(?://)?(?:\((?P<inside>.*)\)|(?P<bare>[^()?]*))(?:\?(?P<options>[^()]*))?\Z", re.IGNORECASE | re.DOTALL
)
_HOST = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)(?:%(?:25)?(?P<zone>[A-Za-z0-9._~-]+))?\]|(?P<name>[A-Za-z0-9._-]+))"
    r"(?::(?P<port>[0-9]{1,5}))?\Z"
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@attrs.frozen(kw_only=True, slots=True)
class Broker:
    """Host and port of one broker, and our credentials there. `str()` shows no credentials."""

    host: str
    port: int = DEFAULT_PORT
    tls: bool = False
    login: str = attrs.field(default="", repr=False)
    passcode: str = attrs.field(default="", repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'stomp+ssl' if self.tls else 'stomp'}://{host}:{self.port}"


@attrs.frozen(kw_only=True, slots=True)
class Address:
    """A parsed address: brokers in the order written, options, and warnings about options without effect.

    An option that the address does not have is None; times are seconds.
    """

    brokers: tuple[Broker, ...]
    randomize: bool | None = None
    backoff_initial: float | None = None
    backoff_max: float | None = None
    backoff_multiplier: float | None = None
    connect_timeout: float | None = None
    warnings: tuple[str, ...] = ()

    @property
    def tls(self) -> bool:
        """Whether the brokers are reached over TLS: all of them are, or none is."""
        return self.brokers[0].tls

    def __str__(self) -> str:
        return ",".join(map(str, self.brokers))


def parse_address(text: str) -> Address:
    """Parse a broker address or a failover list of them.

    >>> address = parse_address("failover:(stomp+ssl://a,stomp+ssl://u:p@b:7000)?Randomize=false")
    >>> [str(broker) for broker in address.brokers], address.randomize
    (['stomp+ssl://a:61614', 'stomp+ssl://b:7000'], False)

    Raises:
        AddressError: a part is not understood, or TLS and plain brokers are mixed. The text has the part's place in
            the list, never its content, which may hold a passcode.
    """
    if not text.strip():
        raise AddressError("the broker address is empty", "write stomp://host:port")
    text = text.strip()
    if not text.lower().startswith("failover:"):
        base, _, query = text.partition("?")
        return _address([base], query)
    match = _FAILOVER.match(text)
    if match is None:
        raise AddressError("the failover address is not understood", "write failover:(stomp://a:61613,stomp://b:61613)")
    inside = match["inside"] if match["inside"] is not None else match["bare"]
    parts = [part.strip() for part in inside.split(",")]
    return _address(parts, match["options"] or "")


def _address(parts: list[str], query: str) -> Address:
    many = len(parts) > 1
    brokers = tuple(
        _broker(part, f"broker {n} of the list" if many else "the broker address") for n, part in enumerate(parts, 1)
    )
    if len({broker.tls for broker in brokers}) > 1:
        raise AddressError(
            "the failover list mixes TLS and plain brokers", "use stomp+ssl:// for all of them, or for none"
        )
    options, warnings = _options(query)
    return Address(brokers=brokers, warnings=warnings, **options)


def _broker(part: str, where: str) -> Broker:
    scheme, separator, rest = part.partition("://")
    tls = _SCHEMES.get(scheme.lower())
    if not separator or tls is None:
        # Shown only where it can be nothing but a scheme: "user:pw@host" must not be shown.
        shown = f" ({scheme!r} is not a scheme)" if separator and re.fullmatch(r"[A-Za-z0-9+.-]{1,20}", scheme) else ""
        raise AddressError(f"{where} is not understood{shown}", "write stomp://host:port or stomp+ssl://host:port")
    userinfo, at, hostport = rest.rpartition("@")
    match = _HOST.match(hostport.rstrip("/"))
    if match is None:
        raise AddressError(f"{where}: host or port is not understood", "write stomp://host:port; escape @ as %40")
    port = int(match["port"]) if match["port"] else DEFAULT_TLS_PORT if tls else DEFAULT_PORT
    if not 0 < port < 65536:
        raise AddressError(f"{where}: port {port} does not exist", "ports go from 1 to 65535")
    login, _, passcode = userinfo.partition(":") if at else ("", "", "")
    login, passcode = unquote(login), unquote(passcode)
    if _CONTROL.search(login) or re.search(r"[\x00\r\n]", passcode):
        raise AddressError(f"{where}: login or passcode holds a control character", "remove it")
    host = match["v6"] or match["name"]
    if match["zone"]:
        host += f"%{match['zone']}"
    return Broker(host=host, port=port, tls=tls, login=login, passcode=passcode)


def _boolean(value: str) -> bool:
    try:
        return {"true": True, "false": False}[value.lower()]
    except KeyError:
        raise ValueError("true or false") from None


#: The longest pause, in milliseconds, that is no pause worth the name: a whole number up to it is in seconds.
_NO_PAUSE: Final = 300
#: The longest time in seconds that anybody means: a greater number is in milliseconds.
_LONGEST: Final = 3600


class _Doubt(Exception):
    """A value that counts although it is not written as it should be, and what to write."""

    def __init__(self, value: object, why: str) -> None:
        super().__init__(why)
        self.value = value


def _delay(value: str) -> float:
    """Return seconds. With a decimal point it is seconds already, as the original's own settings write it (`0.01`)."""
    if re.fullmatch(r"[0-9]{1,6}\.[0-9]{1,6}", value):
        seconds = float(value)
        if seconds > _LONGEST:
            raise _Doubt(seconds / 1000, f"is taken for milliseconds: write {seconds:.0f}")
    elif re.fullmatch(r"[0-9]{1,9}", value):
        seconds = int(value) / 1000
    else:
        raise ValueError("whole milliseconds, or seconds with a decimal point")
    if not seconds:
        raise _Doubt(None, "has no effect: attempts never follow each other without a pause")
    return seconds


def _longest_delay(value: str) -> float:
    if re.fullmatch(r"[0-9]{1,3}", value) and 0 < int(value) <= _NO_PAUSE:
        raise _Doubt(float(value), f"is taken for {int(value)} seconds: write {int(value)}000 or {int(value)}.0")
    return _delay(value)


def _seconds(value: str) -> float:
    if re.fullmatch(r"-1|0{1,6}(?:\.0{1,6})?", value):
        raise _Doubt(None, "has no effect: an attempt to connect never waits for ever")
    if not re.fullmatch(r"[0-9]{1,6}(?:\.[0-9]{1,6})?", value):
        raise ValueError("seconds, more than 0")
    seconds = float(value)
    if seconds > _LONGEST:
        raise _Doubt(seconds / 1000, f"is taken for milliseconds: write {seconds / 1000:g}")
    return seconds


def _factor(value: str) -> float:
    if not re.fullmatch(r"[0-9]{1,3}(?:\.[0-9]{1,3})?", value) or float(value) < 1:
        raise ValueError("a number from 1 up")
    return float(value)


#: Lower-case option -> (field of Address, parser). The names and units are the gem's and ActiveMQ's.
_OPTIONS: Final[Mapping[str, tuple[str, Callable[[str], object]]]] = {
    "randomize": ("randomize", _boolean),
    "initialreconnectdelay": ("backoff_initial", _delay),
    "maxreconnectdelay": ("backoff_max", _longest_delay),
    "backoffmultiplier": ("backoff_multiplier", _factor),
    "timeout": ("connect_timeout", _seconds),
    "connecttimeout": ("connect_timeout", _seconds),
}
#: Options of the gem and of ActiveMQ that mean nothing here, with the reason.
_DECLINED: Final[Mapping[str, str]] = {
    "maxreconnectattempts": "the bus goes on trying until it is closed",
    "useexponentialbackoff": "the back-off is always exponential, with jitter",
    "backup": "one connection at a time",
    "reliable": "the bus is always reliable",
}
#: Their values that ask for just that. For the gem, 0 attempts are as many as it takes.
_AS_WE_DO: Final[Mapping[str, tuple[str, ...]]] = {
    "maxreconnectattempts": ("0", "-1"),
    "useexponentialbackoff": ("true",),
    "backup": ("false",),
    "reliable": ("true",),
}


def _options(query: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    if "@" in query:
        # A passcode with a question mark in it: it must not be shown, and what stands before it is not the host.
        raise AddressError("there is an @ after the address's ?", "write ? in a login or passcode as %3F")
    found: dict[str, Any] = {}
    warnings = []
    for item in filter(None, query.split("&")):
        name, _, value = item.partition("=")
        shown = ascii(unquote(name)[:40])[1:-1]
        key, value = unquote(name).strip().lower(), unquote(value).strip()
        if value.lower() in _AS_WE_DO.get(key, ()):
            continue
        if key in _DECLINED:
            warnings.append(f"address option {shown} has no effect: {_DECLINED[key]}")
        elif key not in _OPTIONS:
            warnings.append(f"address option {shown} is not known and has no effect")
        else:
            field, parse = _OPTIONS[key]
            try:
                found[field] = parse(value)
            except _Doubt as doubt:
                found[field] = doubt.value
                warnings.append(f"address option {shown} {doubt}")
            except ValueError as error:
                raise AddressError(f"address option {shown} is not understood", f"expected {error}") from None
    return found, tuple(warnings)
