from __future__ import annotations

import asyncio
import inspect
import pickle
import re
from datetime import timedelta
from typing import Any

import cloudpickle
import pytest

from perdure import Backoff, plan, task, workflow
from perdure.errors import DefinitionError
from perdure.graph.node import Call, source_of
from perdure.options import BaseOptions, Options
from perdure.task import AsyncTask


@task
def load(path: str, limit: int = 10) -> str:
    """Load rows."""
    return f"{path}:{limit}"


@task
async def fetch(url: str) -> str:
    return url


def call_of(node: Any) -> Call:
    source = source_of(node)
    assert isinstance(source, Call)
    return source


def test_calling_a_task_calls_the_plain_function() -> None:
    assert load("a", limit=2) == "a:2"
    assert asyncio.run(fetch("u")) == "u"


def test_a_task_looks_like_its_function() -> None:
    assert load.__doc__ == "Load rows."
    assert load.__name__ == "load"
    assert str(inspect.signature(load)) == "(path: 'str', limit: 'int' = 10) -> 'str'"


def test_calling_a_task_with_a_node_says_what_to_write() -> None:
    with pytest.raises(DefinitionError, match=r"write `load\.bind\(\.\.\.\)`"):
        load(load.bind("a"))


def test_calling_a_task_in_a_traced_body_says_what_to_write() -> None:
    @workflow
    def w() -> Any:
        return load("a")

    with pytest.raises(DefinitionError, match=r"write `load\.bind\(\.\.\.\)`"):
        w.dag()


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((), {}), (("a", 1, 2), {}), (("a",), {"limt": 3}), (("a",), {"path": "b"})],
)
def test_wrong_arguments_are_refused_at_bind(args: Any, kwargs: Any) -> None:
    with pytest.raises(DefinitionError, match=r"load\.bind\(\).*it is load\(path"):
        load.bind(*args, **kwargs)


def test_options_give_a_copy_and_leave_the_task_alone() -> None:
    more = load.options(retries=3, name="other")

    assert (more.spec.options.retries, more.spec.name) == (3, "other")
    assert (load.spec.options.retries, load.spec.name) == (0, "load")


def test_every_option_is_read_with_its_units() -> None:
    @task(
        name="n",
        version="7",
        cpus=0.5,
        gpus=2,
        memory="4GiB",
        resources={"licence": 1},
        retries=2,
        retry_on=[ValueError],
        backoff=Backoff("2s", max="1m", jitter=0),
        lost_retries=-1,
        timeout=timedelta(minutes=10),
        allow_unenforced=True,
        checkpoint=False,
        catch=True,
        outputs=2,
        volatile=True,
    )
    def f() -> Any: ...

    assert f.spec.options == plan.StepOptions(
        cpus=0.5,
        gpus=2.0,
        memory_bytes=4 * 2**30,
        resources={"licence": 1.0},
        retries=2,
        backoff=plan.Backoff(first_s=2.0, factor=2.0, max_s=60.0, jitter=0.0),
        lost_retries=-1,
        timeout_s=600.0,
        allow_unenforced=True,
        checkpoint=False,
        catch=True,
        outputs=2,
        volatile=True,
    )
    assert (f.spec.name, f.spec.version, f.spec.retry_on) == ("n", "7", (ValueError,))


@pytest.mark.parametrize(
    "options",
    [
        {"retries": -1},
        {"retries": True},
        {"retries": 1.5},
        {"lost_retries": -2},
        {"timeout": 0},
        {"timeout": "soon"},
        {"memory": "lots"},
        {"cpus": "2"},
        {"gpus": 1.5},
        {"checkpoint": 1},
        {"outputs": 0},
        {"backoff": 3},
        {"retry_on": "ValueError"},
        {"version": 3},
        {"version": ""},
        {"version": "1\udcff"},
        {"name": ""},
        {"name": "a/b"},
        {"name": "a#2"},
        {"name": "a[1]"},
        {"name": "a~1"},
        {"name": "a\nb"},
        {"name": "a\udcff"},
        {"name": "x" * 2000},
        {"name": 3},
        {"after": 3},
        {"after": [3]},
        {"resources": {"cpus": 1}},
    ],
    ids=repr,
)
def test_an_option_that_makes_no_sense_is_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match=next(iter(options))):
        load.options(**options)


def test_an_unknown_option_names_the_one_that_was_meant() -> None:
    with pytest.raises(DefinitionError, match="did you mean 'retries'"):
        load.options(retires=2)  # type: ignore[call-overload]


def test_an_async_function_holds_no_cpu_unless_it_is_told_to() -> None:
    assert load.spec.options.cpus == 1.0
    assert fetch.spec.options.cpus == 0.0
    assert fetch.options(retries=1).spec.options.cpus == 0.0
    assert fetch.options(cpus=0.5).spec.options.cpus == 0.5
    assert task(cpus=2)(fetch.function).spec.options.cpus == 2.0


def test_a_task_of_an_async_function_knows_it() -> None:
    assert isinstance(fetch, AsyncTask)
    assert fetch.spec.is_async
    assert call_of(fetch.bind("u")).spec.is_async


def test_what_is_no_function_is_refused() -> None:
    def rows() -> Any:
        yield 1

    for wrong in (rows, int, 3, load, staticmethod(load.function)):
        with pytest.raises(DefinitionError):
            task(wrong)  # type: ignore[call-overload]


def test_a_lambda_can_be_a_task() -> None:
    double = task(lambda x: 2 * x)

    assert double(4) == 8
    assert double.spec.name.endswith("<lambda>")


def test_a_parameter_may_be_called_self() -> None:
    @task
    def f(self: int, task: int) -> int:
        return self + task

    assert call_of(f.bind(self=1, task=2)).kwargs == {"self": 1, "task": 2}


def test_a_local_task_travels_with_its_function_and_options() -> None:
    @task(retries=2)
    def local(x: int) -> int:
        return x + 1

    copy = pickle.loads(cloudpickle.dumps(local))

    assert copy(1) == 2
    assert copy.spec.options.retries == 2


def test_help_of_task_tells_each_option_as_its_type_does() -> None:
    told = " ".join((inspect.getdoc(task) or "").split())

    for documented in (BaseOptions, Options):
        _, _, listed = (inspect.getdoc(documented) or "").partition("Attributes:\n")
        for entry in re.split(r"^    (?=\S)", listed, flags=re.MULTILINE)[1:]:
            name, _, meaning = entry.partition(": ")
            assert f"- ``{name}``: {' '.join(meaning.split())}" in told
    assert all(f"- ``{name}``: " in told for name in Options.__annotations__)
