"""What a crash cut off is finished, site by site. A site that cannot be recovered does not hold up the others."""

from __future__ import annotations

import logging
import threading

from deploykit.errors import DeploykitError
from deploykit.names import SiteName
from deploykit.release import Runner, Site
from deploykit.settings.node import Settings

_log = logging.getLogger(__name__)


def recover_sites(settings: Settings, stop: threading.Event) -> dict[SiteName, str]:
    """Finish interrupted deploys until `stop` is set; return why for each site where that failed."""
    failed: dict[SiteName, str] = {}
    for name, site in settings.sites.items():
        if stop.is_set():
            break
        try:
            result = Runner(Site(site.path, site.release), node=settings.node).recover()
        except DeploykitError as error:
            _log.error("site %s: cannot finish an interrupted deploy: %s", name, error)
            failed[name] = f"cannot finish an interrupted deploy: {error}"
        except Exception as error:  # noqa: BLE001 -- a bug in one site's recovery must not cost the others theirs
            _log.exception("site %s: cannot finish an interrupted deploy", name)
            failed[name] = f"cannot finish an interrupted deploy: {type(error).__name__}: {error}"
        else:
            if result is not None:
                _log.info("site %s: finished an interrupted deploy: %s %s", name, result.outcome, result.detail)
    return failed
