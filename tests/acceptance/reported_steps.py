"""Workflows of every kind that a page has to show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

import perdure
from perdure import Backoff, Static, task, workflow
from perdure.view.activity import Activity

EVIL = "<script>alert('EVIL')</script>"


@task
def numbers(n: int) -> list[int]:
    print("making", n)
    return list(range(n))


@task
def halve(x: int) -> float:
    return x / 2


@task
def table() -> Any:
    import pandas as pd

    return pd.DataFrame({"speed": [1.5, 2.5], "name": ["a", "b"]})


@task
def total(values: Any) -> int:
    return len(values)


@workflow
def three(n: int = 3) -> int:
    return total.bind([numbers.bind(n), table.bind()])


@task(retries=1, backoff=Backoff("1ms"))
def parse(x: int) -> int:
    if x == 3:
        print("opening item", x)
        raise ValueError(f"no column 'speed' in item {x}")
    return x


@workflow
def broken(n: int = 5) -> int:
    return total.bind(parse.map(numbers.bind(n)))


@workflow
def caught(n: int = 5) -> int:
    return total.bind(parse.options(catch=True).map(numbers.bind(n)))


@workflow
def mapped(n: int = 10_000) -> int:
    return total.bind(halve.map(numbers.bind(n)))


@task
def grow(n: int) -> Any:
    return total.bind([numbers.bind(n), grow.bind(n - 1)]) if n else 0


@workflow
def growing(n: int = 3) -> int:
    return grow.bind(n)


@workflow
def choosing(n: int = 3) -> int:
    few, many = halve.options(name="few").bind(n), halve.options(name="many").bind(n)
    return perdure.when(total.bind([n]), few, many)


@task
def step_back(n: int) -> int:
    return n - 1


@workflow
def looping(n: int = 30) -> int:
    return perdure.loop(step_back, n, until=lambda left: left == 0, max_iterations=50)


@workflow
def waiting(n: int = 3) -> int:
    asked = perdure.wait_signal("approve", bool, after=numbers.bind(n))
    return total.bind([asked, perdure.sleep("2h")])


@workflow
def alike(n: Static[int] = 20) -> int:
    return total.bind([halve.bind(at) for at in range(n)])


@task
def nasty(text: str) -> str:
    print(f"{text}\x1b[31m")
    raise ValueError(text)


@workflow(name="nasty")
def hostile(text: str = EVIL) -> str:
    return nasty.options(name=f"step {EVIL}".replace("/", "\\")).bind(text)


@task
def watch(store: str, path: str) -> str:
    """Write the page of the run that this is a step of."""
    with perdure.open(store, executor="inline") as client:
        return str(client.get_run(perdure.current().run_id).report(path))


@workflow
def watched(store: str, path: str) -> str:
    return watch.options(after=numbers.bind(2)).bind(store, path)


@task
def ask(x: int, store: str) -> list[str]:
    """Return why the map that this is an item of waits, and why its run is not at its end."""
    with perdure.open(store, executor="inline") as client:
        run = client.get_run("r")
        return [run["ask"].why(), run.why()]


@workflow
def asking(store: str) -> list[list[str]]:
    return ask.map(numbers.bind(5), store=store)


@task
def watch_activity(store: str, path: str) -> None:
    """Write down what goes on while this step does."""
    with perdure.open(store, executor="inline") as client:
        Path(path).write_bytes(msgspec.json.encode(Activity(client.runtime, 9).look()))


@workflow
def watched_activity(store: str, path: str) -> None:
    return watch_activity.options(after=numbers.bind(2)).bind(store, path)


@task
def link(before: int, *, fails: bool) -> int:
    if fails:
        raise ValueError("it leads no further")
    return before + 1


def chain(count: int, fails_at: int) -> Any:
    """Return a workflow of so many steps, each of which takes the one before it; one fails."""

    @workflow(name="chain")
    def body() -> Any:
        node: Any = 0
        for at in range(count):
            node = link.options(name=f"link_{at:04}").bind(node, fails=at == fails_at)
        return node

    return body


def different(count: int) -> Any:
    """Return a workflow of so many different steps, each of which takes up to three before it."""

    @workflow(name="different")
    def body() -> Any:
        nodes: list[Any] = []
        for at in range(count):
            name = f"step_{at:04}"
            below = [nodes[at - back] for back in (1, 7, 31) if at - back >= 0 and (at + back) % 3]
            nodes.append(total.options(name=name).bind(below))
        return nodes[-1]

    return body


def all_before(count: int) -> Any:
    """Return a workflow of so many different steps, each of which takes all before it."""

    @workflow(name="all_before")
    def body() -> Any:
        nodes: list[Any] = []
        for at in range(count):
            nodes.append(total.options(name=f"step_{at:04}").bind(list(nodes)))
        return nodes[-1]

    return body


@task
def speaks() -> None:
    raise ValueError(" ".join(["word"] * 2_000 + ["the", "end"]))


@workflow
def verbose() -> None:
    return speaks.bind()
