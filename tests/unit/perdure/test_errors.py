from __future__ import annotations

import importlib
import pickle
import pkgutil
from collections.abc import Iterator

import pytest

import perdure
import perdure_scheduler
import perdure_storage
from perdure import errors
from perdure.cli.endings import UsageError
from perdure.cli.opening import NoStoreYet
from perdure.errors import (
    CodeChanged,
    DefinitionError,
    Failure,
    NodeUse,
    NondeterminismError,
    PerdureError,
    RunFailed,
    RunNotFound,
    SecretMissing,
    StepFailed,
    StepTimeout,
    did_you_mean,
    known_names,
)
from perdure.options import OPTION_NAMES


def _below(cls: type[PerdureError]) -> Iterator[type[PerdureError]]:
    yield cls
    for each in cls.__subclasses__():
        yield from _below(each)


for package in (perdure, perdure_scheduler, perdure_storage):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if ".migrations" not in module.name and not module.name.endswith("__main__"):
            importlib.import_module(module.name)

CLASSES = sorted(
    {cls for cls in _below(PerdureError) if cls.__module__.startswith("perdure")},
    key=lambda cls: cls.__name__,
)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_pickles_with_its_facts(cls: type[PerdureError]) -> None:
    error = cls.__new__(cls, "what happened")
    error.args = ("what happened",)
    error.fact = ("x", 1)  # type: ignore[attr-defined]

    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is cls
    assert str(copy) == str(error)
    assert copy.fact == ("x", 1)


def test_the_classes_of_all_floors_are_among_those_that_pickle() -> None:
    names = {cls.__name__ for cls in CLASSES}

    assert {"NodeUse", "SchemaMismatch", "KeyMissing", "RowRefused", "UsageError"} <= names


@pytest.mark.parametrize(
    "error",
    [
        RunFailed("it failed", run_id="r", step_id="s"),
        StepTimeout("too long", step_id="s", timeout_s=2.5),
        CodeChanged("changed", function="m.f", recorded="a", found="b"),
        NondeterminismError("differs", run_id="r", step_id="s", consumers=("t", "u")),
        StepFailed("boom", type="m.E", traceback="..."),
        SecretMissing("TOKEN"),
        RunNotFound("iris", "sqlite:///s", "hint"),
        NoStoreYet("there is none"),
        UsageError("what", hint="so"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_facts_of_an_error_survive_pickling(error: PerdureError) -> None:
    assert vars(pickle.loads(pickle.dumps(error))) == vars(error)


def test_the_tree_in_the_docstring_names_every_class() -> None:
    missing = [
        cls.__name__
        for cls in CLASSES
        if cls.__name__ not in (errors.__doc__ or "") and cls.__module__ == "perdure.errors"
    ]

    assert missing == []


def test_a_misused_node_is_an_error_that_protocol_probes_understand() -> None:
    assert issubclass(NodeUse, DefinitionError)
    assert issubclass(NodeUse, AttributeError)
    assert issubclass(NodeUse, TypeError)


def test_a_failure_raises_a_built_in_exception_as_itself() -> None:
    error = Failure(type="builtins.ValueError", message="bad").exception()

    assert type(error) is ValueError
    assert str(error) == "bad"


@pytest.mark.parametrize("kind", ["app.Oops", "builtins.UnicodeDecodeError", "builtins.print"])
def test_a_failure_of_another_class_raises_step_failed(kind: str) -> None:
    error = Failure(type=kind, message="bad", traceback="trace").exception()

    assert isinstance(error, StepFailed)
    assert error.type == kind
    assert "bad" in str(error)


def test_did_you_mean_names_the_nearest_and_is_silent_otherwise() -> None:
    assert did_you_mean("retris", ["retries", "cpus"]) == "; did you mean 'retries'?"
    assert did_you_mean("xyz", ["retries", "cpus"]) == ""


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("retry", "retries"),  # which has fewer letters in common with it than retry_on
        ("retry_o", "retry_on"),
        ("retrys", "retries"),
        ("timout", "timeout"),
        ("output", "outputs"),
        ("CPU", "cpus"),
        ("gpu", "gpus"),
    ],
)
def test_did_you_mean_prefers_the_name_that_only_ends_otherwise(typed: str, meant: str) -> None:
    assert did_you_mean(typed, OPTION_NAMES) == f"; did you mean {meant!r}?"


def test_known_names_say_one_sentence_whether_or_not_a_name_is_near() -> None:
    assert known_names("cpu", ["cpus"]) == "; did you mean 'cpus'? Known: 'cpus'"
    assert known_names("xyz", ["cpus"]) == ". Known: 'cpus'"
    assert known_names("xyz", []) == ""
