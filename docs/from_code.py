"""The parts of the reference that the code itself says, as Markdown.

A page asks for one by a line ``<!-- from the code: NAME -->``; it is put in when the site is
built, and ``python docs/from_code.py NAME`` prints it.
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import typer
from rich.text import Text

from perdure import errors, options, settings
from perdure.cli.app import app
from perdure.plan import StepOptions
from perdure.retry import Backoff
from perdure_storage import errors as storage_errors
from perdure_storage.lifecycle import (
    RUN_TERMINAL,
    RUN_TRANSITIONS,
    STEP_TERMINAL,
    STEP_TRANSITIONS,
)

MARK = re.compile(r"^<!-- from the code: (?P<name>[a-z ]+) -->$", re.MULTILINE)


def fill_in(text: str) -> str:
    """Return a page with its marks replaced by what they ask for.

    Raises:
        KeyError: a page asks for what there is not.
    """
    return MARK.sub(lambda match: PARTS[match["name"]](), text)


# --- the command line ---------------------------------------------------------------------------
def command_line() -> str:
    """Return every verb with its arguments and options."""
    return "\n".join(_commands(typer.main.get_command(app), "perdure", 2))


def _commands(command: Any, path: str, level: int) -> Iterator[str]:
    """Yield a section for a command, then for each of those below it."""
    yield from _command(command, path, level)
    for name, below in getattr(command, "commands", {}).items():
        if not below.hidden:
            yield from _commands(below, f"{path} {name}", level + (path != "perdure"))


def _command(command: Any, path: str, level: int) -> Iterator[str]:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    offered = [each for each in command.params if each.param_type_name == "option"]
    rows = [(_cell(f"`{_metavar(each)}`"), _help(each)) for each in arguments]
    rows += [(_spelling(each), _help(each)) for each in offered if not each.hidden]
    yield f"{'#' * level} {path}\n"
    yield f"{_paragraphs(command.help)}\n"
    yield f"```text\n{_usage(command, path, arguments)}\n```\n"
    if rows:
        yield _table(("", ""), rows)
    if command.epilog:
        yield f"```text\n{_examples(command.epilog)}\n```\n"


def _usage(command: Any, path: str, arguments: list[Any]) -> str:
    verb = ["VERB"] if getattr(command, "commands", None) else []
    return " ".join([path, "[OPTIONS]", *verb, *map(_metavar, arguments)])


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _spelling(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    return names if option.is_flag else _cell(f"{names} `{_metavar(option)}`")


def _help(parameter: Any) -> str:
    text = getattr(parameter, "help", None) or ""
    says_it = "default" in text or parameter.default in (None, False)
    return _as_code(_cell(text if says_it else f"{text} Default: {parameter.default}."))


def _as_code(text: str) -> str:
    """Return Markdown in which options are code: else two dashes would be printed as one."""
    parts = text.split("`")
    parts[::2] = [
        re.sub(r"(?<![\w-])--[a-z][\w-]*(?:\.\w+)*", r"`\g<0>`", part) for part in parts[::2]
    ]
    return "`".join(parts)


def _examples(epilog: str) -> str:
    """Return the examples below a help text as plain lines, without their heading."""
    text = Text.from_markup(epilog).plain.strip().removeprefix("Examples")
    return textwrap.dedent(text).strip()


def _paragraphs(text: str | None) -> str:
    """Return a help text as Markdown."""
    return _as_code(inspect.cleandoc((text or "").replace("\b", "")))


# --- settings, options --------------------------------------------------------------------------
def setting_table() -> str:
    """Return the settings: key, environment variable, meaning."""
    meanings = _attributes(settings.Settings)
    rows = [(f"`{key}`", f"`PERDURE_{key.upper()}`", _cell(meanings[key])) for key in settings.KEYS]
    return _table(("key", "environment", "meaning"), rows)


def option_table() -> str:
    """Return the options of tasks: name, type, default, meaning."""
    meanings = _attributes(options.BaseOptions) | _attributes(options.Options)
    kinds = inspect.get_annotations(options.BaseOptions) | inspect.get_annotations(options.Options)
    rows = [
        (f"`{name}`", _kind(kind), _default(name), _cell(meanings[name]))
        for name, kind in kinds.items()
    ]
    return _table(("option", "type", "default", "meaning"), rows)


def _kind(annotation: Any) -> str:
    return f"`{getattr(annotation, '__forward_arg__', annotation)}`".replace("|", "\\|")


def _default(name: str) -> str:
    """Return an option's default as a user would write it."""
    if name == "backoff":
        return f"`{Backoff()!r}`"
    planned = options._PLANNED.get(name)
    value = getattr(StepOptions(), planned[0]) if planned else None
    return f"`{value:g}`" if isinstance(value, float) else f"`{value!r}`"


def _attributes(documented: type) -> dict[str, str]:
    """Return the entries of ``Attributes:`` of a docstring, names as they are written there."""
    text = inspect.cleandoc(documented.__doc__ or "")
    _, _, section = text.partition("Attributes:\n")
    entries = re.split(r"^    (?=\S)", section, flags=re.MULTILINE)[1:]
    pairs = (entry.partition(":") for entry in entries)
    return {name.strip(): " ".join(meaning.split()) for name, _, meaning in pairs}


# --- statuses -----------------------------------------------------------------------------------
def run_statuses() -> str:
    """Return the diagram and the table of a run's statuses."""
    return _statuses(RUN_TRANSITIONS, RUN_TERMINAL, "a run")


def step_statuses() -> str:
    """Return the diagram and the table of a step's statuses."""
    return _statuses(STEP_TRANSITIONS, STEP_TERMINAL, "a step")


def _statuses(transitions: Mapping[Any, frozenset[Any]], ends: frozenset[Any], what: str) -> str:
    stored = [status for status in transitions if _is_stored(status, transitions)]
    rows = [
        (
            f"**{status}**" if status in ends else str(status),
            ", ".join(str(each) for each in stored if each in transitions[status]),
        )
        for status in stored
    ]
    return f"{_diagram(stored, transitions, ends, what)}\n\n{_table(('from', 'to'), rows)}"


def _is_stored(status: Any, transitions: Mapping[Any, frozenset[Any]]) -> bool:
    """Say whether a run or step can be in a status; what nothing leads to or from is derived."""
    return bool(transitions[status]) or any(status in targets for targets in transitions.values())


WIDTH, LEFT = 104, 60


def _diagram(
    stored: list[Any], transitions: Mapping[Any, frozenset[Any]], ends: frozenset[Any], what: str
) -> str:
    """Return an arc diagram: above the line what goes on, below it what goes back."""
    place = {status: LEFT + index * WIDTH for index, status in enumerate(stored)}
    tallest = (len(stored) - 1) * 22 + 40
    middle, width = tallest, 2 * LEFT + (len(stored) - 1) * WIDTH
    arcs = [
        _arc(place[old], place[new], middle)
        for old in stored
        for new in stored
        if new in transitions[old]
    ]
    boxes = [_box(status, place[status], middle, status in ends) for status in stored]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {2 * tallest}" '
            f'role="img" aria-label="The statuses of {what} and what follows on what" '
            'style="max-width:100%;font:600 11px system-ui,sans-serif">',
            '<defs><marker id="tip" markerWidth="7" markerHeight="7" refX="6" refY="3" '
            'orient="auto"><path d="M0 0 6 3 0 6z" fill="#57606a"/></marker></defs>',
            *arcs,
            *boxes,
            "</svg>",
        ]
    )


def _arc(start: int, end: int, middle: int) -> str:
    up = -1 if end > start else 1
    y, lift = middle + up * 14, abs(end - start) // WIDTH * 29 + 12
    # Arrows arrive a little aside of where others leave, so that the tips can be told apart.
    start, end = start + 8 * -up, end + 14 * up
    return (
        f'<path d="M{start} {y} C{start} {y + up * lift} {end} {y + up * lift} {end} {y}" '
        'fill="none" stroke="#57606a" stroke-width="1.2" marker-end="url(#tip)"/>'
    )


def _box(status: Any, x: int, middle: int, is_end: bool) -> str:
    fill = "#2f6f4f" if is_end else "#24292f"
    return (
        f'<rect x="{x - 46}" y="{middle - 13}" width="92" height="26" rx="5" fill="{fill}"/>'
        f'<text x="{x}" y="{middle + 4}" text-anchor="middle" fill="#fff">{status}</text>'
    )


# --- errors -------------------------------------------------------------------------------------
def error_table() -> str:
    """Return every error class with what it says of itself."""
    classes = [each for each in _classes() if issubclass(each, errors.PerdureError)]
    rows = [
        (f"`{each.__name__}`", f"`{each.__mro__[1].__name__}`", _cell(_first_line(each)))
        for each in classes
    ]
    return _table(("error", "is a", "means"), rows)


def _classes() -> list[type]:
    found = {
        name: each
        for module in (errors, storage_errors)
        for name, each in vars(module).items()
        if inspect.isclass(each) and each.__module__ == module.__name__
    }
    return [found[name] for name in sorted(found)]


def _first_line(documented: type) -> str:
    return inspect.cleandoc(documented.__doc__ or "").partition("\n")[0]


# --- Markdown -----------------------------------------------------------------------------------
def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _cell(text: str) -> str:
    """Return text that stays in its cell: no line break, bars escaped, code as code."""
    flat = " ".join(text.split()).replace("|", "\\|")
    return flat.replace("``", "`").replace("<", "&lt;").replace("*", "\\*")


PARTS: Mapping[str, Callable[[], str]] = {
    "command line": command_line,
    "settings": setting_table,
    "task options": option_table,
    "run statuses": run_statuses,
    "step statuses": step_statuses,
    "errors": error_table,
}

if __name__ == "__main__":
    sys.stdout.write(PARTS[sys.argv[1]]())
