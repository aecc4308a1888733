"""Build results: how long a node remembers them."""

from __future__ import annotations

import attrs

from deploykit.settings.problems import not_a_time


@attrs.frozen(kw_only=True, slots=True)
class BuildsSettings:
    """What a node keeps of builds.

    Args:
        remember: seconds for which a signed result counts and is kept, from the time that stands in it.
    """

    remember: float = 90 * 86400.0

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong, one line each; empty when all is well."""
        return tuple(not_a_time(self, ("remember",)))
