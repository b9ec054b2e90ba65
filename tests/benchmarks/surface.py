"""How long people wait for the command line: as ratios to the start of a bare interpreter.

    python -m tests.benchmarks.surface
    python -m tests.benchmarks.surface --runs 1000 --rounds 3 --only "perdure ls"
    python -m tests.benchmarks.surface --postgres postgresql://postgres@/postgres?host=/tmp/pg

With ``--postgres`` the runs lie in a schema of their own there, which is dropped at the end.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from tests.benchmarks.many_runs import SEED, fill
from tests.benchmarks.rounds import Case, circumstances, measure, process, table

SCHEMA = "perdure_benchmark"
PERDURE = [sys.executable, "-m", "perdure"]


def cases(folder: Path, environ: dict[str, str], runs: int) -> list[Case]:
    """Return what is timed: first the bare interpreter, which the others are compared with."""

    def perdure(words: str, limit_s: float | None = None, note: str = "") -> Case:
        command = process([*PERDURE, *words.split()], folder, environ)
        return Case(f"`perdure {words}`{note}", command, limit_s)

    among = f", {runs:,} runs"
    return [
        bare_start(folder),
        Case("`import perdure`", process([sys.executable, "-c", "import perdure"], folder), 0.3),
        perdure("--help", 0.5),
        perdure("--version"),
        perdure("ls", 1.0, among),
        perdure("ls --status failed", 1.0, among),
        perdure("ls --workflow workflow-3", 1.0, among),
        perdure("ls --tag team=rare", None, among),
        perdure(f"show {SEED}", None, among),
        perdure("show see", None, f"{among} (a prefix)"),
        perdure(f"why {SEED} answer", None, among),
    ]


def bare_start(folder: Path) -> Case:
    """Return a Python that does nothing: what no command can be faster than."""
    return Case("bare start", process([sys.executable, "-c", "pass"], folder))


def demo(folder: Path) -> Case:
    """Return the demo as a case: in a new folder each time."""

    def play() -> float:
        with tempfile.TemporaryDirectory(dir=folder) as fresh:
            return process([*PERDURE, "demo", "--folder", f"{fresh}/demo"], folder)()

    return Case("`perdure demo`", play, 20.0)


@contextmanager
def store_of(folder: Path, postgres: str | None) -> Iterator[dict[str, str]]:
    """Yield the settings of an empty store: SQLite in the folder, or a schema of a server."""
    blobs = {"PERDURE_BLOBS": str(folder / ".perdure" / "blobs")}
    if postgres is None:
        yield {"PERDURE_STORE": f"sqlite:///{folder / '.perdure' / 'perdure.db'}"} | blobs
        return
    import psycopg

    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {SCHEMA}")
        try:
            joint = "&" if "?" in postgres else "?"
            url = f"{postgres}{joint}options={quote(f'-csearch_path={SCHEMA}')}"
            yield {"PERDURE_STORE": url} | blobs
        finally:
            connection.execute(f"DROP SCHEMA {SCHEMA} CASCADE")


def main(words: Sequence[str]) -> int:
    """Time all of it and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.surface")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--postgres", metavar="URL")
    parser.add_argument("--only", metavar="TEXT", default="", help="cases whose name has it")
    given = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with store_of(folder, given.postgres) as environ:
            fill(
                environ["PERDURE_STORE"],
                environ.get("PERDURE_BLOBS", f"{name}/.perdure/blobs"),
                given.runs,
            )
            first, *others = cases(folder, environ, given.runs)
            chosen = [case for case in others if given.only in case.name]
            figures = measure([first, *chosen], rounds=given.rounds)
            shown = demo(folder)
            if given.only in shown.name:
                figures += measure([first, shown], rounds=1)[1:]
    print(circumstances(given.rounds))
    print(table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
