"""``%perdure``: the command line's verbs that look, typed into a cell, and this kernel's settings.

What a verb finds is returned, so that the notebook shows it, and ``_`` holds it. With options it
is the command line's own, printed.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from IPython.core.error import UsageError

from perdure.cli.app import invoke
from perdure.cli.naming import find
from perdure.cli.targets import read_inputs
from perdure.client import Perdure
from perdure.errors import PerdureError, known_names
from perdure.session import current_driver
from perdure.settings import REUSES
from perdure.workflow import Workflow
from perdure_storage.records import RunQuery

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

HELP = """%perdure ls                     the runs, newest first; --status failed, --tag A=B, ...
%perdure show ID [STEP]         a run, or one of its steps; ID may be the beginning of one, or -
%perdure logs ID [STEP]         what steps printed
%perdure explain WORKFLOW|ID    what would run and what would be reused, and why; --PARAMETER VALUE
%perdure why ID STEP            why a step ran, was taken over, is retried or waits
%perdure diff ID ID             what differs between two runs
%perdure reuse [last|off]       whether new runs take over what has not changed since the last
%perdure help                   this"""


_SOME = 12


def _help_of(verb: str) -> str:
    """Return what the help says of one verb."""
    of_verb = (line for line in HELP.splitlines() if line.split()[1] == verb)
    return "\n".join(of_verb)


class Magic:
    """``%perdure`` in one shell.

    Args:
        names: the user's own, by name: where workflows are looked for.
    """

    def __init__(self, names: dict[str, Any]) -> None:
        self._names = names
        self._verbs: dict[str, Callable[..., Any]] = {
            "ls": self._ls,
            "show": self._show,
            "logs": self._logs,
            "explain": self._explain,
            "why": self._why,
            "diff": self._diff,
            "reuse": self._reuse,
            "help": self._help,
        }

    def __call__(self, line: str) -> Any:
        """Do what a line says and return what it found.

        Raises:
            UsageError: IPython shows it as one line: a word that is not known, or the error of
                the verb.
        """
        try:
            verb, *words = shlex.split(line) or ["help"]
            if verb not in self._verbs:
                raise UsageError(f"%perdure {verb}: no such word{known_names(verb, self._verbs)}")
            if verb not in ("explain", "reuse") and any(word.startswith("--") for word in words):
                invoke([verb, *words])
                return None
            return self._verbs[verb](*words)
        except (PerdureError, ValueError) as error:
            raise UsageError(str(error)) from error
        except TypeError as error:  # too few words, or too many
            raise UsageError(f"%perdure {line}: not so, but so\n{_help_of(verb)}") from error

    def complete(self, line: str) -> list[str]:
        """Return what the last word of a line may be."""
        words = line.split()[1:]
        if not words or not line[-1].isspace():
            words = words[:-1]
        try:
            return self._candidates(words)
        except Exception:  # noqa: BLE001 - a store that does not answer is no reason to disturb
            return []

    def _candidates(self, words: Sequence[str]) -> list[str]:
        match words:
            case []:
                return list(self._verbs)
            case ["reuse"]:
                return list(REUSES)
            case ["explain"]:
                return [*self._workflows(), *self._ids()]
            case ["show" | "logs" | "why" | "diff"] | ["diff", _]:
                return self._ids()
            case ["show" | "logs" | "why", run_id]:
                return [step.id for step in find(_client(), run_id).steps()]
        return []

    def _workflows(self) -> dict[str, Workflow[..., Any]]:
        return {name: each for name, each in self._names.items() if isinstance(each, Workflow)}

    def _ids(self) -> list[str]:
        return [record.id for record in _client().runtime.store.list_runs(RunQuery(limit=100))]

    # --- verbs ----------------------------------------------------------------------------------
    def _ls(self) -> Any:
        return _client().list_runs()

    def _show(self, run_id: str, step_id: str | None = None) -> Any:
        run = find(_client(), run_id)
        return run if step_id is None else run[step_id]

    def _logs(self, run_id: str, *step_id: str) -> None:
        print(self._show(run_id, *step_id).logs(), end="")

    def _explain(self, subject: str, *words: str) -> Any:
        workflow = self._workflows().get(subject)
        if workflow is not None:
            return _client().explain(workflow, inputs=read_inputs(workflow, words))
        if subject.isidentifier() and not self._is_run(subject):
            known = known_names(subject, [*self._workflows(), *self._ids()])
            raise UsageError(
                f"%perdure explain {subject}: no workflow of that name is here, and no run: run "
                f"the cell that defines it{known}"
            )
        if not words and not subject.endswith(".py") and ":" not in subject:
            return _client().explain(find(_client(), subject).id)
        invoke(["explain", subject, *words])
        return None

    def _is_run(self, subject: str) -> bool:
        try:
            find(_client(), subject)
        except PerdureError:
            return False
        return True

    def _why(self, run_id: str, step_id: str | None = None) -> None:
        run = find(_client(), run_id)
        if step_id is None:
            ids = [step.id for step in run.steps()]
            some = ", ".join(ids[:_SOME]) + (", ..." if len(ids) > _SOME else "")
            raise UsageError(f"%perdure why {run_id} STEP: which step? {run.id} has {some}")
        print(run[step_id].why())

    def _diff(self, a: str, b: str) -> Any:
        return _client().diff(find(_client(), a).id, find(_client(), b).id)

    def _reuse(self, word: str | None = None) -> None:
        client = _client()
        if word is not None and word not in REUSES:
            raise UsageError(f"%perdure reuse {word}: not known{known_names(word, REUSES)}")
        if word is not None:
            client.settings = replace(
                client.settings,
                reuse=word,
                origin={**client.settings.origin, "reuse": "%perdure reuse"},
            )
        print(_REUSE[client.settings.reuse])

    def _help(self) -> None:
        print(HELP)


_REUSE = {
    "off": "reuse is off: new runs take nothing over, unless they are given reuse=",
    "last": "reuse is last: new runs take over what has not changed since the last run",
}


def _client() -> Perdure:
    return cast(Perdure, current_driver())


def register(shell: InteractiveShell) -> None:
    """Add ``%perdure`` to a shell, and what its words may be completed to."""
    magic = Magic(shell.user_ns)
    cast(Any, shell).register_magic_function(magic, "line", "perdure")
    for word in ("%perdure", "perdure"):
        shell.set_hook(
            "complete_command", lambda shell, event: magic.complete(event.line), str_key=word
        )
