"""A key that this process does not have: an ssh-agent holds it, or a security key. `ssh-keygen -Y sign` asks for it.

Rules:

* A process gets an allow-list of our environment, and a deadline that leaves time to touch a key.
* A key in an agent gets no terminal: an agent asks for PINs and passphrases itself.
* A key file that stands for a security key gets ours: ssh-keygen asks there for its PIN.
* What comes back is decoded, and must be by the key that was asked: files and agents may change meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import attrs

from deploykit.errors import KeyFileError, KeyUnavailable, SignatureError
from deploykit.trust.certificate import CERTIFIED_TYPES, certified_key
from deploykit.trust.certificatefile import certificate_line
from deploykit.trust.guardedfile import MAX_KEY, as_text, opened, read_bounded
from deploykit.trust.keyformat import KEY_TYPES, decode_key_text, fingerprint, key_type, public_line
from deploykit.trust.signature import BodySigner
from deploykit.trust.sshsig import NAMESPACE, dearmor, decode_blob

#: Called with a line for the person at the terminal.
Notify: TypeAlias = Callable[[str], None]

#: Seconds in which a person finds the key and touches it, or confirms at the agent.
_LIMIT: Final = 120.0
#: Seconds in which an agent lists its keys.
_LIST_LIMIT: Final = 10.0
#: Key types of security keys begin like this.
SECURITY_KEY: Final = "sk-"
_ENVIRONMENT: Final = (
    *("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "TERM", "XDG_RUNTIME_DIR"),
    *("SSH_AUTH_SOCK", "SSH_ASKPASS", "SSH_ASKPASS_REQUIRE", "SSH_SK_PROVIDER"),
    *("DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "DBUS_SESSION_BUS_ADDRESS"),  # what an askpass shows itself with
)


@attrs.frozen(kw_only=True, slots=True)
class AgentKey:
    """A public key whose private half an ssh-agent or a security key holds. It signs as a `SigningKey` does.

    Args:
        path: of the public key; or of the private key file that stands for a security key.
        public_blob: the public key in OpenSSH's wire form.
        certificate: that it signs with, as `ssh-keygen -Y sign -f KEY-cert.pub`; empty for none.
        in_agent: whether an agent holds it; else the file stands for a security key.
        notify: is shown when a person must touch the key.
        limit: seconds for one signature.
    """

    path: Path
    public_blob: bytes = attrs.field(repr=False)
    certificate: bytes = attrs.field(default=b"", repr=False)
    in_agent: bool = True
    notify: Notify | None = attrs.field(default=None, repr=False, eq=False)
    limit: float = _LIMIT

    @classmethod
    def load(cls, path: Path, *, notify: Notify | None = None) -> AgentKey:
        """Return the key of a public key file, once an agent has shown that it holds it.

        Raises:
            KeyFileError: the file is unreadable, or holds no key of a type that can sign.
            KeyUnavailable: no agent holds the key.
        """
        with opened(path, "public key") as file:
            text = as_text(path, read_bounded(path, file, MAX_KEY))
        certificate = certificate_line(path, text)
        blob = certified_key(certificate) if certificate else parse_public(path, text)
        key = cls(path=path, public_blob=blob, certificate=certificate, notify=notify)
        if problem := key.problem():
            raise KeyUnavailable(f"{key}: {problem}", key.way_out())
        return key

    @property
    def fingerprint(self) -> str:
        """The public key's SHA-256 name, as `ssh-keygen -l` prints it."""
        return fingerprint(self.public_blob)

    @property
    def needs_touch(self) -> bool:
        """Whether a person must touch the key for each signature."""
        return needs_touch(self)

    def sign_body(self, body: bytes) -> bytes:
        """Return the SSHSIG blob of a signature over the bytes. A person may have to touch the key meanwhile.

        Raises:
            KeyUnavailable: the agent or the security key did not sign.
        """
        if self.needs_touch and self.notify is not None:
            self.notify(f"touch your security key to sign ({self.path}, {self.fingerprint})")
        # Absolute: a path that begins with a dash must not be an option.
        argv = ["ssh-keygen", "-Y", "sign", "-n", NAMESPACE, "-f", os.path.abspath(self.path)]  # noqa: PTH100 -- no resolving
        code, output, errors = self._run(argv, body)
        if code:
            raise KeyUnavailable(f"{self}: {self._reason(errors)}", self.way_out())
        try:
            blob = dearmor(output.decode("ascii"))
            parts = decode_blob(blob)
            if parts.key != self.public_blob or bool(parts.certificate) != bool(self.certificate):
                raise KeyUnavailable(f"{self}: another key signed", "the file was changed meanwhile: try again")
        except (UnicodeDecodeError, SignatureError) as error:
            problem = error.problem if isinstance(error, SignatureError) else "ssh-keygen printed no signature"
            raise KeyUnavailable(f"{self}: {problem}", "ssh-keygen of OpenSSH 8.2 or newer is needed") from None
        return blob

    def problem(self) -> str:
        """Return why no agent can sign with the key now; empty where one holds it."""
        if not os.environ.get("SSH_AUTH_SOCK"):
            return "no ssh-agent runs here: SSH_AUTH_SOCK is not set"
        try:
            code, output, _ = _finished(["ssh-add", "-L"], b"", _LIST_LIMIT, own_session=True)
        except TimeoutError:
            return f"the ssh-agent does not answer within {_LIST_LIMIT:g} s"
        except OSError as error:
            return f"cannot start ssh-add: {error.strerror}"
        if code not in (0, 1):
            return "the ssh-agent is gone: nothing answers at SSH_AUTH_SOCK"
        held = [line.split()[1] for line in output.decode("ascii", "replace").splitlines() if len(line.split()) > 1]
        if self._text not in held:
            return "the ssh-agent does not hold this key, or is locked"
        return ""

    def way_out(self) -> str:
        """Return what a person can do when the key does not sign."""
        if not self.in_agent:
            return "plug it in, touch it when it blinks, and try again"
        private = self.path.with_suffix("")
        if self.path.suffix == ".pub" and private.exists():
            return f"`ssh-add {private}`, or give the private key file: {private}"
        return "add its private half to an ssh-agent: `ssh-add FILE`, and set SSH_AUTH_SOCK"

    @property
    def _text(self) -> str:
        return public_line(self.certificate or self.public_blob).split()[1]

    def _reason(self, errors: str) -> str:
        if self.in_agent and (problem := self.problem()):
            return problem
        return f"it did not sign: {errors or 'ssh-keygen gives no reason'}"

    def _run(self, argv: Sequence[str], body: bytes) -> tuple[int, bytes, str]:
        try:
            return _finished(argv, body, self.limit, own_session=self.in_agent)
        except TimeoutError:
            text = f"{self}: no signature within {self.limit:g} s"
            raise KeyUnavailable(text, "touch or confirm it in time, and try again") from None
        except OSError as error:
            raise KeyUnavailable(f"cannot start {argv[0]}: {error.strerror}", "install OpenSSH's client") from None

    def __str__(self) -> str:
        return f"key {self.path} ({self.fingerprint})"


def needs_touch(key: BodySigner) -> bool:
    """Return whether a person must touch a key for each signature, so that nothing should sign that can be left out."""
    return key_type(key.public_blob).startswith(SECURITY_KEY)


def is_public_line(data: bytes) -> bool:
    """Return whether the bytes of a file begin as a public key line does."""
    return data.startswith((b"ssh-", b"sk-", b"ecdsa-", b"webauthn-"))


def parse_public(path: Path, text: str) -> bytes:
    """Return the public key in a public key file's text.

    Raises:
        KeyFileError: not one line with a key of a type that can sign.
    """
    lines = [line for line in text.split("\n") if line.strip() and not line.startswith("#")]
    words = lines[0].split() if lines else []
    if len(lines) != 1 or len(words) < 2:
        raise KeyFileError(f"{path}: not one public key line")
    try:
        blob = decode_key_text(words[1])
    except KeyFileError as error:
        raise KeyFileError(f"{path}: {error.problem}", error.remedy) from error
    kind = key_type(blob)
    if kind != words[0] or kind not in (*KEY_TYPES, *CERTIFIED_TYPES):
        raise KeyFileError(
            f"{path}: keys of type {words[0][:40]!a} cannot sign messages",
            "use one of `ssh-keygen -t ed25519`, or of a security key",
        )
    return blob


def _finished(argv: Sequence[str], data: bytes, limit: float, *, own_session: bool) -> tuple[int, bytes, str]:
    """Return the exit code, the output and the last lines of errors of a program. It never outlives its deadline."""
    import subprocess  # slow to import, and a push that signs with a file does not need it

    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    process = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": os.defpath, **environment, "LC_ALL": "C.UTF-8"},
        start_new_session=own_session,
    )
    try:
        output, errors = process.communicate(data, timeout=limit)
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            if own_session:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        if isinstance(error, subprocess.TimeoutExpired):
            raise TimeoutError from None
        raise
    lines = [line.strip() for line in errors.decode("utf-8", "replace").splitlines() if line.strip()]
    text = " / ".join(line for line in lines if not line.startswith("Signing data on"))
    return process.returncode, output, "".join(c if c.isprintable() else "?" for c in text)[-300:]


__all__ = ["SECURITY_KEY", "AgentKey", "Notify", "is_public_line", "needs_touch", "parse_public"]
