"""A run that is forked or run again by a process that dies: ``python -m tests.crash.derived``."""

from __future__ import annotations

import sys

from tests.crash.ledger import executing
from tests.crash.scenarios import RUN

import perdure
from perdure.client import Perdure, open_store
from perdure.runs import Run
from perdure.task import task
from perdure.workflow import workflow

DONOR = "donor"


@task
def load(n: int) -> list[int]:
    with executing():
        return list(range(n))


@task
def big(rows: list[int]) -> list[int]:
    with executing():
        return rows * 5_000


@task(checkpoint=False)
def fleeting(rows: list[int]) -> int:
    with executing():
        return len(rows)


@task(catch=True)
def fails(rows: list[int]) -> int:
    with executing():
        raise ValueError("always")


@task
def given(rows: list[int]) -> list[int]:
    with executing():
        return rows


@task
def total(rows: list[int], more: int, least: list[int], failure: object) -> str:
    with executing():
        return f"{sum(rows)} {more} {len(least)} {type(failure).__name__}"


@workflow
def flow(n: int = 4) -> str:
    rows = load.bind(n)
    large = big.bind(rows)
    return total.bind(large, fleeting.bind(large), given.bind(rows), fails.bind(rows))


@task
def numbers(n: int) -> list[int]:
    with executing():
        return list(range(n))


@task
def picky(x: int) -> int:
    with executing():
        if x % 2 and perdure.current().run_id == DONOR:
            raise ValueError(x)
        return x


@task
def summed(xs: list[object]) -> int:
    with executing():
        return sum(x for x in xs if isinstance(x, int))


@workflow
def mapped(n: int = 6) -> int:
    return summed.bind(picky.options(catch=True).map(numbers.bind(n)))


def prepare(client: Perdure, verb: str) -> None:
    client.run(mapped if verb == "items" else flow, run_id=DONOR)


def act(client: Perdure, verb: str) -> None:
    derive(client, verb).result()


def derive(client: Perdure, verb: str) -> Run:
    if verb == "rerun":
        return client.rerun(DONOR, inputs={"n": 6}, new_id=RUN)
    if verb == "items":
        return client.fork(DONOR, force="failed", on_change="reuse", new_id=RUN)
    return client.fork(
        DONOR,
        from_step="fleeting",
        force=["big", "failed"],
        overrides={"given": list(range(20_000))},
        new_id=RUN,
    )


def recover(client: Perdure, verb: str) -> None:
    """Do what anybody would: the same again where nothing was made, else go on with what was."""
    if client.runtime.store.find_run(RUN) is None:
        act(client, verb)
    else:
        client.resume(RUN).result()


def main() -> None:
    part, verb, store, blobs = sys.argv[1:]
    with open_store(store, blobs=blobs, executor="inline") as client:
        {"prepare": prepare, "act": act, "recover": recover}[part](client, verb)


if __name__ == "__main__":
    main()
