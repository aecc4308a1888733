"""Check every file, directory, user and program that a setting names, as the code that uses it later does.

Rules:
* One table has a check for each setting; a test compares the table with the classes, so that none is left out.
* What is loaded later is loaded here by the same function. A directory that is made when it is needed may be missing.
* Nothing is changed, and no broker and no origin is contacted.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import attrs

from deploykit.bus.certificates import tls_context
from deploykit.bus.passcode import read_passcode
from deploykit.daemons.access.accessfile import form_of
from deploykit.daemons.access.filewriter import read_file
from deploykit.daemons.access.haproxymaster import HaproxyMaster
from deploykit.daemons.agent.facter import find_facter
from deploykit.daemons.jenkins.http_kind import parse_headers
from deploykit.daemons.packages.managers import manager_of
from deploykit.daemons.relay import open_outbox
from deploykit.errors import DeploykitError, FactsError, KeyFileError, SettingsError
from deploykit.fleet.factreading import read_classes, read_facts
from deploykit.git.transport.http import tls_context_of
from deploykit.git.transport.login import read_credentials
from deploykit.httpclient.exchange import HttpServer
from deploykit.settings.access import AccessSiteSettings
from deploykit.settings.audit import AuditSettings
from deploykit.settings.buildservers import BuildServerSettings
from deploykit.settings.bus import BusSettings
from deploykit.settings.facts import CLASSES_FILES, FactsSettings
from deploykit.settings.jenkins import JobSettings
from deploykit.settings.keepalive import KeepaliveDestination
from deploykit.settings.mirror import CheckoutSettings, MirrorSettings
from deploykit.settings.node import Settings
from deploykit.settings.notify import ChannelSettings
from deploykit.settings.oidc import OidcSettings
from deploykit.settings.outbox import OutboxSettings
from deploykit.settings.packages import PackageSourceSettings, PackagesSettings
from deploykit.settings.site import NodeSiteSettings, SiteSettings
from deploykit.settings.trust import TrustSettings
from deploykit.settings.via import ViaSettings
from deploykit.settings.web import WebSettings
from deploykit.settings.webhook import WebhookSourceSettings
from deploykit.settings.webhooksecrets import check_secret
from deploykit.system.passwordfile import read_passwords
from deploykit.system.secretfile import read_secret, read_secret_text
from deploykit.system.users import AS_OWNER, find_group, parse_identity
from deploykit.trust.keyfiles import check_signer, load_allowed_signers, load_revoked_keys, load_signing_key

#: Takes a setting's value and the settings it stands in; raises for what is wrong.
FileCheck: TypeAlias = Callable[[Any, Any], object]


class _Wrong(Exception):
    """What one of the checks below found."""


def file_problems(settings: Settings) -> tuple[str, ...]:
    """Return what is wrong with what the settings name, each line with the setting's path."""
    return tuple(_walk(settings, ""))


def _walk(value: object, path: str) -> Iterator[str]:
    kind = type(value)
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _walk(item, f"{path}.{key}")
    elif isinstance(value, tuple):
        for at, item in enumerate(value):
            yield from _walk(item, f"{path}[{at}]")
    elif attrs.has(kind):
        for field in attrs.fields(kind):
            here, item = f"{path}.{field.name}".lstrip("."), getattr(value, field.name)
            check = FILE_CHECKS.get((kind, field.name))
            if check is None:
                yield from _walk(item, here)
            elif item:
                problems = (text.removeprefix(f"{field.name}: ") for text in _problems(check, item, value))
                yield from (f"{here}: {problem}" for problem in problems)


def _problems(check: FileCheck, item: object, settings: object) -> tuple[str, ...]:
    try:
        check(item, settings)
    except (KeyFileError, SettingsError) as error:
        return error.problems if len(error.problems) > 1 else (str(error),)
    except (DeploykitError, _Wrong) as error:
        return (str(error),)
    except OSError as error:
        return (f"{item}: {error.strerror}",)
    return ()


# -- checks ------------------------------------------------------------------------------------------------------------


def _text(path: Path) -> str:
    """Return the text of a regular file in UTF-8 that has a line besides comments."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise _Wrong(f"{path} is not a regular file")
    try:
        text = path.read_text()
    except UnicodeDecodeError:
        raise _Wrong(f"{path} is not text in UTF-8") from None
    if not any(line.strip() and not line.lstrip().startswith("#") for line in text.splitlines()):
        raise _Wrong(f"{path} is empty, but for comments")
    return text


def _directory(path: Path, *, missing: bool = True) -> None:
    """Check a directory that is written to; where it may be missing, the directory it would be made in."""
    try:
        found = path.stat()
    except FileNotFoundError:
        if not missing:
            raise
        above = next(parent for parent in path.absolute().parents if parent.exists())
        if not above.is_dir():
            raise _Wrong(f"{path} cannot be made: {above} is not a directory") from None
        return
    if not stat.S_ISDIR(found.st_mode):
        raise _Wrong(f"{path} is not a directory")
    if not os.access(path, os.W_OK | os.X_OK):
        raise _Wrong(f"{path} is not writable for user {os.geteuid()}")


def _spool(path: Path, settings: OutboxSettings) -> None:
    if path.exists():
        open_outbox(attrs.evolve(settings, create=False))
    else:
        _directory(path, missing=settings.create)


def _log_file(path: Path) -> None:
    """Check a file that is appended to; it is made when it is missing."""
    _directory(path.parent)
    if not path.exists():
        return
    found = path.stat(follow_symlinks=False)
    if not stat.S_ISREG(found.st_mode):
        raise _Wrong(f"{path} is not a regular file")
    if found.st_mode & 0o022:
        raise _Wrong(f"{path} can be written by other users (chmod 640 {path})")
    if not os.access(path, os.W_OK):
        raise _Wrong(f"{path} is not writable for user {os.geteuid()}")


def _group(name: str) -> None:
    if find_group(name) is None:
        raise _Wrong(f"there is no group {name!a}")


def _ssh_key(path: Path) -> None:
    _text(path)
    found = path.stat()
    if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) & 0o077:
        raise _Wrong(f"{path} has mode {stat.S_IMODE(found.st_mode):04o}: ssh would not use it (chmod 600 {path})")


def _secret(name: str) -> FileCheck:
    return lambda path, _: read_secret(path, name)


def _webhook_secrets(paths: tuple[Path, ...], source: WebhookSourceSettings) -> None:
    """Check each secret of a source: its mode, and that it can verify anything."""
    found = []
    for path in paths:
        try:
            check_secret(read_secret(path, "secret_files"), source)
        except SettingsError as error:
            text = str(error).removeprefix("secret_files: ")
            found.append(text if str(path) in text else f"{path}: {text}")
    if found:
        raise SettingsError(found[0], problems=tuple(found))


def _build_server_ca(path: Path, settings: BuildServerSettings) -> None:
    HttpServer.of("https://localhost/", ca_file=path, connect_timeout=settings.connect_timeout)


def _program(command: tuple[str, ...]) -> None:
    if shutil.which(command[0]) is None:
        raise _Wrong(f"there is no program {command[0]}")


def _facts(files: tuple[Path, ...]) -> None:
    found = []
    for file in files:
        try:
            read_facts(file)
        except FactsError as error:
            found.append(str(error))
    if found:
        raise SettingsError(found[0], problems=tuple(found))


def _classes(files: tuple[Path, ...]) -> None:
    """Check the list that would be read. Without one a node has no classes, unless the settings name a place."""
    existing = next((file for file in files if file.exists()), None)
    if existing is not None:
        read_classes(existing)
    elif files != CLASSES_FILES:
        raise _Wrong(f"{', '.join(map(str, files))}: no such file (create one, or remove the setting)")


def _signing_key(path: Path, settings: Settings) -> None:
    """Check the key. Where sites are, an agent uses it, and nobody is there to be asked for a passphrase."""
    if settings.sites:
        load_signing_key(path)
    else:
        check_signer(path)


def _access_file(path: Path, settings: AccessSiteSettings) -> None:
    """Check a file of users as the access daemon reads it, and that a new one can be written beside it."""
    form_of(settings).users(read_file(path).content)
    _directory(path.parent)


def _package_tool(_: str, settings: PackagesSettings) -> None:
    """Check that the package manager is here, where there are sources for it."""
    if settings.sources and (problem := manager_of(settings).problem()):
        raise _Wrong(problem)


def _scripts(place: str) -> None:
    if place.startswith("/") and not Path(place).is_dir():
        raise _Wrong(f"{place} is not a directory")


def _checkout(target: Path, settings: CheckoutSettings) -> None:
    if settings.mode != "normal":  # has no directory
        _directory(target.parent)


def _tls(**without: None) -> FileCheck:
    """Return a check that loads the certificates as the bus does, without the settings that have their own check."""
    return lambda _, settings: tls_context(attrs.evolve(settings, tls_verify=True, **without))


def _ignoring_settings(check: Callable[[Any], object]) -> FileCheck:
    return lambda item, _: check(item)


def _user(setting: str) -> FileCheck:
    return lambda item, _: parse_identity(item, setting)


def _run_as(user: str, _: SiteSettings) -> None:
    if user != AS_OWNER:  # the owner has its own check
        parse_identity(user, "run_as")


#: Class and field -> its check. Every field that holds a path has one.
FILE_CHECKS: Final[Mapping[tuple[type, str], FileCheck]] = {
    (AccessSiteSettings, "file"): _access_file,
    (AccessSiteSettings, "test"): _ignoring_settings(_program),
    (AccessSiteSettings, "reload"): _ignoring_settings(_program),
    (AccessSiteSettings, "master"): lambda path, _: HaproxyMaster(path).ready(),
    (AuditSettings, "path"): _ignoring_settings(_log_file),
    (BusSettings, "passcode_file"): lambda _, settings: read_passcode(settings),
    (KeepaliveDestination, "passcode_file"): lambda _, settings: read_passcode(settings),
    (BusSettings, "tls_ca"): _tls(tls_cert=None, tls_key=None),
    (BusSettings, "tls_cert"): _tls(tls_ca=None),
    (BusSettings, "tls_key"): _ignoring_settings(_text),
    (PackagesSettings, "tool"): _package_tool,
    (PackageSourceSettings, "file"): _ignoring_settings(_text),
    (OutboxSettings, "path"): _spool,
    (OutboxSettings, "group"): _ignoring_settings(_group),
    (FactsSettings, "files"): _ignoring_settings(_facts),
    (FactsSettings, "facter"): lambda _, __: find_facter(),
    (FactsSettings, "classes_files"): _ignoring_settings(_classes),
    (MirrorSettings, "ssh_key"): _ignoring_settings(_ssh_key),
    (MirrorSettings, "ssh_known_hosts"): _ignoring_settings(_text),
    (MirrorSettings, "ca_file"): lambda _, settings: tls_context_of(settings),
    (MirrorSettings, "credentials_file"): _ignoring_settings(read_credentials),
    (MirrorSettings, "credential_helper"): _ignoring_settings(_program),
    (MirrorSettings, "allowed_signers"): _ignoring_settings(_text),
    **{(BuildServerSettings, name): _secret(name) for name in ("token_file", "password_file", "secret_file")},
    (BuildServerSettings, "headers_file"): lambda path, _: parse_headers(read_secret_text(path, "headers_file")),
    (BuildServerSettings, "ca_file"): _build_server_ca,
    (JobSettings, "token_file"): _secret("token_file"),
    (WebhookSourceSettings, "secret_files"): _webhook_secrets,
    (CheckoutSettings, "target"): _checkout,
    (CheckoutSettings, "owner"): _user("owner"),
    (SiteSettings, "scripts"): _ignoring_settings(_scripts),
    (SiteSettings, "owner"): _user("owner"),
    (SiteSettings, "run_as"): _run_as,
    (NodeSiteSettings, "path"): _ignoring_settings(_directory),
    (OidcSettings, "client_secret_file"): _secret("client_secret_file"),
    (ChannelSettings, "secret_file"): _secret("secret_file"),
    (ChannelSettings, "ca_file"): _ignoring_settings(_text),
    (ViaSettings, "token_file"): _secret("token_file"),
    (ViaSettings, "ca_file"): _ignoring_settings(_text),
    (WebSettings, "password_file"): lambda path, _: read_passwords(path),
    (WebSettings, "database_password_file"): _secret("database_password_file"),
    (TrustSettings, "allowed_signers"): _ignoring_settings(load_allowed_signers),
    (TrustSettings, "revoked_keys"): _ignoring_settings(load_revoked_keys),
    (Settings, "state"): _ignoring_settings(_directory),
    (Settings, "rollouts"): _ignoring_settings(_directory),
    (Settings, "signing_key"): _signing_key,
}
