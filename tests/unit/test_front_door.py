"""`import deploykit`: what embedding programs need is there, once, and cheap until it is used."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import deploykit
from deploykit import errors, messages
from deploykit.bus import events, verdicts


def classes_of(module: object, root: type) -> set[str]:
    """The names of the public classes of a module that are `root` or derive from it."""
    found = inspect.getmembers(module, inspect.isclass)
    return {name for name, cls in found if issubclass(cls, root) and not name.startswith("_")}


@pytest.mark.parametrize("name", deploykit.__all__)
def test_every_public_name_is_there(name: str) -> None:
    found = getattr(deploykit, name)
    assert not isinstance(found, type) or found.__name__ == name


def test_no_public_name_stands_twice() -> None:
    assert len(set(deploykit.__all__)) == len(deploykit.__all__)
    assert set(deploykit.__all__) == {*deploykit._HOLDER, "__version__"}


@pytest.mark.parametrize(
    "names",
    [
        classes_of(errors, errors.DeploykitError),
        {cls.__name__ for cls in messages.BY_TYPE.values()},
        classes_of(events, events.Event),
        classes_of(verdicts, verdicts.Verdict),
    ],
    ids=["errors", "messages", "events", "verdicts"],
)
def test_all_of_a_kind_are_public(names: set[str]) -> None:
    assert len(names) > 3
    assert names <= set(deploykit.__all__)


def test_the_names_of_its_kinds_do_not_meet() -> None:
    kinds = [
        classes_of(errors, errors.DeploykitError),
        {cls.__name__ for cls in messages.BY_TYPE.values()},
        classes_of(events, events.Event),
        classes_of(verdicts, verdicts.Verdict),
    ]
    assert len(set().union(*kinds)) == sum(map(len, kinds))


def test_an_unknown_name_is_named() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Buss'"):
        deploykit.Buss  # noqa: B018


def test_a_name_loads_only_what_it_needs() -> None:
    code = (
        "import sys; from deploykit import BusSettings, TopicMap, DeploykitError, RefUpdated, Frame, Outbox; "
        "print(*sorted({m.split('.')[0] for m in sys.modules} & {'stomp', 'dulwich', 'cattrs', 'click', 'asyncio'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
