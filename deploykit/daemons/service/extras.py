"""Modules that need an extra of the package: where it is not installed, an error says what to install."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Final

from deploykit.errors import UsageError

#: What each extra brings, by the names under which it is imported.
_BROUGHT: Final = {
    "web": (
        "alembic", "authlib", "bcrypt", "httpx", "jinja2", "joserfc", "sqlalchemy", "starlette", "uvicorn", "webauthn",
    )
}  # fmt: skip


@contextmanager
def needing_extra(extra: str) -> Iterator[None]:
    """Report a module that cannot be imported here because an extra is not installed.

    Args:
        extra: its name, `web`.

    Raises:
        UsageError: it is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _BROUGHT[extra]:
            raise
        raise UsageError(
            f"{missing} is not installed: this needs the extra {extra}", f"pip install 'deploykit[{extra}]'"
        ) from None


def import_with_extra(module: str, extra: str) -> ModuleType:
    """Return a module of ours that may need an extra (empty: none).

    Raises:
        UsageError: the extra is not installed.
    """
    if not extra:
        return importlib.import_module(module)
    with needing_extra(extra):
        return importlib.import_module(module)


__all__ = ["import_with_extra", "needing_extra"]
