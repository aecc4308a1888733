"""The few options of the hooks that people call themselves. No argparse: it is as dear as the rest of the script."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from deploykit.errors import HookError
from deploykit.hooksettings import SYSTEM_FILE


class Words(NamedTuple):
    """What was said: the settings file, and the other words."""

    config: str
    rest: tuple[str, ...]


def parse_words(argv: Sequence[str], usage: str) -> Words:
    """Take `--config FILE` out of the arguments.

    Raises:
        HookError: an option without its value.
    """
    config, rest = SYSTEM_FILE, list[str]()
    words = iter(argv)
    for word in words:
        if word == "--config":
            config = next(words, "")
        elif word.startswith("--config="):
            config = word.partition("=")[2]
        else:
            rest.append(word)
    if not config.startswith("/"):
        raise HookError("--config needs an absolute path", f"usage: {usage}")
    return Words(config, tuple(rest))
