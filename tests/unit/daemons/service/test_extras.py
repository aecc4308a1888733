"""An extra that is not installed is named, with the command that installs it."""

from __future__ import annotations

import sys

import pytest

from deploykit.daemons.service.extras import import_with_extra, needing_extra
from deploykit.daemons.service.registry import SERVICES
from deploykit.errors import UsageError


def test_what_is_installed_is_imported() -> None:
    assert import_with_extra("deploykit.web.receiver.app", "web").make_receiver is not None
    assert import_with_extra("deploykit.names", "") is sys.modules["deploykit.names"]


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "starlette.applications", None)
    monkeypatch.delitem(sys.modules, "deploykit.web.app", raising=False)
    with pytest.raises(UsageError, match=r"pip install 'deploykit\[web\]'") as caught:
        import_with_extra("deploykit.web.app", "web")
    assert caught.value.exit_code == 2


def test_a_module_of_ours_that_is_missing_is_a_bug_and_not_an_extra() -> None:
    with pytest.raises(ModuleNotFoundError, match="nowhere"), needing_extra("web"):
        import_with_extra("deploykit.nowhere", "")


def test_the_receiver_says_that_it_needs_the_extra() -> None:
    assert SERVICES["webhook"].extra == "web"
