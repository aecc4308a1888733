"""One operation under way: runs steps one after the other, each noted in the journal before it acts."""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime

import attrs

from deploykit.errors import DeploykitError, ReleaseError, ScriptFailed
from deploykit.release.environment import Environment
from deploykit.release.journal import Journal, JournalEntry
from deploykit.release.model import OUTPUT_SHOWN, SCRIPTS, Operation, StepRecord
from deploykit.release.orphans import MARK, ScriptProcess, start_time_of
from deploykit.release.scripts import OnOutput, Script, clean_environment, run_script
from deploykit.release.site import Site
from deploykit.system.boottime import boot_id

_log = logging.getLogger(__name__)

#: Called with a step's name when it starts (record None) and when it ended.
OnStep = Callable[[str, StepRecord | None], None]


class StepFailed(Exception):
    """A step failed; its record is among the steps. Never leaves this package."""

    def __init__(self, step: str, error: DeploykitError) -> None:
        super().__init__(step)
        self.step = step
        self.error = error


@attrs.frozen(kw_only=True, slots=True)
class Listeners:
    """Callbacks for what happens while an operation runs."""

    output: OnOutput | None = None
    step: OnStep | None = None

    def emit(self, step: str, record: StepRecord | None) -> None:
        """Report that a step began or ended. A listener that fails must not break a deploy."""
        if self.step is not None:
            try:
                self.step(step, record)
            except Exception:  # noqa: BLE001
                _log.warning("the listener to steps failed", exc_info=True)


class StepRunner:
    """The steps of one operation.

    Args:
        entry: what the journal says so far.
        journal: begun, or resumed.
    """

    def __init__(
        self, site: Site, entry: JournalEntry, journal: Journal, environment: Environment, listeners: Listeners
    ) -> None:
        self.site = site
        self.entry = entry
        self.journal = journal
        self.environment = environment
        self._listeners = listeners
        self.steps: list[StepRecord] = list(entry.steps)
        self.ran_scripts = any(s.name in SCRIPTS and s.outcome != "skipped" for s in self.steps)

    @property
    def operation(self) -> Operation:
        """The operation under way."""
        return self.entry.operation

    def step(self, name: str, act: Callable[[], str | None], *, durable: bool = False) -> None:
        """Run one step that is not a script. `act` returns a line for people, or None.

        Raises:
            StepFailed: it failed.
        """
        self.journal.starts(name, durable=durable)
        self._listeners.emit(name, None)
        started = time.monotonic()
        try:
            text = act() or ""
        except (DeploykitError, OSError) as error:
            problem = error if isinstance(error, DeploykitError) else _plain(name, error)
            record = StepRecord(
                name=name, outcome="failed", seconds=round(time.monotonic() - started, 3), output=str(problem)
            )
            self._ended(record)
            raise StepFailed(name, problem) from error
        self._ended(StepRecord(name=name, outcome="done", seconds=round(time.monotonic() - started, 3), output=text))

    def script(self, step: str, name: str, *, rollback: bool = False, previous: str = "", record_as: str = "") -> None:
        """Run the script of a step, if there is one.

        Args:
            name: the release it is for.
            rollback: the script is informed that the site goes back.
            previous: the release that was live before.
            record_as: the step's name in the record, where it is not `step`.

        Raises:
            StepFailed: it ended with an error or ran out of time.
        """
        label = record_as or step
        file = self.environment.scripts.get(step)
        if file is None:
            self.steps.append(StepRecord(name=label, outcome="skipped"))
            return
        process = ScriptProcess(mark=secrets.token_hex(16), boot=boot_id())
        self.journal.starts(label, durable=True, process=process)
        self._listeners.emit(label, None)
        self.ran_scripts = True
        # What it prints goes by the record's name, too: "500" of one script is not to be read beside "200" of the next.
        script = attrs.evolve(self._script(step, file, name, rollback, previous, process.mark), step=label)
        try:
            record = run_script(script, self._listeners.output, self._note_process)
        except ScriptFailed as error:
            record = StepRecord(name=label, outcome="failed", output=str(error))
            self._ended(record)
            raise StepFailed(label, error) from error
        self._ended(record)
        if record.outcome == "failed":
            why = f"{label} ended with exit code {record.exit_code}"
            if record.output.endswith("were killed]"):
                why = f"{label} ran longer than {script.timeout:g} s and was killed"
            raise StepFailed(label, ScriptFailed(why, OUTPUT_SHOWN))

    def _note_process(self, pid: int) -> None:
        try:
            self.journal.runs(pid, start_time_of(pid))
        except OSError as error:
            _log.warning("could not note the process of a script: %s", error)  # its mark is noted

    def _script(self, step: str, file: str, name: str, rollback: bool, previous: str, mark: str) -> Script:
        settings = self.site.settings
        release = self.site.release_path(name)
        about = self.site.state().get(name)
        operation = self.operation
        version = self.entry.version
        if about is not None and name != operation.release:
            version = about.version
        variables = dict(settings.environment) | {
            "DEPLOYKIT_SITE": self.site.name,
            "DEPLOYKIT_SITE_DIR": str(self.site.path),
            "DEPLOYKIT_TAG": version.tag,
            "DEPLOYKIT_REF": version.ref,
            "DEPLOYKIT_COMMIT": version.commit,
            "DEPLOYKIT_RELEASE": str(release),
            "DEPLOYKIT_PREVIOUS": str(self.site.release_path(previous)) if previous else "",
            "DEPLOYKIT_SHARED": str(self.site.shared_dir),
            "DEPLOYKIT_NODE": operation.node,
            "DEPLOYKIT_REQUEST": operation.request,
            "DEPLOYKIT_STEP": step,
            MARK: mark,
        }
        if version.parts:
            variables["DEPLOYKIT_PARTS"] = json.dumps([attrs.asdict(part) for part in version.parts])
        if rollback:
            variables["DEPLOYKIT_ROLLBACK"] = "1"
        return Script(
            step=step,
            path=release / file,
            arguments=("-t", version.tag),
            directory=release,
            environment=clean_environment(self.environment.identity, variables),
            timeout=settings.timeouts.get(step, settings.script_timeout),
            output_limit=settings.output_limit,
            identity=self.environment.identity,
            trusted=self.environment.trusted,
            umask=settings.umask,
        )

    def skip(self, step: str) -> None:
        """Note a step that the settings say to leave out after a crash."""
        self._ended(StepRecord(name=step, outcome="skipped", output="cut off by a crash; skipped by setting"))

    def _ended(self, record: StepRecord) -> None:
        self.steps.append(record)
        self._listeners.emit(record.name, record)
        try:
            self.journal.ended(record)
        except OSError as error:
            # A full disk: the step then counts as cut off after a crash, which is the safe side.
            _log.warning("could not note the end of %s: %s", record.name, error)


def timestamp(now: datetime | None = None) -> str:
    """Return a time as ISO 8601, UTC, in whole seconds."""
    return (now or datetime.now(UTC)).isoformat(timespec="seconds")


def _plain(step: str, error: OSError) -> ReleaseError:
    where = f" ({error.filename})" if error.filename else ""
    remedies = {28: "free some space or inodes, then deploy again", 30: "mount it writable", 122: "raise the quota"}
    remedy = remedies.get(error.errno or 0, "the live release is untouched; correct it and deploy again")
    return ReleaseError(f"{step} failed: {error.strerror or error}{where}", remedy)
