"""One engine on one workload, or several side by side.

    python -m tests.benchmarks perdure W1                    one JSON line
    python -m tests.benchmarks perdure W1 --size 100
    python -m tests.benchmarks compare W1 W2 --rounds 3      a table, in turn, round after round
    python -m tests.benchmarks compare W1 --engines limits,perdure,dbos --scale 0.1
    python -m tests.benchmarks compare --help
    python -m tests.benchmarks.targets                       what is aimed at, and reached
    python -m tests.benchmarks.parts                         where the time goes

Peers run in environments of their own, which uv makes when they are first asked for. Engines on
PostgreSQL need ``--postgres postgresql://...``: a database in which schemas may be made.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.rounds import circumstances, positive
from tests.postgres import empty_schema

ENGINES_FOLDER = Path(__file__).with_name("engines")
LIMIT_S = 900


@dataclass(frozen=True)
class Engine:
    """A program that runs workloads.

    Attributes:
        program: its file.
        environ: how it is to run them.
        is_peer: it has an environment of its own.
        needs_postgres: its store is the PostgreSQL that the command line names.
    """

    program: str
    environ: Mapping[str, str] = field(default_factory=dict)
    is_peer: bool = False
    needs_postgres: bool = False


ENGINES = {
    "limits": Engine("limits_engine.py"),
    "perdure": Engine("perdure_engine.py", {"ENGINE_EXECUTOR": "inline"}),
    "perdure-metrics": Engine(
        "perdure_engine.py", {"ENGINE_EXECUTOR": "inline", "ENGINE_OBSERVED": "metrics"}
    ),
    "perdure-traces": Engine(
        "perdure_engine.py", {"ENGINE_EXECUTOR": "inline", "ENGINE_OBSERVED": "traces"}
    ),
    "perdure-group": Engine(
        "perdure_engine.py", {"ENGINE_EXECUTOR": "inline", "ENGINE_DURABILITY": "group"}
    ),
    "perdure-processes": Engine("perdure_engine.py", {"ENGINE_EXECUTOR": "processes"}),
    "perdure-postgres": Engine(
        "perdure_engine.py", {"ENGINE_EXECUTOR": "inline"}, needs_postgres=True
    ),
    "perdure-ray": Engine("perdure_engine.py", {"ENGINE_EXECUTOR": "ray"}),
    "ray-bare": Engine("ray_bare_engine.py"),
    "dbos": Engine("dbos_engine.py", is_peer=True),
    "dbos-postgres": Engine("dbos_engine.py", is_peer=True, needs_postgres=True),
    "ray-workflows": Engine(
        "ray_engine.py",
        {
            # Else it starts its workers through uv once more, with this folder sent along.
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
            "RAY_agent_register_timeout_ms": "600000",  # they import for long on a busy machine
        },
        is_peer=True,
    ),
    "prefect": Engine("prefect_engine.py", is_peer=True),
    "dask": Engine("dask_engine.py", is_peer=True),
    "pool": Engine("pool_engine.py"),
}
WORKLOADS = {
    "W1": (1_000, "chain of steps, each adds 1", "steps/s"),
    "W2": (10_000, "independent steps, gathered into one sum", "steps/s"),
    "W3": (500, "runs of 5 steps", "runs/s"),
    "W4": (1_024, "MiB of float64 from one step to the next", "MiB/s"),
    "W5": (2_000, "steps in a chain, killed half-way and resumed: from the resume on", "s"),
    "W6": (1, "cold start: a script of one run of one step", "s"),
    "W7": (64, "steps of 0.25 s of Python", "s"),
    "W9": (10_000, "runs that sleep, a tenth of them due at once: late", "s"),
    "fsync": (5_000, "appends of 4 KiB, each synced; of the limits alone", "syncs/s"),
    "pipe": (50_000, "round trips to a process over pipes; of the limits alone", "trips/s"),
}
"""By name: the size, what it is, and in which unit its figure is told."""


BESIDES = (
    *("first_new_step_s", "run_twice", "stored_s", "first_byte_s", "producer_own_mb"),
    *("consumer_own_mb", "again_s", "again_written_mb", "idle_mb", "idle_cpu_share"),
    *("request_seen_s", "cpu_s"),
)
"""Figures beside the seconds that a table shows where an engine has them."""


NO_WORKLOAD = 3
"""Exit code of a program that has no such workload (``engines/common.py``)."""
_SAID_LINES = 5


class Unable(Exception):
    """An engine has no such workload, or lacks what it needs to run it."""


class Failed(Unable):
    """An engine ended a workload with an error."""


def run(engine: str, workload: str, size: int, postgres: str | None) -> dict[str, Any]:
    """Run a workload in a process and a folder of its own; return what it came to.

    Raises:
        Unable: it could not; says why.
        Failed: it tried to.
    """
    chosen = ENGINES[engine]
    environ = {**os.environ, **chosen.environ}
    environ.pop("ENGINE_POSTGRES", None)
    # What is installed has its bytecode; a checkout that may not keep it would compile each time.
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    environ["UV_COMPILE_BYTECODE"] = "1"
    if chosen.needs_postgres:
        if postgres is None:
            raise Unable(f"{engine} needs --postgres URL")
        environ["ENGINE_POSTGRES"] = postgres
    program = str(ENGINES_FOLDER / chosen.program)
    head = ["uv", "run", "--quiet", "--no-project"] if chosen.is_peer else [sys.executable]
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="perdure-benchmark-"))
        if postgres is not None and chosen.needs_postgres and not chosen.is_peer:
            # Its values lie in the folder: a store for these values alone.
            environ["ENGINE_POSTGRES"] = stack.enter_context(empty_schema(postgres))
        words = [*head, program, workload, str(size), folder]
        try:
            ended = subprocess.run(
                words, env=environ, capture_output=True, text=True, timeout=LIMIT_S, check=False
            )
        except FileNotFoundError:
            raise Unable(f"{engine} needs uv: pip install uv") from None
        except subprocess.TimeoutExpired:
            raise Failed(f"{engine} took more than {LIMIT_S} s") from None
    if ended.returncode != 0:
        said = "\n".join(ended.stderr.strip().splitlines()[-_SAID_LINES:]) or "no word"
        kind = Unable if ended.returncode == NO_WORKLOAD else Failed
        raise kind(f"{engine} {workload}: {said}")
    figures: dict[str, Any] = json.loads(ended.stdout.strip().splitlines()[-1])
    return {"engine": engine, "workload": workload, "size": size, **figures}


def compare(
    workloads: Sequence[str],
    engines: Sequence[str],
    *,
    rounds: int,
    scale: float,
    postgres: str | None,
) -> bool:
    """Run engines in turn on each workload, every other round backwards; print a table each.

    Returns:
        Whether none has failed.
    """
    is_well = True
    for workload in workloads:
        full, what, unit = WORKLOADS[workload]
        size = max(1, round(full * scale))
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in engines}
        unable: dict[str, str] = {}
        for number in range(rounds):
            for name in engines if number % 2 == 0 else reversed(engines):
                if name in unable:
                    continue
                try:
                    found[name].append(run(name, workload, size, postgres))
                except Unable as error:
                    unable[name] = str(error)
                    is_well = is_well and not isinstance(error, Failed)
        print(f"\n**{workload}**: {size:,} {what}\n")
        print("\n".join(_table(found, size, unit)))
        for name, why in unable.items():
            print(f"\n{name}: {why}", file=sys.stderr)
    print(f"\n{circumstances(rounds)}")
    return is_well


def _table(found: Mapping[str, Sequence[dict[str, Any]]], size: int, unit: str) -> list[str]:
    """Return the rows of a workload; ratios are to the first engine, in the same round."""
    named = {name: each for name, each in found.items() if each}
    rows = [f"| engine | median {unit} | range | times the first | its peak MB | |", "|---|" * 6]
    rows[1] = "|---|---|---|---|---|---|"
    if not named:
        return rows
    first = next(iter(named.values()))
    for name, runs in named.items():
        told = sorted(_figure(each["seconds"], size, unit) for each in runs)
        ratio = median(
            mine["seconds"] / other["seconds"] for mine, other in zip(runs, first, strict=False)
        )
        more = [
            f"{key.removesuffix('_s').replace('_', ' ')} {median(each[key] for each in runs):.3g}"
            for key in BESIDES
            if key in runs[0]
        ]
        rows.append(
            f"| {name} | {_shown(median(told))} | {_shown(told[0])}-{_shown(told[-1])} | "
            f"{ratio:.2f} | {median(each['peak_mb'] for each in runs):.0f} | {', '.join(more)} |"
        )
    return rows


def _figure(seconds: float, size: int, unit: str) -> float:
    return seconds if unit == "s" else size / seconds


def _shown(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}"


def main(words: Sequence[str]) -> int:
    """Run what the command line says."""
    if words[:1] == ["compare"]:
        return _compare(words[1:])
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("--size", type=positive, help="in place of the workload's own")
    parser.add_argument("--postgres", metavar="URL")
    given = parser.parse_args(words)
    size = WORKLOADS[given.workload][0] if given.size is None else given.size
    try:
        print(json.dumps(run(given.engine, given.workload, size, given.postgres)))
    except Unable as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _compare(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks compare",
        description="Engines in turn on each workload. Exit code 1 if one has failed.",
    )
    parser.add_argument("workloads", nargs="+", choices=WORKLOADS)
    parser.add_argument("--engines", default=",".join(ENGINES), help="by comma; default: all")
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of the sizes: above 0")
    parser.add_argument("--postgres", metavar="URL")
    given = parser.parse_args(words)
    engines = given.engines.split(",")
    if unknown := set(engines) - ENGINES.keys():
        parser.error(f"no engine {', '.join(sorted(unknown))}: there are {', '.join(ENGINES)}")
    if given.scale <= 0:
        parser.error("--scale has to be above 0")
    is_well = compare(
        given.workloads, engines, rounds=given.rounds, scale=given.scale, postgres=given.postgres
    )
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
