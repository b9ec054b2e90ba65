"""How long a run's page takes: to be made, and until Chromium has all of it on the screen.

    python -m tests.benchmarks.report
    python -m tests.benchmarks.report --steps 1000 --items 10000 --rounds 3

Without Chromium or playwright only the making is timed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.acceptance.reported_steps import different, mapped
from tests.benchmarks.rounds import Case, circumstances, measure, process, table
from tests.browsers import chromium, missing

from perdure.client import Perdure, open_store

OPENS_IN_S = 2.0
_DRAWN = "() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))"


def making(client: Perdure, run_id: str, page: Path) -> Callable[[], float]:
    """Return a measure of the writing of a run's page."""

    def write() -> float:
        begin = time.perf_counter()
        client.get_run(run_id).report(page)
        return time.perf_counter() - begin

    return write


def opening(browser: Any, page: Path) -> Callable[[], float]:
    """Return a measure of the opening of a page in a new window, until it has been drawn."""

    def load() -> float:
        window = browser.new_page(viewport={"width": 1200, "height": 900})
        begin = time.perf_counter()
        window.goto(page.as_uri())
        window.evaluate(_DRAWN)
        took_s = time.perf_counter() - begin
        window.close()
        return took_s

    return load


def main(words: Sequence[str]) -> int:
    """Time all of it and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.report")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args(words)
    runs = {
        f"{given.steps:,} different steps": (different(given.steps), {}),
        f"a map of {given.items:,}": (mapped, {"n": given.items}),
    }
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        client = stack.enter_context(open_store(f"{name}/perdure.db", executor="inline"))
        browser = None if missing() else stack.enter_context(chromium())
        cases = [Case("bare start", process([sys.executable, "-c", "pass"], folder))]
        for at, (what, (workflow, inputs)) in enumerate(runs.items()):
            client.run(workflow, run_id=f"r{at}", inputs=inputs)
            page = client.get_run(f"r{at}").report(folder / f"{at}.html")
            size = f"{page.stat().st_size / 2**20:.1f} MiB"
            cases.append(Case(f"write the page of {what}", making(client, f"r{at}", page)))
            if browser is not None:
                opened = opening(browser, page)
                cases.append(Case(f"open it in Chromium, {size}", opened, OPENS_IN_S))
        figures = measure(cases, rounds=given.rounds)
    print(circumstances(given.rounds))
    print(table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
