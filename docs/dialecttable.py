"""The table of docs/brokers.md, made from the dialects: `python docs/dialecttable.py` prints it."""

from __future__ import annotations

from collections.abc import Mapping

from deploykit.bus.stomp.compile import SubscriptionSpec, settlement
from deploykit.bus.stomp.dialect import DIALECTS, Dialect
from deploykit.errors import DialectError


def markdown_table() -> str:
    """Return the table of docs/brokers.md."""
    rows: list[tuple[str, list[str]]] = [
        ("verified on", [d.verified or "documentation only" for d in DIALECTS]),
        ("destinations", [" ".join(f"`{p}`" for p in d.prefixes) or "any" for d in DIALECTS]),
        ("all topics below a name", [f"`/topic/NAME.{d.below}`" if d.below else "no" for d in DIALECTS]),
        ("durable topic subscription", [_headers(d.durable) if d.durable else "refused" for d in DIALECTS]),
        ("needs `client_id` for it", [_yes(d.client_id) for d in DIALECTS]),
        ("`prefetch=`", [_prefetch(d) for d in DIALECTS]),
        ("`ttl=`", [f"`{d.ttl[0]}` ({d.ttl[1]}, ms)" if d.ttl else "refused" for d in DIALECTS]),
        ("`persistent=`", [_headers(d.persistent) for d in DIALECTS]),
        ("`selector=`", ["honoured" if d.selectors else "refused" for d in DIALECTS]),
        ("NACK", [d.nack for d in DIALECTS]),
        ('`on_failure="dead-letter"`', ["copy, receipt, ACK"] * len(DIALECTS)),
        ('`on_failure="requeue"` on a queue', [_requeue(d, "/queue/q") for d in DIALECTS]),
        ('`on_failure="requeue"` on a topic', [_requeue(d, "/topic/t") for d in DIALECTS]),
        ("headers escaped on 1.0", [_yes(any(d.escapes_always)) for d in DIALECTS]),
        ("`/` in a name", ["`%2F`" if d.encode_slash else "as it is" for d in DIALECTS]),
        ("a receipt for a SEND says", [d.receipt for d in DIALECTS]),
    ]
    lines = [
        "| | " + " | ".join(d.title for d in DIALECTS) + " |",
        "|---" * (len(DIALECTS) + 1) + "|",
        *("| " + " | ".join([name, *cells]) + " |" for name, cells in rows),
    ]
    return "\n".join(lines) + "\n"


def _headers(headers: Mapping[str, str]) -> str:
    return " ".join(f"`{key}:{value.format(name='NAME', topic='TOPIC')}`" for key, value in headers.items())


def _prefetch(dialect: Dialect) -> str:
    if dialect.prefetch:
        return f"`{dialect.prefetch}`"
    return f"a connection for each subscription{f', `{dialect.window}`' if dialect.window else ''}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _requeue(dialect: Dialect, destination: str) -> str:
    try:
        how = settlement(dialect, SubscriptionSpec(destination=destination, id="", on_failure="requeue"))
    except DialectError:
        return "refused"
    return {"nack": "NACK", "republish": "sent again, then ACK"}.get(how, how)


if __name__ == "__main__":
    print(markdown_table(), end="")
