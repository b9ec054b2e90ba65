"""What is known of an arrival, and what a trigger may ask of it: paths and filters, as data.

Facts are JSON and nothing else: they come from outside, and no attribute of a Python object is ever
touched on their account. All questions are total. Of a fact that is missing, or is of another kind
than it is compared with, a filter says neither yes nor no; only what holds lets an arrival through.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, NoReturn

import msgspec

from perdure_scheduler.errors import TriggerError

Path = tuple[str | int, ...]
"""Names and positions that lead to a fact, from the outside in."""
Scalar = str | int | float | bool | None
Facts = Mapping[str, Any]

LONGEST_PATH = 32
LONGEST_TEXT = 10_000
"""Of texts in a filter, and of those that patterns are tried on."""
DEEPEST_FILTER = 32
MOST_TERMS = 500
DEEPEST_FACTS = 100
LARGEST_FACTS_BYTES = 2 << 20

_SIGNS = {
    "==": "equals",
    "!=": "differs from",
    "<": "is less than",
    "<=": "is at most",
    ">": "is more than",
    ">=": "is at least",
}


class FactMissing(TriggerError):
    """A path leads to nothing in what is known of an arrival."""


# --- what a user writes ---------------------------------------------------------------------------
class Fact:
    """Stands for a fact of what will have arrived: ``event.path``, ``event.body.items[0]["name"]``.

    Comparing it gives a filter: ``event.size > 0``, ``event.kind.is_in(["a", "b"])``,
    ``event.name.matches("*.csv")``; filters are joined by ``&``, ``|`` and ``~``. Given as an
    input it is the fact itself. A fact whose name begins with ``_`` or is ``is_in`` or ``matches``
    is written as an item: ``event["matches"]``.
    """

    __slots__ = ("_path",)
    __hash__ = None  # type: ignore[assignment]
    __iter__ = None  # else Python would iterate by position, for ever
    __contains__ = None

    def __init__(self, path: Path = ()) -> None:
        if len(path) > LONGEST_PATH:
            raise TriggerError(f"{path_text(path)[:80]}... is deeper than {LONGEST_PATH} names")
        object.__setattr__(self, "_path", path)

    def __getattr__(self, name: str) -> Fact:
        if name.startswith("_"):
            raise AttributeError(f'{name}: write {path_text(path_of(self))}["{name}"]')
        return self[name]

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise TriggerError(f"{path_text((*path_of(self), name))} is a fact: it cannot be set")

    def __getitem__(self, key: str | int) -> Fact:
        if isinstance(key, bool) or not isinstance(key, str | int):
            raise TriggerError(f"{self!r}[{key!r:.80}]: write a name or a position")
        if isinstance(key, str) and len(key) > LONGEST_TEXT:
            raise TriggerError(
                f"{self!r}[{key[:40]!r}...]: a name has at most {LONGEST_TEXT} letters"
            )
        return Fact((*path_of(self), key))

    def __repr__(self) -> str:
        return path_text(path_of(self))

    def __str__(self) -> NoReturn:
        raise TriggerError(
            f"{self!r} is not known yet, so it cannot be part of a text: give it as an input by "
            "itself, and make the text in the workflow's first step"
        )

    def __format__(self, spec: str) -> NoReturn:
        self.__str__()

    def __bool__(self) -> NoReturn:
        raise TriggerError(f"{self!r} is not known yet: compare it, as in {self!r} == 1")

    def __eq__(self, other: object) -> Filter:  # type: ignore[override]
        return Compares(path=path_of(self), sign="==", value=_scalar(self, other))

    def __ne__(self, other: object) -> Filter:  # type: ignore[override]
        return Compares(path=path_of(self), sign="!=", value=_scalar(self, other))

    def __lt__(self, other: object) -> Filter:
        return Compares(path=path_of(self), sign="<", value=_ordered(self, other))

    def __le__(self, other: object) -> Filter:
        return Compares(path=path_of(self), sign="<=", value=_ordered(self, other))

    def __gt__(self, other: object) -> Filter:
        return Compares(path=path_of(self), sign=">", value=_ordered(self, other))

    def __ge__(self, other: object) -> Filter:
        return Compares(path=path_of(self), sign=">=", value=_ordered(self, other))

    def is_in(self, values: object) -> Filter:
        """Return the filter that the fact is one of these scalars."""
        if isinstance(values, str | Fact) or not isinstance(values, Iterable):
            raise TriggerError(f"{self!r}.is_in({values!r:.80}): write a list, is_in(['a', 'b'])")
        return IsIn(path=path_of(self), values=tuple(_scalar(self, each) for each in values))

    def matches(self, pattern: str) -> Filter:
        """Return the filter that the fact is text of a pattern: ``*``, ``?``, ``[abc]``."""
        if not isinstance(pattern, str):
            raise TriggerError(f"{self!r}.matches({pattern!r:.80}): write a pattern, '*.csv'")
        return Matches(path=path_of(self), pattern=_bounded(pattern))

    def __and__(self, other: object) -> NoReturn:
        _refuse_join(self)

    __or__ = __rand__ = __ror__ = __and__

    def __invert__(self) -> NoReturn:
        _refuse_join(self)


event = Fact()


def path_of(fact: Fact) -> Path:
    """Return where a fact is found."""
    path: Path = object.__getattribute__(fact, "_path")
    return path


def path_text(path: Path) -> str:
    """Return a path as people write it: ``event.body["full name"][0]``."""
    steps = (
        f".{step}"
        if isinstance(step, str) and step.isidentifier() and not step.startswith("_")
        else f"[{step!r:.60}]"
        for step in path
    )
    return "event" + "".join(steps)


def _refuse_join(fact: Fact) -> NoReturn:
    raise TriggerError(
        f"{fact!r} is no filter: compare it, and write each comparison in parentheses, as in "
        f"({fact!r} == 1) & ({fact!r} != 2)"
    )


def _scalar(fact: Fact, value: object) -> Scalar:
    if isinstance(value, Fact):
        raise TriggerError(f"{fact!r} is compared with {value!r}: compare it with a constant")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _bounded(str(value))
    if isinstance(value, int | float):
        # What is neither more nor less than itself is no number.
        if value != value or abs(value) >= 1e308:
            raise TriggerError(f"{fact!r} is compared with {value!r:.40}: write a finite number")
        return value
    raise TriggerError(
        f"{fact!r} is compared with {value!r:.80}: write text, a number, True, False or None; of a "
        "date its ISO text"
    )


def _ordered(fact: Fact, value: object) -> Scalar:
    scalar = _scalar(fact, value)
    if scalar is None or isinstance(scalar, bool):
        raise TriggerError(f"{fact!r} is ordered against {scalar}: write text or a number, or ==")
    return scalar


def _bounded(text: str) -> str:
    if len(text) > LONGEST_TEXT:
        raise TriggerError(
            f"{text[:40]!r}...: a text of a filter has at most {LONGEST_TEXT} letters"
        )
    return text


# --- filters --------------------------------------------------------------------------------------
class Answer(msgspec.Struct, frozen=True):
    """What a filter says of an arrival.

    Attributes:
        holds: None: neither yes nor no, for a fact is missing or of another kind.
        reason: why it does not hold, for people.
    """

    holds: bool | None
    reason: str = ""


class Filter(msgspec.Struct, frozen=True):
    """What has to hold of an arrival. A value; ``&``, ``|`` and ``~`` give other ones."""

    def __and__(self, other: object) -> Filter:
        return All(of=(*_terms(self, All), *_terms(_filter(self, other), All)))

    def __or__(self, other: object) -> Filter:
        return Some(of=(*_terms(self, Some), *_terms(_filter(self, other), Some)))

    def __invert__(self) -> Filter:
        return self.of if isinstance(self, Not) else Not(of=self)  # type: ignore[arg-type]

    def __bool__(self) -> NoReturn:
        raise TriggerError(
            f"{self!s:.200} is not known yet: join filters by &, | and ~ with parentheses around "
            "each, not by and, or, not, or in chains"
        )


class Compares(Filter, frozen=True, kw_only=True, tag="compares"):
    """A fact stands so to a constant. ``True`` is no number here, and ``1 == 1.0``."""

    path: Path
    sign: str
    value: Scalar

    def __str__(self) -> str:
        return f"{path_text(self.path)} {self.sign} {_shown(self.value)}"


class IsIn(Filter, frozen=True, kw_only=True, tag="is_in"):
    """A fact is one of several constants."""

    path: Path
    values: tuple[Scalar, ...]

    def __str__(self) -> str:
        listed = ", ".join(_shown(each) for each in self.values[:5])
        more = ", ..." if len(self.values) > 5 else ""
        return f"{path_text(self.path)}.is_in([{listed}{more}])"


class Matches(Filter, frozen=True, kw_only=True, tag="matches"):
    """A fact is text of a pattern, as in a shell; ``*`` takes slashes too, and case counts."""

    path: Path
    pattern: str

    def __str__(self) -> str:
        return f"{path_text(self.path)}.matches({_shown(self.pattern)})"


class Not(Filter, frozen=True, kw_only=True, tag="not"):
    """The contrary holds."""

    of: AnyFilter

    def __str__(self) -> str:
        return f"~({self.of})"


class All(Filter, frozen=True, kw_only=True, tag="all"):
    """All of them hold."""

    of: tuple[AnyFilter, ...]

    def __str__(self) -> str:
        return " & ".join(f"({each})" for each in self.of)


class Some(Filter, frozen=True, kw_only=True, tag="some"):
    """At least one of them holds."""

    of: tuple[AnyFilter, ...]

    def __str__(self) -> str:
        return " | ".join(f"({each})" for each in self.of)


AnyFilter = Compares | IsIn | Matches | Not | All | Some


def _filter(left: Filter, other: object) -> Filter:
    if isinstance(other, Filter):
        return other
    raise TriggerError(f"({left!s:.200}) is joined with {other!r:.80}, which is no filter")


def _terms(filter_: Filter, kind: type[All] | type[Some]) -> tuple[Any, ...]:
    """Return what is joined, so that a long row of filters is not deep."""
    return filter_.of if isinstance(filter_, kind) else (filter_,)


def check_filter(filter_: Filter) -> None:
    """Raise TriggerError if a filter is too large to be asked of each arrival."""
    layer: list[Any] = [filter_]
    terms = 0
    for _ in range(DEEPEST_FILTER):
        terms += sum(len(each.values) if isinstance(each, IsIn) else 1 for each in layer)
        layer = [inner for each in layer for inner in _inside(each)]
        if terms > MOST_TERMS:
            raise TriggerError(f"where= has more than {MOST_TERMS} terms: filter in the workflow")
        if not layer:
            return
    raise TriggerError(f"where= is nested deeper than {DEEPEST_FILTER}: filter in the workflow")


def paths_of(filter_: Filter) -> Iterator[Path]:
    """Yield the paths of all facts that a filter asks for."""
    if isinstance(filter_, Compares | IsIn | Matches):
        yield filter_.path
    for inner in _inside(filter_):
        yield from paths_of(inner)


def _inside(filter_: Filter) -> tuple[Any, ...]:
    if isinstance(filter_, Not):
        return (filter_.of,)
    return filter_.of if isinstance(filter_, All | Some) else ()


# --- questions ------------------------------------------------------------------------------------
def read(facts: Facts, path: Path) -> Any:
    """Return the fact that a path leads to.

    Raises:
        FactMissing: it leads to nothing; the message says how far it came.
    """
    found: Any = facts
    for index, step in enumerate(path):
        if not _leads(found, step):
            raise FactMissing(
                f"{path_text(path)} is missing: {path_text(path[:index])} {_holds(found)}"
            )
        found = found[step]
    return found


def _leads(found: Any, step: str | int) -> bool:
    if isinstance(step, str):
        return isinstance(found, dict) and step in found
    return isinstance(found, list) and -len(found) <= step < len(found)


def ask(filter_: Filter, facts: Facts) -> Answer:
    """Return what a filter says of facts; raises nothing, whatever they are."""
    if isinstance(filter_, Not):
        inner = ask(filter_.of, facts)
        if inner.holds is None:
            return inner
        return Answer(not inner.holds, f"{filter_!s:.500} does not hold" if inner.holds else "")
    if isinstance(filter_, All | Some):
        return _joined(filter_, facts)
    try:
        found = read(facts, filter_.path)  # type: ignore[attr-defined]
    except FactMissing as missing:
        return Answer(None, str(missing))
    holds = _test(filter_, found)
    if holds:
        return Answer(True)
    because = f"it is {_shown(found)}" if holds is False else f"it is {_kind(found)}"
    return Answer(holds, f"{filter_!s:.500} does not hold: {because}")


def _joined(filter_: All | Some, facts: Facts) -> Answer:
    """Join answers: one that decides stands, else one that says neither yes nor no."""
    decides = isinstance(filter_, Some)
    answers: list[Answer] = []
    for each in filter_.of:
        answer = ask(each, facts)
        if answer.holds is decides:
            return answer
        answers.append(answer)
    unknown = [each for each in answers if each.holds is None]
    if decides:
        reason = "; ".join(each.reason for each in answers[:5])
        return Answer(None if unknown else False, reason[:1000])
    return unknown[0] if unknown else Answer(True)


def _test(filter_: Filter, found: Any) -> bool | None:
    if isinstance(filter_, Compares):
        return _compared(found, filter_.sign, filter_.value)
    if isinstance(filter_, IsIn):
        return any(_same(found, each) for each in filter_.values)
    if isinstance(filter_, Matches) and isinstance(found, str) and len(found) <= LONGEST_TEXT:
        return fnmatchcase(found, filter_.pattern)
    return None


def _compared(found: Any, sign: str, value: Scalar) -> bool | None:
    if sign == "==":
        return _same(found, value)
    if sign == "!=":
        return not _same(found, value)
    if _kind(found) != _kind(value) or _kind(value) not in ("text", "a number"):
        return None
    if sign == "<":
        return bool(found < value)
    if sign == "<=":
        return bool(found <= value)
    return bool(found > value) if sign == ">" else bool(found >= value)


def _same(found: Any, value: Scalar) -> bool:
    return _kind(found) == _kind(value) and bool(found == value)


def _kind(found: Any) -> str:
    if found is None:
        return "null"
    if isinstance(found, bool):
        return "true or false"
    if isinstance(found, str):
        return "text"
    if isinstance(found, int | float):
        return "a number"
    return "a list" if isinstance(found, list) else "an object"


def _shown(found: Any) -> str:
    kind = _kind(found)
    if kind in ("a list", "an object"):
        return kind
    if isinstance(found, str):
        return repr(found) if len(found) <= 80 else f"{found[:80]!r}..."
    try:
        return f"{found!r:.80}"
    except ValueError:  # of thousands of digits
        return "a number of thousands of digits"


def _holds(found: Any) -> str:
    if isinstance(found, dict):
        names = [_shown(each) for each, _ in zip(found, range(8), strict=False)]
        more = ", ..." if len(found) > len(names) else ""
        return f"has {', '.join(names)}{more}" if names else "is empty"
    if isinstance(found, list):
        return f"has {len(found)} items"
    return f"is {_kind(found)}"


def check_known(path: Path, known: tuple[str, ...], under: Path = ()) -> None:
    """Raise TriggerError, with what to write, if none of these names is what a path asks for.

    Args:
        path: to a fact.
        known: names of the facts that there are.
        under: where they are.
    """
    rest = path[len(under) :]
    if rest and rest[0] not in known:
        near = get_close_matches(str(rest[0]), known, n=1)
        hint = f", did you mean {path_text((*under, near[0]))}?" if near else "."
        listed = ", ".join(path_text((*under, each)) for each in known)
        wrong = path_text((*under, rest[0]))
        raise TriggerError(f"{wrong} is no fact that it has{hint} Known: {listed}")


# --- to and from a row ----------------------------------------------------------------------------
def written(facts: Facts) -> str:
    """Return facts as JSON text.

    Raises:
        TriggerError: they are no JSON, or too deep or too large to be kept.
    """
    try:
        text = json.dumps(facts, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise TriggerError(f"its facts are no JSON: {error!s:.200}") from None
    if size > LARGEST_FACTS_BYTES:
        raise TriggerError(f"its facts have {size:,} bytes, more than {LARGEST_FACTS_BYTES:,}")
    if text.count("[") + text.count("{") > DEEPEST_FACTS and _is_too_deep(facts):
        raise TriggerError(f"its facts are nested deeper than {DEEPEST_FACTS}")
    return text


def read_back(text: str) -> dict[str, Any]:
    """Return the facts that ``written`` gave.

    Raises:
        TriggerError: it is no such text.
    """
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TriggerError(f"stored facts cannot be read: {error!s:.200}") from None
    if not isinstance(facts, dict):
        raise TriggerError("stored facts cannot be read: they are no object")
    return facts


def _is_too_deep(facts: Facts) -> bool:
    layer: list[Any] = [facts]
    for _ in range(DEEPEST_FACTS):
        layer = [
            inner
            for each in layer
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, dict | list | tuple)
        ]
        if not layer:
            return False
    return True
