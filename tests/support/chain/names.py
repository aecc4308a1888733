"""Topics that no other test uses: brokers are shared, and the durable subscriptions of agents go by names."""

from __future__ import annotations

import json

import attrs

from deploykit.messages.topics import TopicMap


def own_topics(name: str) -> TopicMap:
    """Return topics whose names begin with a name."""
    return TopicMap(
        **{  # type: ignore[arg-type]  # all of these are text
            field.name: f"/topic/{name}.{field.name}"
            for field in attrs.fields(TopicMap)
            if field.type in ("str", str) and not field.name.startswith("build_")
        }
    )


def topics_table(topics: TopicMap) -> str:
    """Return the `[topics]` table of a settings file."""
    lines = (f"{name} = {json.dumps(value)}\n" for name, value in attrs.asdict(topics).items() if value)
    return "[topics]\n" + "".join(lines)
