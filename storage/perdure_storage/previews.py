"""What a value looked like when it was stored: small JSON, so that looking never decodes.

Made by the worker. It never raises, whatever the value's own code does, and costs next to nothing:
only as much of a value is looked at as is shown.
"""

from __future__ import annotations

import base64
import io
import itertools
import math
import sys
from collections.abc import Iterable
from typing import Any

import msgspec

from perdure_storage.shapes import readable, shape_of, shown_name

LIMIT_BYTES = 2048

_ITEMS = 6
_DEPTH = 3
_TEXT = 120
_ROWS = 5
_COLUMNS = 12
_OWN_REPR_UP_TO_BYTES = 256 << 10
_FIGURES = 4
INDEX = "index"
"""In place of a type: what names the rows of a frame, and is no column of it."""
_FIGURE_BYTES = 24 << 10

_encode = msgspec.json.Encoder().encode


def preview(value: Any, *, size_bytes: int | None = None) -> str:
    """Return JSON with ``type``, ``repr`` and, where it makes sense, shape, dtype, rows, figure.

    At most 2 KiB of UTF-8, a figure's PNG (base 64) apart; of several in a list, a list of some.

    Args:
        value: anything.
        size_bytes: length of its encoding: a large object's own ``__repr__`` is not called.
    """
    cls = type(value)
    if (cls is int and value.bit_length() < 400) or cls is bool or cls is float or value is None:
        return f'{{"type":"{cls.__name__}","repr":"{value!r}"}}'
    try:
        return _bounded(_describe(cls, value, size_bytes))
    except Exception:  # noqa: BLE001 - the value's own code runs; a preview is no reason to fail
        return _bounded({"type": _name(cls)})


def _bounded(facts: dict[str, Any]) -> str:
    """Return the facts as JSON, leaving out the least needed ones until it is short enough."""
    figure = facts.pop("png", None)
    text = _encode(facts)
    for name in ("rows", "columns", "repr", "type"):
        if len(text) <= LIMIT_BYTES:
            break
        fact = facts.pop(name, None)
        if isinstance(fact, str):
            facts[name] = _cut(fact, 200)
        text = _encode(facts)
    return (text if figure is None else _encode({**facts, "png": figure})).decode()


def _describe(cls: type, value: Any, size_bytes: int | None) -> dict[str, Any]:
    facts: dict[str, Any] = {"type": _name(cls)}
    if isinstance(value, list | tuple | dict | set | frozenset | str | bytes | bytearray):
        facts["length"] = len(value)
        if figures := _figures_in(cls, value):
            facts["png"] = figures
    library = cls.__module__.partition(".")[0]
    extra = _LIBRARIES.get(library)
    if extra is not None and extra(cls, value, facts):
        return facts
    facts["repr"] = _cut(_Writer(size_bytes).text(value, _DEPTH), 600)
    return facts


def _name(cls: type) -> str:
    try:
        return _cut(shown_name(cls).removeprefix("builtins."), 200)
    except Exception:  # noqa: BLE001 - a user's metaclass may raise anything
        return "object"


def _cut(text: str, length: int) -> str:
    text = text if len(text) <= length else text[: length - 1] + "…"
    # Half a surrogate pair is no Unicode text; JSON would refuse it.
    return text.encode("utf-8", "replace").decode()


class _Writer:
    """A ``repr`` that looks at a few items only, whatever there is."""

    def __init__(self, size_bytes: int | None) -> None:
        self._calls_repr = size_bytes is None or size_bytes <= _OWN_REPR_UP_TO_BYTES

    def text(self, value: Any, depth: int) -> str:
        """Return a short text for ``value``."""
        cls = type(value)
        if cls is str or cls is bytes:
            return repr(value) if len(value) <= _TEXT else repr(value[:_TEXT]) + "…"
        if cls is int and value.bit_length() >= 400:
            return f"int of {value.bit_length()} bits"
        if cls in _BRACKETS:
            return self._container(cls, value, depth)
        shape = shape_of(cls)
        if shape is not None and shape.kind in ("data", "named", "struct", "model"):
            return self._object(cls, value, depth)
        if getattr(cls, "__repr__", None) is object.__repr__:
            return f"<{_name(cls)}>"
        return self._own(cls, value)

    def _container(self, cls: type, value: Any, depth: int) -> str:
        opening, closing = _BRACKETS[cls]
        if not value:
            return repr(value)
        if depth == 0:
            return f"{opening}…{closing}"
        if cls is dict:
            head = itertools.islice(value.items(), _ITEMS)
            parts = [f"{self.text(k, depth - 1)}: {self.text(v, depth - 1)}" for k, v in head]
        else:
            parts = [self.text(item, depth - 1) for item in itertools.islice(value, _ITEMS)]
        rest = len(value) - len(parts)
        return opening + ", ".join(parts) + (f", … {rest:,} more" if rest else "") + closing

    def _object(self, cls: type, value: Any, depth: int) -> str:
        if depth == 0:
            return f"{cls.__qualname__}(…)"
        names = list(_field_names(value))
        parts = [
            f"{name}={self.text(getattr(value, name, '?'), depth - 1)}" for name in names[:_ITEMS]
        ]
        return f"{cls.__qualname__}({', '.join(parts)}{', …' if len(names) > _ITEMS else ''})"

    def _own(self, cls: type, value: Any) -> str:
        if not self._calls_repr:
            return f"<{_name(cls)}>"
        try:
            return _cut(readable(str(repr(value))), 4 * _TEXT)
        except Exception as error:  # noqa: BLE001 - a user's __repr__ may raise anything
            return f"<{_name(cls)}: its repr raised {type(error).__name__}>"


def _field_names(value: Any) -> Iterable[str]:
    for attribute in ("__dataclass_fields__", "_fields", "__struct_fields__", "model_fields"):
        names = getattr(type(value), attribute, None)
        if names is not None:
            return names  # type: ignore[no-any-return]
    return ()


_BRACKETS: dict[type, tuple[str, str]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    dict: ("{", "}"),
    set: ("{", "}"),
    frozenset: ("frozenset({", "})"),
}


def _number(value: Any) -> Any:
    """Return a finite number as JSON has it, anything else as text."""
    if isinstance(value, int | bool | None):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return _cut(str(value), 40)


def _numpy(cls: type, value: Any, facts: dict[str, Any]) -> bool:
    import numpy as np

    if cls is not np.ndarray:
        return False
    dtype = _cut(str(value.dtype), 200)
    facts.update(shape=list(value.shape), dtype=dtype, size_bytes=value.nbytes)
    if value.dtype != object and value.dtype.fields is None:
        head = value.reshape(-1)[:_ITEMS] if value.flags.c_contiguous else value.flat[:_ITEMS]
        facts["head"] = [_number(item) for item in head.tolist()]
    return True


def _pyarrow(cls: type, value: Any, facts: dict[str, Any]) -> bool:
    import pyarrow as pa

    if cls not in (pa.Table, pa.RecordBatch):
        return False
    _columns(facts, {field.name: str(field.type) for field in value.schema})
    facts.update(shape=[value.num_rows, value.num_columns], size_bytes=value.nbytes)
    head = value.slice(0, _ROWS)
    names = value.schema.names[:_COLUMNS]
    columns = [head.column(at).to_pylist() for at in range(len(names))]
    facts["rows"] = [[_cell(item) for item in row] for row in zip(*columns, strict=True)]
    return True


def _pandas(cls: type, value: Any, facts: dict[str, Any]) -> bool:
    import pandas as pd

    if cls is pd.Series:
        facts.update(shape=list(value.shape), dtype=str(value.dtype))
        if _says_nothing(value.index) and value.name is None:
            facts["head"] = [_cell(item) for item in value.iloc[:_ITEMS].tolist()]
        else:
            _pandas_rows(value.to_frame("value" if value.name is None else value.name), facts)
        return True
    if cls is not pd.DataFrame:
        return False
    facts["shape"] = list(value.shape)
    _pandas_rows(value, facts)
    return True


def _pandas_rows(frame: Any, facts: dict[str, Any]) -> None:
    """Note the first rows; an index that tells something comes before the columns."""
    index = None if _says_nothing(frame.index) else frame.index
    levels = [] if index is None else [str(name or "") for name in index.names]
    columns = [(str(name), str(kind)) for name, kind in frame.dtypes.items()]
    _columns(facts, {**dict.fromkeys(levels, INDEX), **dict(columns)})
    head = frame.iloc[:_ROWS, : max(0, _COLUMNS - len(levels))]
    rows = [list(row) for row in head.itertuples(name=None, index=False)]
    if index is not None:
        keys = [key if len(levels) > 1 else (key,) for key in index[:_ROWS]]
        rows = [[*key, *row] for key, row in zip(keys, rows, strict=True)]
    facts["rows"] = [[_cell(item) for item in row] for row in rows]


def _says_nothing(index: Any) -> bool:
    """Say whether an index only counts the rows."""
    import pandas as pd

    plain = isinstance(index, pd.RangeIndex) and index.name is None
    return plain and (index.start, index.step) == (0, 1)


def _polars(cls: type, value: Any, facts: dict[str, Any]) -> bool:
    import polars as pl

    if cls is not pl.DataFrame:
        return False
    _columns(facts, {name: str(kind) for name, kind in value.schema.items()})
    facts["shape"] = list(value.shape)
    head = value[:_ROWS, :_COLUMNS]
    facts["rows"] = [[_cell(item) for item in row] for row in head.rows()]
    return True


def _columns(facts: dict[str, Any], columns: dict[str, str]) -> None:
    shown = list(columns.items())[:_COLUMNS]
    facts["columns"] = {_cut(name, 40): _cut(kind, 40) for name, kind in shown}


def _cell(item: Any) -> Any:
    return _number(item) if isinstance(item, int | float | None) else _cut(str(item), 40)


def _torch(cls: type, value: Any, facts: dict[str, Any]) -> bool:
    facts.update(shape=list(value.shape), dtype=str(value.dtype), device=str(value.device))
    return True


def _matplotlib(cls: type, value: Any, facts: dict[str, Any]) -> bool:
    if not _is_figure(value):
        return False
    if png := _png(value):
        facts["png"] = png
    return True


def _is_figure(value: Any) -> bool:
    figure = sys.modules.get("matplotlib.figure")
    return figure is not None and isinstance(value, figure.Figure)


def _png(figure: Any) -> str:
    """Return a figure in base 64; "" if it is too large however coarse."""
    for dpi in (60, 30, 15):
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=dpi)
        if file.tell() <= _FIGURE_BYTES:
            return base64.b64encode(file.getvalue()).decode()
    return ""


def _figures_in(cls: type, value: Any) -> list[str]:
    """Return the figures among the first items of a list, a tuple or a dict."""
    if cls not in (list, tuple, dict) or "matplotlib.figure" not in sys.modules:
        return []
    items = itertools.islice(value.values() if cls is dict else value, _FIGURES)
    return [png for item in items if _is_figure(item) and (png := _png(item))]


_LIBRARIES = {
    "numpy": _numpy,
    "pyarrow": _pyarrow,
    "pandas": _pandas,
    "polars": _polars,
    "torch": _torch,
    "matplotlib": _matplotlib,
}
