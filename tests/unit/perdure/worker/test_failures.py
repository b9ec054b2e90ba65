from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perdure.worker.failures import error_record
from perdure.worker.secrets import Redactor


class Hostile(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not telling")


class Unpicklable(Exception):
    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("stays here")


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001 - with its traceback, of whatever class
        return caught


def test_record_survives_an_exception_that_cannot_be_printed() -> None:
    record = error_record(raised(Hostile()), skip=0)

    assert record.message == "<its __str__ raised RuntimeError>"
    assert "Hostile" in record.traceback


def test_record_keeps_the_text_when_the_exception_cannot_be_pickled() -> None:
    record = error_record(raised(Unpicklable("words")), pickle=pickle.dumps)

    assert record.message == "words"
    assert record.pickled is None


def test_record_keeps_the_exception_for_raising_it_again() -> None:
    record = error_record(raised(ValueError("words")), pickle=pickle.dumps)

    assert record.pickled is not None
    assert str(pickle.loads(record.pickled)) == "words"


def test_record_masks_secrets_and_drops_the_pickle_that_holds_them() -> None:
    redactor = Redactor(["hush-hush"])

    record = error_record(
        raised(ValueError("token hush-hush")), pickle=pickle.dumps, redactor=redactor, skip=0
    )

    assert record.message == "token ***"
    assert "hush" not in record.traceback
    assert record.pickled is None


FILE = """
def inner(x):
    raise ValueError("inner")

def outer(x):
    try:
        inner(x)
    except ValueError as error:
        raise KeyError("outer") from error
"""


@pytest.mark.parametrize(
    ("old", "new", "shown"),
    [
        ("", "# after it\n", {"outer", "inner"}),
        ('raise ValueError("inner")', 'return x, "mended"', {"outer"}),
        ('    raise ValueError("inner")', '    # why\n    raise ValueError("inner")', set()),
        ("def inner", "import os\n\ndef inner", set()),
        ("def outer(x)", "def outer(x", set()),
    ],
    ids=["below", "inner", "comment", "above", "broken"],
)
def test_traceback_shows_only_lines_that_are_of_the_code_that_ran(
    tmp_path: Path, old: str, new: str, shown: set[str]
) -> None:
    path = tmp_path / "pipe.py"
    path.write_text(FILE)
    names: dict[str, Any] = {}
    exec(compile(FILE, str(path), "exec"), names)
    path.write_text(FILE.replace(old, new, 1) if old else FILE + new)

    with pytest.raises(KeyError) as caught:
        names["outer"](1)
    text = error_record(caught.value).traceback

    lines = [line.strip() for line in text.splitlines()]
    assert lines.count('raise KeyError("outer") from error') == ("outer" in shown)
    assert lines.count('raise ValueError("inner")') == ("inner" in shown)
    assert "mended" not in text
    told = lines.count("(pipe.py has changed since this code was recorded)")
    assert told == (0 if len(shown) == 2 else 1)
    assert f'File "{path}", line 3, in inner' in lines


def test_record_of_an_endless_message_is_cut_in_its_middle() -> None:
    record = error_record(raised(ValueError("a" * 1_000_000 + "the end")))

    assert len(record.message) < 20_000
    assert record.message.endswith("the end")


@pytest.mark.parametrize("cls", [ValueError, KeyboardInterrupt])
def test_record_names_the_class_with_its_module(cls: type[BaseException]) -> None:
    assert error_record(raised(cls())).type == f"builtins.{cls.__name__}"


def test_record_of_an_error_about_a_file_name_that_is_not_utf8_can_be_sent() -> None:
    error = raised(ValueError("cannot parse: \udcff"))

    record = error_record(error, pickle=pickle.dumps, note="not \udcff", skip=0)

    assert record.message == "cannot parse: \\udcff"
    assert "cannot parse: \\udcff" in record.traceback
    assert record.traceback.endswith("note: not \\udcff\n")
    assert msgspec.msgpack.encode(record)
    assert record.pickled is not None
    assert pickle.loads(record.pickled).args == ("cannot parse: \udcff",)
