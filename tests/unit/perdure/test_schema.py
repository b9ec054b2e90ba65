from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NewType, NotRequired, Optional, TypedDict
from uuid import UUID

import msgspec
import pydantic
import pytest

from perdure import DefinitionError, workflow
from perdure.conform import check_value
from perdure.conversion import from_text_or_json
from perdure.schema import Schema, convert


class Colour(enum.Enum):
    RED = "red"
    BLUE = 2


@dataclass
class Config:
    lr: float
    layers: list[int] = field(default_factory=list)


class Row(TypedDict):
    name: str
    size: NotRequired[int]


class Point(msgspec.Struct):
    x: int
    y: int = 0


class Model(pydantic.BaseModel):
    name: str
    size: int = 1


Id = NewType("Id", int)
UUID_TEXT = "12345678-1234-5678-1234-567812345678"

FITTING: list[tuple[Any, Any]] = [
    (int, 3),
    (float, 3.5),
    (float, 3),
    (str, "x"),
    (bool, True),
    (None, None),
    (Path, Path("a")),
    (date, date(2026, 1, 2)),
    (datetime, datetime(2026, 1, 2, tzinfo=UTC)),
    (timedelta, timedelta(1)),
    (Decimal, Decimal("1.5")),
    (UUID, UUID(UUID_TEXT)),
    (Colour, Colour.RED),
    (Literal["a", 1], "a"),
    (list[int], [1, 2]),
    (list, [1, "x"]),
    (dict[str, float], {"a": 1}),
    (tuple[int, str], (1, "x")),
    (tuple[int, ...], (1, 2, 3)),
    (set[str], {"a"}),
    (int | None, None),
    (Optional[int], 3),  # noqa: UP045
    (int | list[str], ["a"]),
    (Config, Config(0.1, [1])),
    (Row, {"name": "a"}),
    (Row, {"name": "a", "size": 1}),
    (Point, Point(1)),
    (Model, Model(name="a")),
    (Sequence[int], (1, 2)),
    (Mapping[str, int], {"a": 1}),
    (Id, 3),
    (Any, ...),
    (Callable[[int], int], len),
]

UNFIT: list[tuple[Any, Any, str]] = [
    (int, "3", "expected int, got str '3'"),
    (int, 3.0, "expected int, got float 3.0"),
    (int, True, "expected int, got bool True"),
    (float, "3", "expected float"),
    (float, True, "expected float"),
    (str, 3, "expected str, got int 3"),
    (bool, 1, "expected bool"),
    (Path, "a", "expected Path"),
    (datetime, date(2026, 1, 2), "expected datetime"),
    (Colour, "red", r"expected Colour \(RED, BLUE\)"),
    (Literal["a", 1], True, "expected 'a' | 1"),
    (list[int], [1, "x"], r"\[1\]: expected int, got str 'x'"),
    (list[int], (1,), "expected list"),
    (dict[str, list[int]], {"a": [1, None]}, r"\['a'\]\[1\]: expected int, got NoneType"),
    (dict[str, int], {1: 1}, "key 1"),
    (tuple[int, str], (1,), "expected tuple"),
    (int | None, "x", "expected int | None"),
    (Config, Config("x"), r"\.lr: expected float"),  # type: ignore[arg-type]
    (Config, Config(1.0, ["x"]), r"\.layers\[0\]: expected int"),  # type: ignore[list-item]
    (Row, {}, "with key 'name'"),
    (Row, {"name": "a", "sise": 1}, r"\['sise'\]: expected no such key"),
    (Point, {"x": 1}, "expected Point"),
    (Model, {"name": "a"}, "expected Model"),
    (set[int], {"a"}, "expected int"),
]


@pytest.mark.parametrize(("annotation", "value"), FITTING, ids=repr)
def test_a_value_of_the_annotated_type_fits(annotation: Any, value: Any) -> None:
    check_value(value, annotation, "x")


@pytest.mark.parametrize(("annotation", "value", "message"), UNFIT, ids=repr)
def test_a_value_of_another_type_is_refused_with_its_path(
    annotation: Any, value: Any, message: str
) -> None:
    with pytest.raises(DefinitionError, match=message):
        check_value(value, annotation, "x")


CONVERTED: list[tuple[Any, Any, Any]] = [
    (int, "3", 3),
    (int, 3, 3),
    (float, "3", 3.0),
    (float, 3, 3.0),
    (bool, "yes", True),
    (bool, "False", False),
    (bool, "0", False),
    (str, "3", "3"),
    (Path, "a/b", Path("a/b")),
    (date, "2026-01-02", date(2026, 1, 2)),
    (datetime, "2026-01-02T03:04:05+00:00", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
    (timedelta, "5m", timedelta(minutes=5)),
    (timedelta, "90", timedelta(seconds=90)),
    (timedelta, 90, timedelta(seconds=90)),
    (Decimal, "1.50", Decimal("1.50")),
    (Decimal, 1.5, Decimal("1.5")),
    (UUID, UUID_TEXT, UUID(UUID_TEXT)),
    (Colour, "RED", Colour.RED),
    (Colour, "red", Colour.RED),
    (Colour, "2", Colour.BLUE),
    (Colour, 2, Colour.BLUE),
    (Literal["a", 1], "1", 1),
    (Literal["a", "b"], "b", "b"),
    (list[int], ["1", "2"], [1, 2]),
    (list[int], "[1, 2]", [1, 2]),
    (list[int], "7", [7]),
    (list[Path], ["a"], [Path("a")]),
    (tuple[int, str], ["1", "x"], (1, "x")),
    (set[int], [1, 1], {1}),
    (dict[str, float], '{"a": 1}', {"a": 1.0}),
    (dict[int, str], {"1": "x"}, {1: "x"}),
    (int | None, "3", 3),
    (int | None, "null", None),
    (int | None, None, None),
    (str | None, "x", "x"),
    (int | str, "3", 3),
    (int | str, "x", "x"),
    (float | int, 3, 3),
    (Config, '{"lr": "0.1", "layers": [1, "2"]}', Config(0.1, [1, 2])),
    (Config, {"lr": 1}, Config(1.0)),
    (Row, '{"name": "a", "size": "2"}', {"name": "a", "size": 2}),
    (Point, '{"x": "1"}', Point(1)),
    (Model, '{"name": "a", "size": "2"}', Model(name="a", size=2)),
    (Any, "3", "3"),
]


@pytest.mark.parametrize(("annotation", "value", "expected"), CONVERTED, ids=repr)
def test_text_and_json_become_the_annotated_type(
    annotation: Any, value: Any, expected: Any
) -> None:
    converted = from_text_or_json(value, annotation, "x")

    assert converted == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (int, "x", "expected int, got str 'x'"),
        (int, 3.5, "expected int"),
        (bool, "maybe", "expected bool"),
        (bool, 1, "expected bool"),
        (date, "tomorrow", "expected date"),
        (timedelta, "soon", "expected timedelta"),
        (Decimal, "x", "expected Decimal"),
        (UUID, "x", "expected UUID"),
        (Colour, "rad", "did you mean"),
        (Literal["alpha", "beta"], "alhpa", "did you mean 'alpha'"),
        (list[int], ["1", "x"], r"\[1\]: expected int"),
        (list[int], "[1,", "JSON"),
        (dict[str, int], "3", "expected dict"),
        (int | None, "x", "expected int | None"),
        (Config, '{"lr": 1, "layrs": []}', "did you mean 'layers'"),
        (Config, "{}", "lr"),
        (Row, '{"size": 1}', "with key 'name'"),
        (Point, '{"x": "a"}', "expected Point"),
        (Model, "{}", "expected Model"),
        (str, 3, "expected str"),
        (int, "9" * 10_000, "expected int"),
    ],
    ids=repr,
)
def test_text_that_does_not_fit_is_refused_with_what_was_expected(
    annotation: Any, value: Any, message: str
) -> None:
    with pytest.raises(DefinitionError, match=message):
        from_text_or_json(value, annotation, "x")


@pytest.fixture
def schema() -> Schema:
    @workflow(name="w")
    def w(path: Path, k: int = 3, config: Config | None = None, free=None) -> Any:  # type: ignore[no-untyped-def]
        return path

    return w.schema


def test_a_schema_reads_annotations_and_defaults(schema: Schema) -> None:
    assert [each.name for each in schema.fields] == ["path", "k", "config", "free"]
    assert [each.text for each in schema.fields] == ["Path", "int", "Config | None", ""]
    assert [each.required for each in schema.fields] == [True, False, False, False]


def test_parameters_are_converted_by_their_annotation(schema: Schema) -> None:
    assert convert(schema, {"path": "a", "k": "4", "free": "x"}) == {
        "path": Path("a"),
        "k": 4,
        "free": "x",
    }


def test_an_unknown_parameter_names_the_one_that_was_meant(schema: Schema) -> None:
    with pytest.raises(DefinitionError, match=r"no parameter 'pth'; did you mean 'path'.*config"):
        convert(schema, {"pth": "a"})


def test_missing_and_doubled_parameters_are_refused(schema: Schema) -> None:
    with pytest.raises(DefinitionError, match="parameter 'path': Path is missing"):
        schema.complete({})
    with pytest.raises(DefinitionError, match="'path' is given twice"):
        schema.by_name((Path("a"),), {"path": Path("b")})
    with pytest.raises(DefinitionError, match="5 positional"):
        schema.by_name((1, 2, 3, 4, 5), {})


def test_an_annotation_that_cannot_be_found_admits_any_value() -> None:
    @workflow
    def w(x: Unknown, y: int) -> Any:  # type: ignore[name-defined]  # noqa: F821
        return x

    w.schema.check("x", object())
    with pytest.raises(DefinitionError):
        w.schema.check("y", "3")
