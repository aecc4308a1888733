"""stomp-access.yaml: the daemon that wrote password files of nginx and haproxy -> `[access.sites.NAME]`."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Final

from deploykit.config.migrate.broker import CONNECTOR_ROWS, put_broker
from deploykit.config.migrate.model import Kind, MigrationDraft, OldFile, Place, Row
from deploykit.config.migrate.naming import absolute_path, site_name_of
from deploykit.config.migrate.oldtable import OldTable
from deploykit.config.migrate.topics import put_topic
from deploykit.errors import InvalidName

_USERS: Final = (
    "its hashes are `*0`, so nobody could log in by them; grant anew whoever needs it: deploykit access grant USER SITE"
)
ROWS: Final = (
    *CONNECTOR_ROWS,
    Row(old="listen-topic", new="topics.access"),
    Row(old="report-topic", new="topics.notices.access"),
    Row(old="sites.NAME", new="access.sites.NAME", note="blanks become dashes; the old name stays as `label`"),
    Row(old="sites.NAME.type", new="access.sites.NAME.kind", note="nginx: `htpasswd`"),
    Row(old="sites.NAME.file", new="access.sites.NAME.file", note="haproxy: `userlist` is the file's name, as it was"),
    Row(old="sites.NAME.users", note=_USERS),
)
_KINDS: Final = {"nginx": "htpasswd", "haproxy": "haproxy"}
_HAPROXY: Final = """\
the original reloaded haproxy after each grant. With the paths of this machine:
test = ["/usr/sbin/haproxy", "-c", "-q", "-f", "/etc/haproxy/haproxy.cfg", "-f", {file}]
reload = ["/bin/systemctl", "reload", "haproxy"]
master = "/run/haproxy-master.sock"      # haproxy -W -S PATH: says whether a reload was carried out"""


def _fits(file: OldFile) -> bool:
    return {"sites", "listen-topic"} <= file.data.keys() and "repo-list" not in file.data


def _convert(file: OldFile, draft: MigrationDraft) -> None:
    table = OldTable.of(file, draft, ROWS)
    put_broker(table)
    put_topic(table, "listen-topic", "access")
    put_topic(table, "report-topic", "notices", "access")
    for name, site in table.tables("sites"):
        _convert_site(name, site)
    table.finish()
    draft.warn(
        "access: grants are signed commands now: set signing_key and [trust] (docs/access.md). The original's form, "
        "which sends passwords in clear and signs nothing, is obeyed only with access.legacy = true: for as long as "
        "it is needed"
    )


def _convert_site(name: str, site: OldTable) -> None:
    old_kind = site.text("type")
    if old_kind is None or old_kind not in _KINDS:
        site.lose_whole("its type is neither nginx nor haproxy; the original wrote nothing for it either")
        return
    path = absolute_path(site, "file")
    try:
        new = site_name_of(name)
    except InvalidName as error:
        site.lose_whole(str(error))
        return
    if path is None:
        site.lose_whole("has no file to write: set access.sites.NAME.file by hand")
        return
    other = site.draft.taken.setdefault(("access", path), new)
    if other != new:
        site.lose_whole(f"its file is that of {other}, too: who may see the one could see the other")
        return
    place: Place = ("access", "sites", str(new))
    site.put("file", (*place, "file"), path)
    site.put("type", (*place, "kind"), _KINDS[old_kind])
    if old_kind == "haproxy":
        site.put("file", (*place, "userlist"), PurePosixPath(path).name, _HAPROXY.format(file=json.dumps(path)))
        site.draft.warn(
            "access: haproxy reads its users at a reload only: set reload and test, which are there as comments"
        )
    if new != name:
        site.put("file", (*place, "label"), name, "as the form calls it")
    site.finish()


KIND: Final = Kind(
    name="stomp-access",
    title="password files of protected sites",
    file="stomp-access.yaml",
    fits=_fits,
    rows=ROWS,
    convert=_convert,
)
