"""Run `facter --json`: without a shell, with an environment of its own, a deadline and a bound on what it prints."""

from __future__ import annotations

import os
from time import monotonic
from typing import Final

from deploykit.errors import FactsError, HookError, MessageError
from deploykit.fleet.factsfile import MAX_FILE
from deploykit.hooking.process import NoAnswer, Program, child_environment, find_program
from deploykit.wire import strictjson

#: Seconds after which facter is killed.
DEADLINE: Final = 10.0
#: Where it is, besides our PATH: Puppet's own packages put it beside the system.
_ALSO_IN: Final = "/opt/puppetlabs/bin:/usr/local/bin:/usr/bin:/bin"


def run_facter(*, deadline: float = DEADLINE) -> dict[str, object]:
    """Return the facts that facter knows.

    Args:
        deadline: seconds.

    Raises:
        FactsError: it is not installed, failed, took too long, or printed too much or no facts.
    """
    find_facter()
    end = monotonic() + deadline
    try:
        with Program(["facter", "--json"], env=_environment(), deadline=end, stdin=b"") as program:
            found = strictjson.parse(program.output(MAX_FILE))
    except NoAnswer:
        raise FactsError(f"facter gave no answer within {deadline:g} s", "run `facter --timing` to see why") from None
    except HookError as error:
        raise FactsError(error.problem, "run `facter --json` by hand") from None
    except OSError as error:  # too few descriptors, say
        raise FactsError(f"facter cannot be run: {error.strerror}", "look at the limits of the agent") from None
    except MessageError as error:
        raise FactsError(f"facter printed no facts: {error.problem}", "run `facter --json` by hand") from None
    if not isinstance(found, dict):
        raise FactsError("facter printed no facts", "run `facter --json` by hand")
    return found


def find_facter() -> str:
    """Return the path of facter.

    Raises:
        FactsError: it is not installed.
    """
    try:
        return find_program("facter", _environment())
    except NoAnswer as error:
        raise FactsError(error.problem, "install it, or set facter = false") from None


def _environment() -> dict[str, str]:
    return child_environment({**os.environ, "PATH": f"{os.environ.get('PATH', '')}:{_ALSO_IN}"}, {})
