"""The packages of the extra `web`, which may be missing: then an error says how to get them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from deploykit.errors import UsageError

#: Packages that only the extra brings.
WEB_PACKAGES: Final = frozenset({"alembic", "anyio", "jinja2", "sqlalchemy", "starlette", "uvicorn"})


@contextmanager
def needs_web_extra() -> Iterator[None]:
    """Import modules of `web` in this block.

    Raises:
        UsageError: a package of the extra is missing; the text says how to install it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in WEB_PACKAGES:
            raise
        raise UsageError(f"the package {package} is missing", "pip install 'deploykit[web]'") from error
