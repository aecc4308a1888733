"""Every error deploykit raises, from one root, a family per package.

Each class says what the caller should do about it. The text of an error names the thing that is wrong and,
where there is one, the way out; it never carries a passcode, a password, a key or a message body.
"""

from __future__ import annotations

from typing import ClassVar


class DeploykitError(Exception):
    """The root. Catch it to catch everything deploykit raises on purpose; anything else is a bug.

    Args:
        problem: what is wrong, naming the thing.
        remedy: what the reader can do about it; may be empty.
    """

    #: Exit code of the command line: 1 failed, 2 wrong usage or settings, 3 refused by policy.
    exit_code: ClassVar[int] = 1

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem} ({self.remedy})" if self.remedy else self.problem


class _SeveralProblems(DeploykitError):
    """What may be wrong in several places. `problems` has them all; where none are given it has `problem` alone."""

    def __init__(self, problem: str, remedy: str = "", *, problems: tuple[str, ...] = ()) -> None:
        super().__init__(problem, remedy)
        self.problems = problems or (problem,)


class _Damaged(DeploykitError):
    """Files of a repository are damaged or missing. `repository` is its directory, empty where that is not known."""

    def __init__(self, problem: str, remedy: str = "", *, repository: str = "") -> None:
        super().__init__(problem, remedy)
        self.repository = repository


# -- names, settings, messages and their wire ----------------------------------------------------------------------


class InvalidName(DeploykitError, ValueError):
    """A repository, ref, object id, node or site name is not acceptable. Drop the input it came from."""

    exit_code = 2


class SettingsError(_SeveralProblems):
    """The settings are wrong. `problems` has everything that is wrong, with its path; correct the file, start again."""

    exit_code = 2


class UsageError(_SeveralProblems):
    """The command or call was given something it cannot work with. Correct what is in `problems`."""

    exit_code = 2


class SelectorError(UsageError):
    """A text is not a selector of nodes. Correct it; `position` says where.

    Args:
        position: of the first character that is wrong, from 0; the length of the text where something is missing.
    """

    def __init__(self, problem: str, remedy: str = "", *, problems: tuple[str, ...] = (), position: int = 0) -> None:
        super().__init__(problem, remedy, problems=problems)
        self.position = position


class MessageError(_SeveralProblems):
    """Bytes are not a message we accept. Never retry: reject (dead-letter) them, they will not get better.

    `problems` has everything that is wrong, each with its path inside the message.
    """


class SignatureError(MessageError):
    """A signature is missing, wrong, or from a key that is not allowed. Do not act; report it."""

    exit_code = 3


class KeyNotTrusted(SignatureError):
    """A signature is by a key that is revoked, not among the allowed signers, or past its time. Do not act."""


class SignatureNotEnough(SignatureError):
    """A good signature by a security key or passkey does not show what the settings ask for. Do not act; sign again."""


class PolicyRefused(DeploykitError):
    """A genuine message asks for what its sender may not do, or comes too late, or for somebody else. Do not act."""

    exit_code = 3


class NotAddressed(PolicyRefused):
    """A genuine message is for other nodes. Ignore it; that is no offence, a topic reaches everybody."""


class KeyFileError(_SeveralProblems):
    """A key or allowed_signers file cannot be used. Correct the file (format, passphrase, file mode).

    `problems` has everything that is wrong, each with its line.
    """

    exit_code = 2


class WrongPassphrase(KeyFileError):
    """A private key file did not open: its passphrase is wrong, or the file is damaged. Give the right one."""


class KeyUnavailable(KeyFileError):
    """A key that an ssh-agent or a security key holds did not sign. Make it available (`ssh-add`, touch), repeat."""

    exit_code = 1


# -- facts, outbox, ids, audit ---------------------------------------------------------------------------------------


class FactsError(DeploykitError):
    """A source of facts or classes cannot be used. Correct the file or program; the other sources count meanwhile."""


class OutboxError(DeploykitError):
    """The spool cannot take or give a record. Nothing was queued; free the disk or correct the directory's mode."""


class IdStoreError(DeploykitError):
    """The store of handled ids cannot be read or written. Do not act on commands until it can."""


class IdForgotten(IdStoreError):
    """An id is so old that its message may be a replay. Refuse the message; trying again does not help."""


class RolloutMemoryError(DeploykitError):
    """A node cannot read or write what it knows of rollouts. It obeys no command of a rollout until it can."""


class LockStoreError(DeploykitError):
    """A node cannot read or write what it knows of the locks of its sites. Correct owner or mode, or free the disk."""


class AuditError(DeploykitError):
    """The audit log cannot be written or read. Do not act on what is allowed until it can; what is denied stays so."""


class BuildStoreError(DeploykitError):
    """The store of build results cannot be read or written. Correct its owner or mode, free the disk, or move it away:
    results come again with the next builds, and with commands that carry them."""


# -- bus -------------------------------------------------------------------------------------------------------------


class BusError(DeploykitError):
    """Something on the way to or from the broker failed. Keep the message (outbox) and try again later."""


class AddressError(BusError, ValueError):
    """A broker address is not understood. Correct it; the text names the part."""

    exit_code = 2


class ConnectError(BusError):
    """No broker of the list could be reached or would talk. The supervisor goes on trying; check the address."""


class LoginRefused(ConnectError):
    """The broker refused login, passcode or virtual host. Correct the credentials; while a broker still loads its
    users, trying again helps (`login_retry`)."""


class ClientIdInUse(ConnectError):
    """Another connection holds our client_id: a second process of the same name, or one of ours that has just died."""


class PublishError(BusError):
    """The broker did not confirm a message in time, or refused it. It may or may not have arrived: send it again."""


class WindowFull(PublishError):
    """Too many messages wait for receipts; this one was not sent. Use `publish(timeout=)`, which waits for room, or try
    again when one of the futures has ended."""


class PublishRefused(PublishError):
    """The broker refused this very message. Sending the same again does not help: set it aside and look at it."""


class Unsendable(PublishRefused):
    """This message cannot go to such a broker, and was not sent. Correct it where it is made."""


class PublishManyFailed(PublishError):
    """Some of many messages are not confirmed. `outcomes` has one entry for each that was read, None if it arrived."""

    def __init__(self, problem: str, remedy: str = "", *, outcomes: tuple[BusError | None, ...] = ()) -> None:
        super().__init__(problem, remedy)
        self.outcomes = outcomes


class BusClosed(BusError):
    """The bus was stopped. Start a new one."""


class DialectError(BusError):
    """The broker cannot do what was asked without losing data. Ask for something it can, or use another broker."""

    exit_code = 2


# -- fleet, embedded broker ------------------------------------------------------------------------------------------


class RolloutError(DeploykitError):
    """A rollout cannot be begun, continued or read. The text names its journal and the way out; nothing was sent."""


class JournalDamaged(RolloutError):
    """A line of a rollout's journal is no record. Keep the file; the text names the line, and how to go on without."""


class RolloutBusy(RolloutError):
    """Another process coordinates a rollout of this site. The text says who it is, and how to follow or abort it."""


class NobodyMatches(DeploykitError):
    """No node matches, so nobody was addressed. Look at `deploykit nodes`, and correct what chooses."""


class FrameError(DeploykitError):
    """A peer sent bytes that are not STOMP, or more than the limits allow. Close the connection."""


class BrokerError(DeploykitError):
    """The embedded broker cannot go on (its disk, its thread). Nothing unconfirmed was kept; start it again."""


# -- mirrors, trees, releases ----------------------------------------------------------------------------------------


class MirrorError(DeploykitError):
    """A mirror cannot do what was asked; it holds what it held before."""


class OriginError(MirrorError):
    """The origin cannot be reached, refused us, or broke off. Try again later; check the URL and credentials."""


class PackError(OriginError):
    """The bytes an origin sent are not a sound pack, or do not hold together. Nothing of them is kept; look at it."""


class DeadlineExceeded(OriginError):
    """The origin did not answer within the deadline. Nothing changed; try again later."""


class RefNotFound(MirrorError):
    """The mirror has no such ref, tag or commit. Fetch first, or check the name."""


class SubmoduleMissing(MirrorError):
    """A submodule's commit is in no mirror here. Name its repository in the settings, or fetch it."""


class LfsMissing(MirrorError):
    """Objects of Git LFS that a tree needs are not in the mirrors of `repos` ("": its own). Fetch, or push them."""

    def __init__(self, problem: str, remedy: str = "", *, repos: tuple[str, ...] = ()) -> None:
        super().__init__(problem, remedy)
        self.repos = repos


class RefRefused(MirrorError):
    """A policy of this mirror forbids the change the origin shows. Look at the origin, or change the policy."""

    exit_code = 3


class MirrorCorrupt(MirrorError, _Damaged):
    """The mirror's own files are damaged or objects are missing. Run `deploykit mirror check`."""


class LockBusy(DeploykitError):
    """Another process holds the lock. Wait for it, or ask with a longer time-out; no unlock command is needed."""


class TreeError(DeploykitError):
    """A git tree holds entries that must not or cannot be written. The target was not touched; fix the repository."""


class TreeDamaged(TreeError, _Damaged):
    """An object of the tree is missing or damaged in the mirror. Clone the mirror anew; the repository may be sound."""


class CheckoutError(DeploykitError):
    """A directory of a ref cannot be updated; it keeps its old content. Free the disk or repair the mirror."""


class ReleaseError(DeploykitError):
    """A release step failed. The live release is whole: either the old one, or the new one."""


class ScriptFailed(ReleaseError):
    """A deploy script ended with an error or ran out of time. Read its output in the release's record."""


class PreflightRefused(ReleaseError):
    """A check before the first change failed; nothing was touched. The text names what to correct."""


# -- hooks, daemons, demo --------------------------------------------------------------------------------------------


class InstallError(DeploykitError):
    """A hook cannot be installed or removed there. Nothing was changed; the text names the obstacle."""


class HookError(DeploykitError):
    """A hook could not find out what happened, or queue it. The push or commit stands; correct what the text names."""


class BuildServerError(DeploykitError):
    """A build server does not answer, or not with what was asked for. Try again later; the text names the server."""


class MayNotLook(BuildServerError):
    """A build server does not show whether it has a build. Looking again does not help; give the user more rights."""


class BuildQueueError(DeploykitError):
    """The file of builds to ask for cannot be read or written. Free the disk, or correct its owner and mode."""


class ServiceFailed(DeploykitError):
    """A daemon, or one of several in a process, cannot go on, so all end. Read the log; start the process again."""


class WebError(DeploykitError):
    """The console or the webhook receiver cannot serve: its address, its database, a file. Correct what it names."""


class WebhookRefused(WebError):
    """A webhook request is not taken; nothing was published. `status` is the answer's; the sender may correct it."""

    def __init__(self, problem: str, remedy: str = "", *, status: int = 400) -> None:
        super().__init__(problem, remedy)
        self.status = status


class ActionRefused(WebError):
    """Somebody may not do what they ask of the console, or it cannot be done now; nothing was done.

    `status` is the answer's: 403, 404 no such thing, 409 not now, 422 it makes no sense; `problems` are by field.
    """

    def __init__(self, problem: str, remedy: str = "", *, status: int = 403, **problems: str) -> None:
        super().__init__(problem, remedy)
        self.status, self.problems = status, problems


class ProjectionError(WebError):
    """The console's database cannot be used. It holds nothing that cannot be rebuilt: move it away, start again."""


class LedgerError(WebError):
    """What the console must not lose cannot be read or written: its ledger. Mend the database; nothing was done."""


class AccessError(DeploykitError):
    """An access file or its server's configuration cannot be used. It is as it was; correct what the text names."""


class PackageError(DeploykitError):
    """The package manager cannot be asked, or does not answer. Nothing was changed; run its command by hand."""


class ConsoleUnreachable(DeploykitError):
    """A web console gave no answer. What was asked may have been done: look. Asked again, it is done once."""


class DemoFailed(DeploykitError):
    """A claim of the demo did not hold. Keep the directory (`--keep`) and read the logs it names."""
