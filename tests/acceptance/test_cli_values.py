"""``perdure cat`` and ``perdure get``: real processes over one store that all tests here share."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from perdure.cli import main

VALUES = dedent(
    """
    import numpy as np
    import pandas as pd
    from perdure import task, workflow


    class Trap:
        def __reduce__(self):
            return (spring, ())


    def spring():
        import pathlib

        pathlib.Path("sprung").touch()
        return Trap()


    class Thing:
        def __init__(self, x: int) -> None:
            self.x = x


    @task
    def frame() -> object:
        return pd.DataFrame({"a": range(100), "b": [f"[red]{i}" for i in range(100)]})

    @task
    def array() -> object:
        return np.arange(10_000.0).reshape(100, 100)

    @task
    def text() -> str:
        return "héllo"

    @task
    def data() -> bytes:
        return bytes([0, 255, 10])

    @task
    def numbers() -> dict:
        return {"a": [1, 2.5, None], "b": "ö"}

    @task
    def nan() -> float:
        return float("nan")

    @task
    def thing() -> object:
        return Thing(3)

    @task
    def trap() -> object:
        return Trap()

    @task(checkpoint=False)
    def fleeting() -> list:
        return [0] * 100_000

    @task
    def length(items: list) -> int:
        return len(items)

    @task
    def odd() -> str:
        return "\\x1b[31mred\\x07"

    @workflow
    def values(k: int = 3) -> dict:
        trap.bind()
        odd.bind()
        return {
            "frame": frame.bind(), "array": array.bind(), "texts": [text.bind(), k],
            "data": data.bind(), "numbers": numbers.bind(), "nan": nan.bind(),
            "thing": thing.bind(), "length": length.bind(fleeting.bind()), "seven": 7,
        }

    @task
    def fail() -> int:
        raise ValueError("no")

    @workflow
    def fails() -> int:
        return fail.bind()

    @workflow
    def plain(k: int = 3) -> dict:
        return numbers.bind()
    """
)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, command_line_in: Any) -> Any:
    """A folder with three runs: ``v`` of all kinds of values, ``f`` failed, ``p`` plain."""
    command_line = command_line_in(tmp_path_factory.mktemp("values"))
    command_line.write("values.py", VALUES)
    assert command_line("run", "--id", "v", "values.py:values").code == 0
    assert command_line("run", "--id", "f", "values.py:fails").code == 1
    assert command_line("run", "--id", "p", "values.py:plain").code == 0
    (command_line.folder / "sprung").unlink(missing_ok=True)
    return command_line


# --- cat ---------------------------------------------------------------------------------------
def test_cat_of_a_step_shows_type_shape_and_first_rows(seen: Any) -> None:
    ended = seen("cat", "v", "frame")

    assert ended.code == 0
    assert "pandas.DataFrame" in ended.out
    assert "100 x 2" in ended.out
    assert "[red]0" in ended.out
    assert "95 more rows" in ended.out


def test_cat_of_an_array_shows_dtype_and_first_items(seen: Any) -> None:
    out = seen("cat", "v", "array").out

    assert "float64" in out
    assert "100 x 100" in out
    assert "[0.0, 1.0, 2.0" in out


def test_cat_of_a_run_shows_each_value_of_its_result_and_where_it_is(seen: Any) -> None:
    shown = json.loads(seen("cat", "v", "--json").out)

    places = {value["at"]: value["of"] for value in shown["values"]}
    assert places["['texts'][0]"] == "step text"
    assert places["['texts'][1]"] == "input k"
    assert places["['seven']"] == "a constant"
    assert places["['frame']"] == "step frame"


def test_cat_never_unpickles_and_never_runs_code(seen: Any) -> None:
    step = seen("cat", "v", "trap")

    assert step.code == 0
    assert "pickle/1" in step.out
    assert seen("cat", "v").code == 0
    assert not (seen.folder / "sprung").exists()


def test_cat_shows_no_control_characters(seen: Any) -> None:
    out = seen("cat", "v", "odd").out

    assert "red" in out
    assert "\x1b" not in out
    assert "\x07" not in out


def test_cat_shows_what_was_not_kept_as_it_looked(seen: Any) -> None:
    shown = json.loads(seen("cat", "v", "fleeting", "--json").out)["values"][0]

    assert shown["preview"]["length"] == 100_000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cat", "v", "frme"], "did you mean 'frame'"),
        (["cat", "nothing"], "nothing"),
        (["cat", "f"], "FAILED: it has no result"),
        (["cat", "f", "fail"], "it has no value"),
        (["cat"], "missing argument 'ID'"),
        (["get", "v"], "-o FILE"),
        (["get", "v", "-o", " "], "-o FILE"),
        (["get", "v", "frme", "-o", "x.csv"], "did you mean 'frame'"),
        (["get", "f", "-o", "x.json"], "FAILED: it has no result"),
        (["get", "v", "frame", "-o", "x.json"], "-o NAME.parquet"),
        (["get", "v", "nan", "-o", "x.json"], "-o NAME.pkl"),
        (["get", "v", "numbers", "-o", "x.csv"], "it is no table"),
        (["get", "v", "numbers", "-o", "x.npy"], "it is no array"),
        (["get", "v", "numbers", "-o", "x.txt"], "it is no text"),
        (["get", "v", "text", "-o", "x.bin"], "it is no bytes"),
        (["get", "v", "thing", "-o", "x.foo"], ".parquet"),
        (["get", "v", "thing", "-o", "x"], ".parquet"),
        (["get", "v", "frame", "-o", "-"], "-o NAME.parquet"),
        (["get", "v", "text", "-o", "."], "is a folder"),
        (["get", "v", "text", "-o", "/dev/null", "--force"], "is no plain file"),
        (["get", "v", "text", "-o", "no/such/x.txt"], "mkdir -p no/such"),
    ],
    ids=" ".join,
)
def test_value_that_cannot_be_shown_or_written_is_refused(
    seen: Any, words: list[str], said: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(seen.folder)
    before = sorted(seen.folder.iterdir())

    code = main(words)

    printed = capsys.readouterr()
    assert code == 2, printed.err
    assert said in printed.err
    assert printed.out == ""
    assert sorted(seen.folder.iterdir()) == before


# --- get ---------------------------------------------------------------------------------------
def test_get_writes_json(seen: Any, tmp_path: Path) -> None:
    ended = seen("get", "p", "-o", tmp_path / "x.json")

    assert ended.code == 0
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": [1, 2.5, None], "b": "ö"}


def test_get_writes_tables(seen: Any, tmp_path: Path) -> None:
    import pandas as pd
    import pyarrow as pa

    for name in ("x.csv", "x.parquet", "x.arrow"):
        assert seen("get", "v", "frame", "-o", tmp_path / name).code == 0

    assert pd.read_csv(tmp_path / "x.csv").shape == (100, 2)
    assert pd.read_parquet(tmp_path / "x.parquet")["b"][99] == "[red]99"
    assert pa.ipc.open_file(tmp_path / "x.arrow").read_all().num_rows == 100


def test_get_writes_arrays_text_and_bytes(seen: Any, tmp_path: Path) -> None:
    import numpy as np

    for step, name in (("array", "x.npy"), ("text", "x.md"), ("data", "x.bin")):
        assert seen("get", "v", step, "-o", tmp_path / name).code == 0

    assert np.load(tmp_path / "x.npy")[99, 99] == 9999.0
    assert (tmp_path / "x.md").read_text() == "héllo"
    assert (tmp_path / "x.bin").read_bytes() == bytes([0, 255, 10])


def test_get_writes_an_object_of_a_script_as_a_pickle_that_needs_no_perdure(
    seen: Any, tmp_path: Path
) -> None:
    assert seen("get", "v", "thing", "-o", tmp_path / "x.pkl").code == 0

    assert pickle.loads((tmp_path / "x.pkl").read_bytes()).x == 3


def test_get_to_the_standard_output_is_raw_for_text_and_json_for_the_rest(seen: Any) -> None:
    assert seen("get", "v", "text", "-o", "-").out == "héllo"
    assert seen("get", "v", "text", "-o", "-", "--json").out == '"héllo"\n'
    assert json.loads(seen("get", "p", "-o", "-").out)["b"] == "ö"


def test_get_overwrites_only_by_force(seen: Any, tmp_path: Path) -> None:
    target = tmp_path / "x.txt"
    target.write_text("mine")

    refused = seen("get", "v", "text", "-o", target)
    kept = target.read_text()
    forced = seen("get", "v", "text", "-o", target, "--force", "--json")

    assert (refused.code, kept) == (2, "mine")
    assert "--force" in refused.err
    assert json.loads(forced.out) == {"file": str(target), "size_bytes": 6}
    assert target.read_text() == "héllo"


def test_get_of_a_value_that_was_not_kept_says_what_rebuilds_it(seen: Any, tmp_path: Path) -> None:
    ended = seen("get", "v", "fleeting", "-o", tmp_path / "x.json")

    assert ended.code == 1
    assert "perdure resume v" in ended.err
    assert list(tmp_path.iterdir()) == []


def test_show_names_arrays_and_tables_by_type_and_shape(seen: Any) -> None:
    out = seen("show", "v").out

    assert "pandas.DataFrame 100 x 2" in out
    assert "numpy.ndarray 100 x 100 float64" in out


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder nobody can write in")
def test_get_into_a_folder_that_cannot_be_written_names_the_file_that_was_asked_for(
    seen: Any,
) -> None:
    ended = seen("get", "v", "text", "-o", "/proc/x.txt")

    assert ended.code == 2
    assert ended.err.startswith("error: /proc/x.txt cannot be written: ")
    assert ".tmp" not in ended.err
