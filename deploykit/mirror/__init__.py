"""Full local copies of repositories: fast, checked, and never further than the origin itself is.

with Mirror.open("/var/lib/deploykit/mirrors/site.git", "https://git.example.net/site.git") as mirror:
    result = mirror.fetch()
"""

from __future__ import annotations

from deploykit.mirror.checking import CheckReport
from deploykit.mirror.mirror import Mirror
from deploykit.mirror.model import FetchResult, Progress, RefChange, Refusal, Resolved

__all__ = ["CheckReport", "FetchResult", "Mirror", "Progress", "RefChange", "Refusal", "Resolved"]
