"""Which files say who may see a protected site, and how its server reads them. `[access]`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import attrs

from deploykit.names import SiteName
from deploykit.settings.problems import below, not_a_time, too_small

AccessKind = Literal["htpasswd", "haproxy"]


@attrs.frozen(kw_only=True, slots=True)
class AccessSiteSettings:
    """The users of one protected site, `[access.sites.NAME]`.

    Args:
        file: the password file of nginx or Apache, or the file of haproxy that holds the userlist.
        kind: `htpasswd` (nginx, Apache) or `haproxy`.
        userlist: name of the userlist in `file`; for haproxy.
        test: a command, by its words, that checks the server's configuration before `reload`; empty for none.
        reload: a command that makes the server read the file; empty where it reads it at each request, or where
            `master` is asked to.
        label: the name that the original's form sends for this site; empty for none.
        master: the UNIX socket of haproxy's master process (`haproxy -W -S PATH`), which says whether a reload was
            carried out; None: what haproxy accepts counts as done, although an old process may serve on.
    """

    file: Path
    kind: AccessKind = "htpasswd"
    userlist: str = ""
    test: tuple[str, ...] = ()
    reload: tuple[str, ...] = ()
    label: str = ""
    master: Path | None = None

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong, one line each; empty when all is well."""
        return tuple(self._problems())

    def _problems(self) -> Iterator[str]:
        if not self.file.is_absolute():
            yield f"file: expected an absolute path, not {str(self.file)!r}"
        if (self.kind == "haproxy") != bool(self.userlist):
            yield "userlist: needed for haproxy, and only there"
        if self.master is not None and (self.kind != "haproxy" or not self.master.is_absolute()):
            yield "master: expected an absolute path, and only for haproxy"
        if self.label != self.label.strip() or not self.label.isprintable():
            yield "label: expected one line without blanks around it, as the original's form sends it"
        for name, words in (("test", self.test), ("reload", self.reload)):
            if words and not words[0].startswith("/"):
                yield f"{name}: expected the full path of a program first, not {words[0][:60]!a}"


@attrs.frozen(kw_only=True, slots=True)
class AccessSettings:
    """Who may see protected sites.

    Args:
        sites: the protected sites of this node.
        default_days: how long an access lasts where nobody says it.
        longest_days: the longest that is accepted.
        legacy: obey the original's messages, which are not signed and hold a password in clear.
        gather: seconds in which further changes are waited for, so that a burst is one reload.
    """

    sites: Mapping[SiteName, AccessSiteSettings] = attrs.field(factory=dict)
    default_days: float = 14.0
    longest_days: float = 366.0
    legacy: bool = False
    gather: float = 0.5

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong, one line each; empty when all is well."""
        return tuple(self._problems())

    def _problems(self) -> Iterator[str]:
        yield from too_small(self, {"gather": 0})
        yield from not_a_time(self, ("default_days", "longest_days"), "days")
        if self.default_days > self.longest_days:
            yield f"default_days: expected at most longest_days ({self.longest_days:g}), not {self.default_days:g}"
        places: dict[tuple[Path, str], SiteName] = {}
        labels: dict[str, SiteName] = {}
        for name, site in self.sites.items():
            yield from below(f"sites.{name}", site.problems())
            first = places.setdefault((site.file, site.userlist), name)
            if first != name:
                yield f"sites.{name}.file: is that of {first}, too: who may see the one could see the other"
            if site.label and labels.setdefault(site.label, name) != name:
                yield f"sites.{name}.label: is that of {labels[site.label]}, too"
            if site.label != name and site.label in self.sites:
                yield f"sites.{name}.label: another site has that name"


__all__ = ["AccessKind", "AccessSettings", "AccessSiteSettings"]
