"""Words after the target, ``--k 3 --cfg.lr 0.1 --no-shuffle``, as text for the input schema.

What a parameter's text means is the schema's business, one function for CLI and HTTP alike; here
are only the shapes that text cannot have by itself: repeated words, dotted names, flags.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, cast

import msgspec

from perdure.cli.endings import UsageError
from perdure.errors import did_you_mean


class ParameterView(msgspec.Struct, frozen=True, kw_only=True):
    """One workflow parameter as the command line needs it.

    Attributes:
        is_flag: a bool: ``--name`` and ``--no-name`` take no word.
        is_many: a list, tuple or set: each ``--name`` adds one item.
    """

    name: str
    annotation: str = ""
    default: str | None = None
    is_flag: bool = False
    is_many: bool = False


def parse(
    words: Sequence[str], parameters: Sequence[ParameterView], *, options: Collection[str] = ()
) -> dict[str, Any]:
    """Return parameter texts by name: str, list of str, bool, or a dict of those for dotted names.

    Args:
        words: what stands after the target.
        parameters: those of the workflow.
        options: perdure's own, ``--name``, which stand before the target.

    Raises:
        UsageError: an unknown name, a missing or surplus word, a parameter given twice.
    """
    known = {parameter.name: parameter for parameter in parameters}
    given: dict[str, Any] = {}
    many: dict[str, list[str]] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word == "--":
            raise UsageError(
                f"unexpected word {word!r}: parameters of a workflow are written --name value",
                _listing(known),
            )
        name, has_value, text = word[2:].partition("=")
        parameter, path, negated = _find(name, known, options)
        if parameter.is_flag and not path:
            _set(given, (parameter.name,), _flag(word, text if has_value else None, negated))
            continue
        if negated:
            raise UsageError(f"--{name}: {parameter.name!r} is not a flag")
        if not has_value:
            if not rest:
                raise UsageError(f"--{name} needs a value")
            text = rest.pop(0)
        if parameter.is_many and not path:
            many.setdefault(parameter.name, []).append(text)
        else:
            _set(given, (parameter.name, *path), text)
    for name, texts in many.items():
        # One text alone may be JSON for the whole list: the schema sees which.
        given[name] = texts if len(texts) > 1 else texts[0]
    return given


def _find(
    name: str, known: dict[str, ParameterView], options: Collection[str]
) -> tuple[ParameterView, tuple[str, ...], bool]:
    """Return the parameter that ``--name`` means, the path into it, and whether it is negated."""
    head, *path = name.split(".")
    python = head.replace("-", "_")
    if python in known:
        return known[python], tuple(path), False
    plain = python.removeprefix("no_")
    if plain != python and plain in known:
        return known[plain], tuple(path), True
    if f"--{head}" in options:
        raise UsageError(
            f"--{head} is an option of perdure's, not a parameter of the workflow",
            f"it stands before the target: perdure run --{head} ... TARGET",
        )
    near = did_you_mean(f"--{head}", [*(dashed(each) for each in known), *options])
    raise UsageError(
        f"no parameter --{head}{near}",
        f"{_listing(known)}; options of perdure stand before the target",
    )


def dashed(name: str) -> str:
    """Return a parameter's name as it is typed: ``"--n-jobs"``."""
    return f"--{name.replace('_', '-')}"


def _flag(word: str, text: str | None, negated: bool) -> bool:
    if text is None:
        return not negated
    if text.lower() not in {"true", "false"}:
        raise UsageError(f"{word}: a flag is true or false")
    return (text.lower() == "true") is not negated


def _set(given: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    *parents, last = path
    for name in parents:
        inner: Any = given.setdefault(name, {})
        if not isinstance(inner, dict):
            raise UsageError(f"--{name} is given as a whole and in parts")
        given = cast("dict[str, Any]", inner)
    if last in given:
        raise UsageError(f"--{'.'.join(path)} is given twice")
    given[last] = value


def _listing(known: Collection[str]) -> str:
    if not known:
        return "this workflow has no parameters"
    return "its parameters: " + ", ".join(dashed(name) for name in known)


def read_tags(words: Sequence[str]) -> dict[str, str]:
    """Return ``NAME=VALUE`` words as tags. Raises UsageError for another form."""
    tags: dict[str, str] = {}
    for word in words:
        name, found, value = word.partition("=")
        if not found or not name:
            raise UsageError(f"--tag {word}: a tag is written NAME=VALUE")
        tags[name] = value
    return tags
