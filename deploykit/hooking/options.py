"""The few options of the hooks that people call themselves. No argparse: it takes as long as the rest of the script."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from deploykit.errors import HookError
from deploykit.settings.hooks import SYSTEM_FILE


class Words(NamedTuple):
    """The parsed arguments: the settings file, and the other words."""

    config: str
    rest: tuple[str, ...]


def parse_words(argv: Sequence[str], usage: str) -> Words:
    """Parse `--config FILE` and the other words.

    Raises:
        HookError: the option has no value, or the file does not exist. (With other settings than those asked for, the
            event would go elsewhere, and unsigned.)
    """
    given = False
    config, rest = SYSTEM_FILE, list[str]()
    words = iter(argv)
    for word in words:
        if word == "--config":
            config, given = next(words, ""), True
        elif word.startswith("--config="):
            config, given = word.partition("=")[2], True
        else:
            rest.append(word)
    if not config.startswith("/"):
        raise HookError("--config needs an absolute path", f"usage: {usage}")
    if given and not os.path.exists(config):
        raise HookError(f"no such file: {config}", "correct --config")
    return Words(config, tuple(rest))
