"""Values as they looked when they were committed: nothing is read, decoded or unpickled."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from perdure import words
from perdure.cli.endings import UsageError
from perdure.plan import (
    Arg,
    Const,
    DictArg,
    FromInput,
    FromStep,
    ItemsOf,
    ListArg,
    ObjectArg,
    RefTo,
    path_text,
)
from perdure.view.model import Preview
from perdure_storage.previews import INDEX

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from perdure.plan import Plan
    from perdure.runs import Run, Step
    from perdure_storage.records import StoredValue


class ValueView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One stored value.

    Attributes:
        at: its place in the result, ``[0]``; empty if it is the whole.
        of: the step, or the input, that it is the value of.
        part: which part of that value is meant, ``["rows"]``; empty if all of it.
        place: where its bytes are: inline (in the row), blob, spool or none.
        preview: what it looked like when it was committed.
    """

    of: str
    at: str = ""
    part: str = ""
    codec: str = ""
    place: str = ""
    size_bytes: int | None = None
    digest: str = ""
    preview: Preview | None = None


def view_step_value(step: Step) -> ValueView:
    """Return the value of a step.

    Raises:
        UsageError: it has none.
    """
    value = step.row.value if step.row is not None else None
    if value is None:
        raise UsageError(
            f"step {step.id} of run {step.run.id} is {step.status}: it has no value",
            f"why: perdure why {step.run.id} {step.id}",
        )
    return _view(value, of=f"step {step.id}")


def view_result(run: Run) -> list[ValueView]:
    """Return the values that a run's result is made of, in order.

    Raises:
        UsageError: it has no result.
    """
    if run.status != "SUCCEEDED":
        raise UsageError(
            f"run {run.id} is {run.status}: it has no result",
            f"its steps, which may have values: perdure show {run.id}",
        )
    steps = {step.id: step for step in run.steps()}
    return [_leaf(run, steps, at, leaf) for at, leaf in _leaves(run.plan, run.plan.output, "")]


def _leaves(plan: Plan, arg: Arg, at: str) -> Iterator[tuple[str, Arg]]:
    match arg:
        case ListArg(items):
            for index, item in enumerate(items):
                yield from _leaves(plan, item, f"{at}[{index}]")
        case DictArg(keys, values):
            for key, value in zip(keys, values, strict=True):
                yield from _leaves(plan, value, f"{at}[{_key(plan, key)}]")
        case ObjectArg():
            for name, value in arg.fields.items():
                yield from _leaves(plan, value, f"{at}.{name}")
        case _:
            yield at, arg


def _key(plan: Plan, key: Const) -> str:
    preview = _preview(plan.constants[key.index])
    return str(preview.get("repr", "?")) if preview else "?"


def _leaf(run: Run, steps: dict[str, Step], at: str, leaf: Arg) -> ValueView:
    match leaf:
        case ItemsOf(step) | RefTo(step):
            return ValueView(of=f"step {step}", at=at)
        case FromStep(step, path):
            row = steps[step].row
            value = row.value if row is not None else None
            return _view(value, of=f"step {step}", at=at, part=path_text(path))
        case FromInput(name, path):
            value = run.record.inputs.get(name)
            return _view(value, of=f"input {name}", at=at, part=path_text(path))
        case Const(index):
            return _view(run.plan.constants[index], of="a constant", at=at)
        case _:
            return ValueView(of="a secret", at=at)


def _view(value: StoredValue | None, *, of: str, at: str = "", part: str = "") -> ValueView:
    if value is None:
        return ValueView(of=of, at=at, part=part)
    return ValueView(
        of=of,
        at=at,
        part=part,
        codec=value.codec,
        place=value.place.value,
        size_bytes=value.size_bytes,
        digest=value.value_digest,
        preview=_preview(value),
    )


def _preview(value: StoredValue) -> Preview | None:
    return msgspec.json.decode(value.preview, type=Preview) if value.preview else None


# --- as text ----------------------------------------------------------------------------------
def print_value(view: ValueView) -> None:
    """Print what a value is, then its first rows, its first items, or its short form."""
    from perdure.cli.tables import console

    out = console()
    preview = view.preview or {}
    for name, text in _facts(view, preview):
        out.print(_plain(f"{name:<7} {text}"), soft_wrap=True)
    if preview.get("rows") is not None:
        out.print(_rows(preview))
        if hidden := _hidden(preview):
            out.print(f"... {hidden}")
    elif "head" in preview:
        out.print(_plain(f"\n{_head(preview)}"), soft_wrap=True)
    elif "repr" in preview:
        out.print(_plain(f"\n{preview['repr']}"), soft_wrap=True)


def _facts(view: ValueView, preview: Preview) -> Iterator[tuple[str, str]]:
    where = f"result{view.at}: " if view.at else ""
    yield "value", f"{where}{view.of}{view.part and ', of which ' + view.part}"
    if "type" in preview:
        yield "type", str(preview["type"])
    if "shape" in preview:
        yield "shape", " x ".join(f"{length:,}" for length in preview["shape"])
    elif "length" in preview:
        yield "length", f"{preview['length']:,}"
    if "dtype" in preview:
        yield "dtype", str(preview["dtype"])
    if view.size_bytes is not None:
        place = _PLACES.get(view.place, view.place)
        yield "stored", f"{words.size(view.size_bytes)}, {view.codec}, {place}"


_PLACES = {"inline": "in the row", "blob": "as a blob", "none": "not kept"}


def _rows(preview: Preview) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    rows: list[list[Any]] = preview["rows"]
    columns: dict[str, str] = preview.get("columns") or {}
    names = list(columns.items()) or [(str(at), "") for at in range(len(rows[0]) if rows else 0)]
    for name, kind in names:
        table.add_column(_plain(f"\n{name}\n{kind}"), overflow="fold")
    for row in rows:
        table.add_row(*(_plain("" if cell is None else str(cell)) for cell in row))
    return table


def _plain(text: str) -> Text:
    """Return text that Rich takes for no markup and a terminal for no command."""
    from rich.text import Text

    return Text("\n".join(words.printable(line) for line in text.split("\n")))


def _hidden(preview: Preview) -> str:
    """Return how much of a table its preview leaves out: ``"145 more rows, 3 more columns"``."""
    rows, columns = [*preview.get("shape", ()), 0, 0][:2]
    kinds: dict[str, str] = preview.get("columns") or {}
    left = {
        "row": rows - len(preview["rows"]),
        "column": columns - sum(kind != INDEX for kind in kinds.values()),
    }
    return ", ".join(words.count_of(n, f"more {noun}") for noun, n in left.items() if n > 0)


def _head(preview: Preview) -> str:
    head = ", ".join(str(item) for item in preview["head"])
    count = math.prod(preview.get("shape", []))
    return f"[{head}{', ...' if count > len(preview['head']) else ''}]"
