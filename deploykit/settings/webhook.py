"""Webhooks of forges: where they arrive, how each is verified, which repositories they may speak of. `[webhook]`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal

import attrs

from deploykit.errors import UsageError
from deploykit.names import RepoName
from deploykit.settings.problems import below, not_a_time, too_large, too_small
from deploykit.settings.service import parse_listen_address

Forge = Literal["github", "gitlab", "gitea", "forgejo", "gogs", "bitbucket", "bitbucket-dc", "azure", "generic"]
#: Most bytes of a body that `max_body` may allow: what the largest sender sends.
LARGEST_BODY: Final = 25 << 20
#: Characters of a source's name: it is part of the source of messages.
_MOST_NAME: Final = 100
_PATH: Final = re.compile(r"/[A-Za-z0-9._~-]+(?:/[A-Za-z0-9._~-]+)*\Z").match
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z").match


@attrs.frozen(kw_only=True, slots=True)
class GenericMapping:
    """Where a sender of kind `generic` has what: paths in its JSON body, `project.path`, `changes.0.ref`.

    Args:
        repository, ref, new: of what was pushed.
        old, pusher, delivery: may be absent: the old id is then zeros, and the body's hash names the delivery.
    """

    repository: str = "repository"
    ref: str = "ref"
    old: str = "old"
    new: str = "new"
    pusher: str = "pusher"
    delivery: str = "id"


@attrs.frozen(kw_only=True, slots=True)
class WebhookSourceSettings:
    """One sender, `[webhook.sources.NAME]`.

    Args:
        forge: what sends; never guessed from headers.
        secret_files: the secret, or the new and the old one while it is changed; each in one line, mode 0600 or 0640.
            GitLab's `whsec_…` is a signing token, any other its plain token. Azure's is `USER:PASSWORD` of Basic
            authentication, or the value of `header`.
        path: where it arrives; empty: `/hook/NAME`.
        repositories: the forge's name (`group/name`) to ours; of others nothing is published.
        refs: patterns of the refs that are published; `*` also crosses `/`.
        header: of `generic`: carries `sha256=HEX` or the hex digits alone; of `azure`: carries the secret itself,
            instead of Basic authentication. Others have their own.
        mapping: of `generic`.
    """

    forge: Forge
    secret_files: tuple[Path, ...]
    path: str = ""
    repositories: Mapping[str, RepoName] = attrs.field(factory=dict)
    refs: tuple[str, ...] = ("refs/heads/*", "refs/tags/*")
    header: str = ""
    mapping: GenericMapping = attrs.field(factory=GenericMapping)

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong, one line each; empty when all is well."""
        return tuple(self._problems())

    def _problems(self) -> Iterator[str]:
        if not 1 <= len(self.secret_files) <= 2:
            yield "secret_files: expected one file, or the new and the old one: nothing is taken without a secret"
        if self.path and not _PATH(self.path):
            yield f"path: expected /hook/NAME, not {self.path[:60]!a}"
        if not self.refs:
            yield 'refs: expected patterns of refs, e.g. "refs/heads/*"'
        if self.header and self.forge not in ("generic", "azure"):
            yield f"header: {self.forge} has its own"
        if self.header and not _HEADER(self.header):
            yield "header: not the name of a header"
        if self.forge == "generic" and not self.header:
            yield "header: which header carries the HMAC?"
        if not self.repositories:
            yield 'repositories: expected at least one, e.g. "group/name" = "name"'


@attrs.frozen(kw_only=True, slots=True)
class WebhookSettings:
    """The webhook receiver. It puts messages into `outbox.path`.

    Args:
        listen: `HOST:PORT`, `[HOST]:PORT` or `unix:/PATH` (mode 0660); behind a proxy that speaks TLS.
        max_body: bytes of the longest body; at most 25 MiB.
        deadline: seconds for a whole request to arrive.
        remember: seconds for which a delivery is remembered, so that a copy of it publishes nothing.
        notices: also publish one line for people about each event.
        legacy: write the original's text bodies.
        sources: senders, by name.
    """

    listen: str = "127.0.0.1:8471"
    max_body: int = 5 << 20
    deadline: float = 5.0
    remember: float = 30 * 86400.0
    notices: bool = True
    legacy: bool = False
    sources: Mapping[str, WebhookSourceSettings] = attrs.field(factory=dict)

    def path_of(self, name: str) -> str:
        """Return where a source's requests arrive."""
        return self.sources[name].path or f"/hook/{name}"

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong, one line each; empty when all is well."""
        return tuple(self._problems())

    def _problems(self) -> Iterator[str]:
        yield from too_small(self, {"max_body": 1024, "remember": 3600})
        yield from too_large(self, {"max_body": LARGEST_BODY, "deadline": 60})
        yield from not_a_time(self, ("deadline", "remember"))
        try:
            parse_listen_address(self.listen)
        except UsageError as error:
            yield f"listen: {error}"
        paths: dict[str, str] = {}
        for name, source in self.sources.items():
            if not _PATH(f"/{name}") or len(name) > _MOST_NAME:
                yield f"sources: {name[:60]!a} is no name for a source"
            yield from below(f"sources.{name}", source.problems())
            other = paths.setdefault(self.path_of(name), name)
            if other != name:
                yield f"sources.{name}.path: source {other} has it already"


__all__ = ["LARGEST_BODY", "Forge", "GenericMapping", "WebhookSettings", "WebhookSourceSettings"]
