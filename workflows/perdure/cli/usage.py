"""Words that make no command: what is wrong with them, and what was probably meant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

from perdure.cli.endings import ExitCode, say
from perdure.errors import did_you_mean


def report_usage(error: typer.TyperException, words: Sequence[str], verbs: Sequence[str]) -> int:
    """Say what Typer did not understand; without any words it has shown the help already.

    Args:
        error: what Typer raised.
        words: the whole command line.
        verbs: all verbs there are.
    """
    message = error.format_message()
    if message:
        say(f"error: {_message(error, message, words, verbs)}")
        say(_hint(error, words, verbs))
    return ExitCode.USAGE


def _message(
    error: typer.TyperException, message: str, words: Sequence[str], verbs: Sequence[str]
) -> str:
    option: str | None = getattr(error, "option_name", None)
    if option is not None and hasattr(error, "possibilities"):
        near = did_you_mean(option, getattr(error, "possibilities", None) or ())
        return f"there is no option {option}{near}"
    if (verb := _unknown_verb(error, words, verbs)) is not None:
        return f"there is no verb {verb!r}{did_you_mean(verb, verbs)}"
    if (misfit := _misfit(error)) is not None:
        return misfit
    return message[:1].lower() + message[1:].rstrip(".")


def _misfit(error: typer.TyperException) -> str | None:
    """Return what is wrong with a number, not in the words of the library that Typer asks."""
    name = next(iter(getattr(getattr(error, "param", None), "opts", ())), "")
    match getattr(error.__cause__, "errors", list[Any])():
        case [{"type": "int_parsing" | "int_parsing_size", "input": given}]:
            return f"{name} {given!r:.80} is not a whole number"
        case [{"type": "greater_than_equal", "input": given, "ctx": {"ge": least}}]:
            return f"{name} {given} is less than {least}"
        case [{"type": "less_than_equal", "input": given, "ctx": {"le": most}}]:
            return f"{name} {given} is more than {most}"
        case _:
            return None


def _hint(error: typer.TyperException, words: Sequence[str], verbs: Sequence[str]) -> str:
    if (verb := _unknown_verb(error, words, verbs)) is not None:
        if ".py" in verb or ":" in verb:
            return f"to run a workflow: perdure run {verb}"
        return "`perdure --help` lists the verbs"
    context = getattr(error, "ctx", None)
    if context is None or context.parent is None:
        return "options stand after the verb: perdure VERB --option; `perdure --help` lists both"
    if context.command_path == "perdure run" and hasattr(error, "option_name"):
        return "parameters of a workflow stand after its name: perdure run TARGET --name value"
    return f"`{context.command_path} --help` shows what it takes, with examples"


def _unknown_verb(
    error: typer.TyperException, words: Sequence[str], verbs: Sequence[str]
) -> str | None:
    """Return the verb that was typed, ``"db chek"``, where that is what is wrong."""
    context = getattr(error, "ctx", None)
    if context is None or not hasattr(context.command, "commands"):
        return None
    depth = len(context.command_path.split())  # 1 for `perdure`, 2 for `perdure db`
    verb = " ".join(words[:depth])
    is_option = any(word.startswith("-") for word in words[:depth])
    return None if is_option or not verb or verb in verbs else verb
