"""What to type next: the command in full that fits the cause of a failure, in the words of a shell
or, where somebody types Python, in those of Python.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from perdure.engine.restore import MAX_TAKEOVERS
from perdure.interactive import find_ipython
from perdure.settings import Settings
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import Cause, ErrorRecord, RunRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell:
    """How commands that are typed elsewhere reach the same store.

    Attributes:
        store: what ``--store`` must say; "" where the settings lead there by themselves.
        blobs: what ``PERDURE_BLOBS`` must say; "" likewise.
    """

    store: str = ""
    blobs: str = ""

    def command(self, *words: str) -> str:
        """Return a command of perdure's, quoted for a shell."""
        place = ["--store", self.store] if self.store else []
        given = f"PERDURE_BLOBS={shlex.quote(self.blobs)} " if self.blobs else ""
        return given + shlex.join(["perdure", *words, *place])

    def resume(self, run_id: str, *options: str) -> str:
        """Return the command that goes on with a run."""
        return self.command("resume", run_id, *options)


_PYTHON_VERBS = (
    "cancel", "delete", "diff", "emit", "explain", "fork", "pause", "rerun", "resume", "signal",
    "spin", "why",
)  # fmt: skip
_KEYWORDS = {"from": "from_step"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell(Shell):
    """How commands that are typed into a notebook or into IPython reach the same store."""

    def command(self, *words: str) -> str:
        """Return the call that does what a command does; the command itself where none does."""
        verb, *rest = words
        if verb in ("show", "logs", "ls"):
            return self._look(verb, rest)
        if verb not in _PYTHON_VERBS:
            return Shell.command(self, *words)
        return self._call(verb, rest)

    def _look(self, verb: str, rest: list[str]) -> str:
        if verb == "ls":
            return self._call("list_runs", [])
        run_id, *step = rest
        found = self._call("get_run", [run_id]) + "".join(f"[{_quoted(each)}]" for each in step)
        return f"{found}.logs()" if verb == "logs" else found

    def _call(self, verb: str, rest: list[str]) -> str:
        given, words = [], iter(rest)
        for word in words:
            if word.startswith("--"):
                name = word.removeprefix("--").replace("-", "_")
                given.append(f"{_KEYWORDS.get(name, name)}={_quoted(next(words))}")
            else:
                given.append(_quoted(word))
        return f"{self._opened()}.{verb}({', '.join(given)})"

    def _opened(self) -> str:
        place = [_quoted(self.store)] if self.store else []
        place += [f"blobs={_quoted(self.blobs)}"] if self.blobs else []
        return f"perdure.open({', '.join(place)})" if place else "perdure"


def _quoted(text: str) -> str:
    """Return a text as Python takes it, between double quotes as most people write them.

    What is left to whoever types it stays as it is.
    """
    if text == "...":
        return text
    return repr(text) if '"' in text or "\\" in text else f'"{text}"'


def shell_of(settings: Settings) -> Shell:
    """Return how a shell reaches the store of these settings; no password is in it.

    Where somebody types Python it is Python. What an environment variable, a pyproject.toml or the
    default says is found again where the command is typed; what a program or a command line said
    is not.
    """
    kind = Shell if find_ipython() is None else Cell
    return kind(
        store=_typed(settings.store) if settings.origin.get("store") == "argument" else "",
        blobs=_typed(settings.blobs) if settings.origin.get("blobs") == "argument" else "",
    )


def _typed(url: str) -> str:
    without_password = re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", url)
    return without_password.removeprefix("sqlite:///")


def sentence(record: RunRecord, shell: Shell) -> str:
    """Return what to do about a run that did not succeed, with its command."""
    error = record.error
    if record.status is not RunStatus.FAILED or error is None:
        return f"Go on with: {shell.resume(record.id)}"
    doing, *options = _remedy(record, error)
    if error.cause in (Cause.INPUT_LOST, Cause.INPUT_UNAVAILABLE):
        doing = f"See what `{shell.command('doctor')}` finds, then"
    return f"{doing}: {shell.resume(record.id, *options)}"


_CURRENT = ("--code", "current")

_BY_TYPE = {
    "perdure.errors.ReplayDiffers": ("Accept it, then", *_CURRENT),
    "perdure.errors.NondeterminismError": ("Run them again with", "--on-divergence", "recompute"),
    "perdure.errors.CodeChanged": ("Take today's code with", *_CURRENT),
    "perdure.errors.SecretMissing": ("Set it, then",),
    "perdure.errors.DefinitionError": ("Start perdure where there is more, then",),
    "builtins.ModuleNotFoundError": ("Install it, then",),
    "perdure_storage.errors.InternalError": ("Please report this. To try again",),
}
"""Errors that are no bug of the user's code, whatever they ended; DefinitionError: what was asked
for is not there where the run went on."""

_BY_CAUSE = {
    Cause.USER_ERROR: ("Mend it, then", *_CURRENT),
    Cause.TIMEOUT: ("Give it a longer timeout=, or mend it, then", *_CURRENT),
    Cause.OUT_OF_MEMORY: ("Let it ask for more memory=, or need less, then", *_CURRENT),
    Cause.SETUP_ERROR: ("Mend it, then", *_CURRENT),
}


def _remedy(record: RunRecord, error: ErrorRecord) -> tuple[str, ...]:
    if error.step_id is None and error.cause is Cause.TIMEOUT:
        return ("Go on without the deadline",)
    if error.cause in (Cause.SETUP_ERROR, Cause.ENGINE_ERROR) and error.type in _BY_TYPE:
        return _BY_TYPE[error.type]
    if error.cause is Cause.WORKER_LOST and record.takeovers >= MAX_TAKEOVERS:
        return ("Mend what kills it, then", *_CURRENT)
    return _BY_CAUSE.get(error.cause, ("Go on with",))
