"""A value as a file: the formats that ``perdure get`` writes, by the file's suffix."""

# pyright: basic
# Arrow, cloudpickle and whatever values users have come without types.

from __future__ import annotations

import json
from collections.abc import Callable
from typing import IO, Any

from perdure.cli.endings import UsageError

Writer = Callable[[Any, IO[bytes]], None]


class Unfit(Exception):
    """A format cannot say this value; the message is the reason."""


def writer_for(suffix: str, value: Any) -> Writer:
    """Return what writes ``value`` into a file of this suffix.

    A str or bytes goes as it is into a file of any suffix that is none of ``FORMATS``.

    Raises:
        UsageError: nothing does.
    """
    found = FORMATS.get(suffix.lower())
    if found is not None:
        return found
    if isinstance(value, str | bytes | bytearray | memoryview):
        return _as_it_is
    named = f"the suffix {suffix!r} says nothing" if suffix else "a file without a suffix"
    raise UsageError(
        f"{named}: of a {_kind(value)} it is not known in which format to write it",
        f"name it with one of {', '.join(FORMATS)}",
    )


def writer_for_stdout(value: Any) -> Writer:
    """Return what writes ``value`` for a pipe: text and bytes as they are, all else as JSON."""
    return _as_it_is if isinstance(value, str | bytes | bytearray | memoryview) else _json


def write(value: Any, writer: Writer, file: IO[bytes], suffix: str) -> None:
    """Write ``value``.

    Raises:
        UsageError: this format cannot say it; names one that can.
    """
    try:
        writer(value, file)
    except Unfit as unfit:
        raise UsageError(
            f"a {_kind(value)} cannot be written as {suffix}: {unfit}",
            f"this can hold it: -o NAME{_natural_suffix(value)}",
        ) from unfit


def _json(value: Any, file: IO[bytes]) -> None:
    import msgspec

    try:
        plain = msgspec.to_builtins(value, str_keys=True, enc_hook=_plain)
        # NaN and infinity are no JSON; null in their place would be another value.
        text = json.dumps(plain, ensure_ascii=False, allow_nan=False, indent=2)
        file.write(text.encode() + b"\n")
    except (TypeError, ValueError, RecursionError) as error:
        raise Unfit(str(error)) from error


def _plain(value: Any) -> Any:
    """Return numpy's numbers and arrays as JSON's; all else JSON cannot say."""
    if type(value).__module__.partition(".")[0] == "numpy" and hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"JSON has nothing for a {_kind(value)}")


def _csv(value: Any, file: IO[bytes]) -> None:
    import pyarrow as pa
    import pyarrow.csv

    try:
        pyarrow.csv.write_csv(_table(value), file)
    except pa.ArrowException as error:
        raise Unfit(f"CSV has flat columns only ({error})") from error


def _parquet(value: Any, file: IO[bytes]) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    try:
        pyarrow.parquet.write_table(_table(value), file)
    except pa.ArrowException as error:
        raise Unfit(str(error)) from error


def _arrow(value: Any, file: IO[bytes]) -> None:
    import pyarrow as pa

    table = _table(value)
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def _table(value: Any) -> Any:
    """Return a table or a frame of any library as an Arrow table."""
    import pyarrow as pa

    library, name = type(value).__module__.partition(".")[0], type(value).__name__
    try:
        match library, name:
            case "pyarrow", "Table":
                return value
            case "pyarrow", "RecordBatch":
                return pa.Table.from_batches([value])
            case "pandas", "DataFrame":
                return pa.Table.from_pandas(value)
            case "pandas", "Series":
                return pa.Table.from_pandas(value.to_frame())
            case "polars", "DataFrame":
                return value.to_arrow()
            case "polars", "Series":
                return value.to_frame().to_arrow()
            case _:
                raise Unfit("it is no table")
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise Unfit(str(error)) from error


def _npy(value: Any, file: IO[bytes]) -> None:
    import numpy as np

    library = type(value).__module__.partition(".")[0]
    if library == "torch" and hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    elif library != "numpy":
        raise Unfit("it is no array")
    try:
        np.save(file, value, allow_pickle=False)
    except ValueError as error:
        raise Unfit("its items are Python objects") from error


def _pickle(value: Any, file: IO[bytes]) -> None:
    import cloudpickle

    cloudpickle.dump(value, file)


def _text(value: Any, file: IO[bytes]) -> None:
    if not isinstance(value, str):
        raise Unfit("it is no text")
    _as_it_is(value, file)


def _bytes(value: Any, file: IO[bytes]) -> None:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise Unfit("it is no bytes")
    _as_it_is(value, file)


def _as_it_is(value: Any, file: IO[bytes]) -> None:
    try:
        file.write(value.encode() if isinstance(value, str) else value)
    except UnicodeEncodeError as error:
        raise Unfit("it has half of a surrogate pair, which is no Unicode text") from error


FORMATS: dict[str, Writer] = {
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".npy": _npy,
    ".txt": _text,
    ".bin": _bytes,
    ".pkl": _pickle,
}


def _natural_suffix(value: Any) -> str:
    """Return a suffix whose format can say the value."""
    library = type(value).__module__.partition(".")[0]
    if library in ("pandas", "polars", "pyarrow"):
        return ".parquet"
    if library in ("numpy", "torch"):
        return ".npy"
    if isinstance(value, str):
        return ".txt"
    return ".bin" if isinstance(value, bytes | bytearray | memoryview) else ".pkl"


def _kind(value: Any) -> str:
    from perdure_storage.shapes import shown_name

    return shown_name(type(value)).removeprefix("builtins.")
