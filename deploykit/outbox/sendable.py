"""The frame a record is sent as, and why some records can never be sent. Pure.

A record file need not have been written by `Outbox.put`, so the relay checks every record that it reads.
"""

from __future__ import annotations

from deploykit.errors import DialectError
from deploykit.messages.destinations import check_destination
from deploykit.outbox.record import Record
from deploykit.wire.codec import ID_HEADER
from deploykit.wire.frame import CONNECTION_HEADERS, MAX_HEADER_COUNT, MAX_HEADERS, Frame, headers_size


def frame_to_send(record: Record) -> Frame:
    """Return the record's frame with an id that is the same each time it is sent: receivers find duplicates by it."""
    if ID_HEADER in record.frame.headers:
        return record.frame
    return Frame({**record.frame.headers, ID_HEADER: record.id}, record.frame.body)


def why_unsendable(record: Record) -> str:
    """Return why no broker would take a record; empty when one may."""
    headers = record.frame.headers
    own = sorted(CONNECTION_HEADERS.intersection(headers))
    if own or "" in headers:
        return f"headers that belong to the connection: {', '.join(own) or 'one without a name'}"
    if headers_size(headers) > MAX_HEADERS or len(headers) > MAX_HEADER_COUNT:
        return f"headers of more than {MAX_HEADERS} bytes together, or more than {MAX_HEADER_COUNT}"
    try:
        check_destination(record.destination)
    except DialectError as error:
        return str(error)
    return ""
