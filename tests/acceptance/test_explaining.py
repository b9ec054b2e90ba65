"""What ``explain`` foretells is what happens: random graphs, random edits, every verb."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.crash.ledger import wait_until

import perdure
from perdure.client import Perdure
from perdure.errors import DefinitionError, PerdureError, RunConflict, RunFailed
from perdure.explaining import Explanation, StepExplanation, Verdict
from perdure.graph.node import Node
from perdure.task import task
from perdure_storage.lifecycle import RunStatus
from perdure_storage.records import RunId, StepRecord

SEEDS = int(os.environ.get("PERDURE_EXPLAIN_SEEDS", "25"))
VALUES = 3
"""So few different values that many edits come out as it was."""


@pytest.fixture
def client(inline: Perdure) -> Perdure:
    return inline


@task
def mix(seed: int, parts: list[int], gate: str) -> int:
    """Come to one of few values; fail while there is a file of the gate's name."""
    if Path(gate).exists():
        raise ValueError("closed")
    return (seed + sum(parts)) % VALUES


@task
def by_library(n: int) -> int:
    return int(psutil.__name__ == "psutil") + n


@pytest.mark.parametrize("options", [{"reuse": "r"}, {"run_id": "r"}])
def test_reused_step_says_which_noted_version_of_a_package_differs(
    options: dict[str, str], client: Perdure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dag = mix.bind(0, [by_library.bind(1)], str(tmp_path / "gate"))
    (tmp_path / "gate").touch()
    monkeypatch.setattr(psutil, "__version__", "1.0")
    with pytest.raises(RunFailed):
        client.run(dag, run_id="r")
    (tmp_path / "gate").unlink()
    monkeypatch.setattr(psutil, "__version__", "2.0")

    told = client.explain(dag, **options)["by_library"]

    assert told.verdict is Verdict.REUSE
    assert told.reason.endswith("; noted: psutil 1.0 then, 2.0 now")
    if "reuse" in options:
        client.run(dag, run_id="again", **options)
        why = client.why("again", "by_library")
        assert why == "by_library was taken over from r; noted: psutil 1.0 then, 2.0 now"


# --- graphs and edits ---------------------------------------------------------------------------
@dataclass(frozen=True)
class Step:
    """One call: the declared version of its code, its constant, what it takes."""

    name: str
    version: int
    seed: int
    takes: tuple[str, ...]
    takes_input: bool
    options: dict[str, Any] = field(default_factory=dict)


def random_graph(rng: random.Random) -> list[Step]:
    steps: list[Step] = []
    for number in range(rng.randint(2, 9)):
        before = [step.name for step in steps]
        options = {"volatile": True} if rng.random() < 0.1 else {}
        if rng.random() < 0.15:
            options["checkpoint"] = False
        steps.append(
            Step(
                name=f"s{number}",
                version=0,
                seed=rng.randrange(9),
                takes=tuple(rng.sample(before, k=min(len(before), rng.choice([0, 1, 1, 2])))),
                takes_input=rng.random() < 0.2,
                options=options,
            )
        )
    return steps


def edited(rng: random.Random, steps: list[Step]) -> list[Step]:
    """Return the graph with up to three edits: code, a constant, wiring, a call more or less."""
    steps = list(steps)
    for _ in range(rng.randint(0, 3)):
        at = rng.randrange(len(steps))
        before = [step.name for step in steps[:at]]
        kind = rng.choice(["code", "code", "constant", "wiring", "more", "less"])
        if kind == "code":
            steps[at] = replace(steps[at], version=steps[at].version + 1)
        elif kind == "constant":
            steps[at] = replace(steps[at], seed=rng.randrange(9))
        elif kind == "wiring" and before:
            steps[at] = replace(steps[at], takes=(rng.choice(before),))
        elif kind == "more":
            name = f"new{rng.randrange(100)}"
            if name not in [step.name for step in steps]:
                steps.insert(at, Step(name, 0, rng.randrange(9), (), False))
        elif kind == "less" and len(steps) > 2:
            gone = steps.pop(at).name
            steps = [replace(s, takes=tuple(t for t in s.takes if t != gone)) for s in steps]
    return steps


def graph_of(steps: list[Step], gates: Path) -> list[Node]:
    inputs, made = perdure.Input(), {}
    for step in steps:
        parts = [made[name] for name in step.takes] + ([inputs.n] if step.takes_input else [])
        bound = mix.options(name=step.name, version=str(step.version), **step.options)
        made[step.name] = bound.bind(step.seed, parts, str(gates / step.name))
    return list(made.values())


def inputs_of(steps: list[Step], n: int) -> dict[str, int]:
    return {"n": n} if any(step.takes_input for step in steps) else {}


# --- foretold and happened ----------------------------------------------------------------------
def compare(foretold: Explanation, client: Perdure, run_id: str, known: list[StepRecord]) -> int:
    """Compare with what happened; return how many steps were foretold for certain.

    Args:
        foretold: what was said before.
        client: the store.
        run_id: the run that then happened.
        known: rows that the run had before.
    """
    before = {(row.step_id, row.generation) for row in known}
    rows = client.runtime.store.list_steps(RunId(run_id), current_only=False)
    ran = {r.step_id: r for r in rows if r.attempt and (r.step_id, r.generation) not in before}
    assert [step.id for step in foretold.steps] == [s.id for s in client.get_run(run_id).plan.steps]
    for step in foretold.steps:
        said = f"{run_id}: {step.id} was to {step.verdict}: {step.reason}"
        if step.verdict is Verdict.RUN:
            assert step.id in ran, said
            assert ran[step.id].reason in ("", step.reason), said  # type: ignore[index]
        elif step.verdict in (Verdict.REUSE, Verdict.GIVEN):
            assert step.id not in ran, said
    return sum(step.verdict is not Verdict.DEPENDS for step in foretold.steps)


def test_fork_does_what_was_explained(client: Perdure, tmp_path: Path) -> None:
    certain = total = 0
    for seed in range(SEEDS):
        rng = random.Random(seed)
        old = random_graph(rng)
        new = edited(rng, old)
        names = [step.name for step in new]
        options: dict[str, Any] = {"on_change": rng.choice(["recompute", "recompute", "reuse"])}
        if rng.random() < 0.3:
            options["force"] = rng.sample(names, k=1)
        if rng.random() < 0.3:
            options["from_step"] = rng.choice(names)
        if rng.random() < 0.3:
            free = [n for n in names if n not in options.get("force", ())]
            free = [n for n in free if n != options.get("from_step")]
            options["overrides"] = {name: rng.randrange(VALUES) for name in free[:1]}
        changed = {"inputs": inputs_of(new, rng.randrange(3))} if inputs_of(new, 0) else {}
        client.run(graph_of(old, tmp_path), run_id=f"old-{seed}", inputs=inputs_of(old, 1))

        dag = graph_of(new, tmp_path)
        foretold = client.explain(f"old-{seed}", verb="fork", dag=dag, **options, **changed)
        run = client.fork(f"old-{seed}", dag=dag, new_id=f"new-{seed}", **options, **changed)
        run.result()

        certain += compare(foretold, client, run.id, [])
        total += len(foretold.steps)
    assert certain > total / 2, "nearly everything was left open"


def test_run_does_what_was_explained(client: Perdure, tmp_path: Path) -> None:
    for seed in range(SEEDS):
        rng = random.Random(1000 + seed)
        old = random_graph(rng)
        new = edited(rng, old)
        client.run(graph_of(old, tmp_path), run_id=f"old-{seed}", inputs=inputs_of(old, 1))

        options = {"reuse": f"old-{seed}", "inputs": inputs_of(new, rng.choice([1, 1, 2]))}
        foretold = client.explain(graph_of(new, tmp_path), **options)
        client.run(graph_of(new, tmp_path), run_id=f"new-{seed}", **options)

        compare(foretold, client, f"new-{seed}", [])


def test_rerun_does_what_was_explained(client: Perdure, tmp_path: Path) -> None:
    steps = random_graph(random.Random(7))
    client.run(graph_of(steps, tmp_path), run_id="old", inputs=inputs_of(steps, 1))
    dag = graph_of(edited(random.Random(8), steps), tmp_path)

    foretold = client.explain("old", verb="rerun", dag=dag)
    client.rerun("old", dag=dag, new_id="new").result()

    assert len(foretold.ids("run")) == len(foretold.steps)
    compare(foretold, client, "new", [])


@pytest.mark.parametrize("how", ["same id", "resume", "resume with current code"])
def test_going_on_does_what_was_explained(client: Perdure, tmp_path: Path, how: str) -> None:
    for seed in range(SEEDS // 2):
        rng, run_id = random.Random(2000 + seed), f"r-{seed}"
        old = random_graph(rng)
        gates = tmp_path / run_id
        gates.mkdir()
        closed = gates / rng.choice(old).name
        closed.touch()
        inputs = inputs_of(old, 1)
        with pytest.raises(RunFailed):
            client.run(graph_of(old, gates), run_id=run_id, inputs=inputs)
        closed.unlink()
        known = client.runtime.store.list_steps(RunId(run_id), current_only=False)

        if how == "same id":
            new = edited(rng, old)
            options = {"run_id": run_id, "inputs": inputs_of(new, 1)}
            foretold = client.explain(graph_of(new, gates), **options)
            client.run(graph_of(new, gates), **options)
        else:
            at = rng.randrange(len(old))
            new = [replace(s, version=1) if i == at else s for i, s in enumerate(old)]
            current = {"code": "current", "dag": graph_of(new, gates)} if "current" in how else {}
            foretold = client.explain(run_id, **current)
            client.resume(run_id, **current).result()

        compare(foretold, client, run_id, known)


# --- what it says -------------------------------------------------------------------------------
@pytest.fixture
def chain(client: Perdure, tmp_path: Path) -> list[Node]:
    steps = [Step("a", 0, 1, (), False), Step("b", 0, 1, ("a",), False)]
    client.run(graph_of(steps, tmp_path), run_id="x")
    return graph_of([replace(steps[0], version=1), steps[1]], tmp_path)


def test_table_is_read_at_a_glance(client: Perdure, chain: list[Node]) -> None:
    foretold = client.explain("x", verb="fork", dag=chain)

    assert str(foretold).splitlines() == [
        "fork of x, 2 steps: 1 run, 1 run if what they consume changes",
        "STEP  WOULD    WHY",
        "a     run      its code changed",
        "b     depends  something upstream changed: the code of a; reused if what it consumes "
        "comes out alike",
    ]
    assert foretold.ids("run") == ["a"]
    assert foretold["b"].verdict is Verdict.DEPENDS
    with pytest.raises(DefinitionError, match="no step"):
        foretold["c"]


def test_run_that_has_succeeded_is_looked_at_only(client: Perdure, chain: list[Node]) -> None:
    foretold = client.explain("x")

    assert foretold.ids("reuse") == ["a", "b"]
    assert "x has succeeded: recorded result" in str(foretold)


def test_what_the_verb_would_refuse_is_refused(client: Perdure, chain: list[Node]) -> None:
    with pytest.raises(RunConflict, match="reuse='x'"):
        client.explain(chain, run_id="x")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"verb": "frok"}, "did you mean 'fork'"),
        ({"verb": "rerun", "force": "a"}, "rerun has no option 'force'"),
        ({"cod": "current"}, "did you mean 'code'"),
        ({"code": "curent"}, "did you mean 'current'"),
    ],
)
def test_option_that_the_verb_has_not_is_refused(
    client: Perdure, chain: list[Node], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(PerdureError, match=said):
        client.explain("x", **options)


def test_value_that_is_gone_is_foretold_to_be_rebuilt(client: Perdure, tmp_path: Path) -> None:
    client.run(large.bind(7), run_id="big")
    for blob in (tmp_path / "store").rglob("blobs/*/blake3-*"):
        blob.unlink()

    foretold = client.explain("big")

    assert foretold.ids("run") == ["large"]
    assert "rebuilt" in foretold["large"].reason
    assert client.resume("big").result() == [7] * 30_000


@task
def large(x: int) -> list[int]:
    return [x] * 30_000


@task
def listed(x: bool) -> list[int]:
    return [x] * 3


def test_run_that_waits_is_foretold_to_go_on(client: Perdure) -> None:
    run = client.start(listed.bind(perdure.wait_signal("go")), run_id="w")
    wait_until(lambda: run.record.status is RunStatus.WAITING, 20, "it does not wait")

    foretold = client.explain("w")

    assert foretold.ids("not reached") == []
    assert foretold["wait_signal"].reason == "it has been waiting; the run waits there"
    assert foretold["listed"].verdict is Verdict.RUN


def test_item_that_is_new_is_not_said_to_have_changed(client: Perdure) -> None:
    client.run(listed.map([True]), run_id="one")

    foretold = client.explain(listed.map([True, False]), reuse="one")

    assert foretold["listed[1]"].reason == "it has not run"


@task(retries=1, backoff=perdure.Backoff("10m"))
def refused(x: int) -> int:
    raise ValueError("not yet")


def test_step_between_two_tries_is_said_to_have_begun(client: Perdure) -> None:
    run = client.start(refused.bind(1), run_id="r")
    wait_until(lambda: len(run["refused"].attempts) == 1, 20, "it was not tried")

    assert client.explain("r")["refused"].reason.startswith("it began")


def test_long_explanation_has_one_row_for_what_is_said_alike_and_all_of_it_where_it_is_asked_for(
    client: Perdure,
) -> None:
    def bound(code: str) -> list[Node]:
        return [
            by_library.options(name=f"step-{n}", version=code if n % 2 else "1").bind(n)
            for n in range(60)
        ]

    client.run(bound("1"), run_id="a")

    foretold = client.explain(bound("2"), reuse="a")

    rows = str(foretold).splitlines()[2:]
    assert len(rows) == 2
    assert "step-0, step-2, step-4 and 27 more" in rows[0]
    assert "step-1, step-3, step-5 and 27 more" in rows[1]
    assert len(foretold.full.splitlines()) == 62


def test_explanation_in_which_all_rows_differ_is_cut_and_says_how_to_see_the_rest(
    client: Perdure,
) -> None:
    steps = tuple(
        StepExplanation(id=f"s{n}", verdict=Verdict.RUN, reason=f"because of {n}")
        for n in range(60)
    )

    told = str(Explanation(verb="run", run_id="", note="", steps=steps)).splitlines()

    assert len(told) == 27
    assert told[-1] == "and 36 more rows: `perdure explain --all`, in Python `.full`"
