"""perdure, with full durability: on SQLite or PostgreSQL; inline, in worker processes, on Ray."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

from common import Figures, interrupted, lines, main, own_mb, peak_mb, timed

EXECUTOR = os.environ.get("ENGINE_EXECUTOR", "inline")
POSTGRES = os.environ.get("ENGINE_POSTGRES")
DURABILITY = os.environ.get("ENGINE_DURABILITY", "step")
OBSERVED = os.environ.get("ENGINE_OBSERVED", "")
"""By what: ``metrics`` for Prometheus, or ``traces`` for OpenTelemetry, exported to nowhere."""
COLD = """
from perdure import task, workflow

@task
def answer() -> int:
    return 42

@workflow
def cold() -> int:
    return answer.bind()

if __name__ == "__main__":
    assert cold.run() == 42
"""


def store(folder: Path) -> str:
    return POSTGRES or str(folder / "perdure.db")


def client(folder: Path):
    import perdure

    if EXECUTOR == "ray":
        from ray_bare_engine import started

        started()
    opened = perdure.open(store(folder), blobs=str(folder / "blobs"), executor=EXECUTOR)
    opened.runtime  # noqa: B018 - the store is made before the clock starts
    if EXECUTOR == "ray":  # as for the other engines on Ray: its workers are there by then
        import perdure_steps

        workers: set[str] = set()
        while len(workers) < 2:  # one may have done all while the other imported perdure
            run = opened.start(perdure_steps.fan_out, steps=20)
            run.wait()
            workers |= {row.worker for row in opened.runtime.store.list_steps(run.id)}
    if OBSERVED == "metrics":
        from perdure.metrics import Metrics

        opened.runtime.metrics = Metrics(opened.runtime)
    if OBSERVED == "traces":
        set_tracing_up()
    return opened


def set_tracing_up() -> None:
    """Trace as a service does: spans are made and handed over in batches."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Nowhere(SpanExporter):
        def export(self, spans):
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    trace.set_tracer_provider(provider)


def chain(size: int, folder: Path) -> Figures:
    import perdure_steps as steps

    with client(folder):
        return timed(lambda: steps.chain.run(size, durability=DURABILITY), size)


def fan_out(size: int, folder: Path) -> Figures:
    import perdure_steps as steps

    with client(folder):
        base_mb = peak_mb()
        figures = timed(lambda: steps.fan_out.run(size, durability=DURABILITY), sum(range(size)))
    return {**figures, "step_kb": (peak_mb() - base_mb) * 1024 / size}


def many_runs(size: int, folder: Path) -> Figures:
    import perdure_steps as steps

    def work() -> list[int]:
        runs = [steps.five.start(n, durability=DURABILITY) for n in range(size)]
        return [run.result() for run in runs]

    with client(folder):
        return timed(work, [n + 5 for n in range(size)])


def large(size: int, folder: Path) -> Figures:
    """One array from a step to the next; then the same once more, whose bytes are there."""
    with client(folder) as opened:
        figures = handed_over(opened, size, folder / "ledger")
        before = written_mb()
        again = handed_over(opened, size, folder / "again")
        figures["again_s"], figures["again_written_mb"] = again["seconds"], written_mb() - before
        shutil.rmtree(folder / "blobs")  # a gigabyte: not left to whoever asked
    return figures


def handed_over(opened, size: int, ledger: Path) -> Figures:
    """Run it, and say where the time and the memory went."""
    import perdure_steps as steps

    name = ledger.name
    with most_own_mb() as most:
        last = size * 131_072 - 1.0
        figures = timed(lambda: steps.large.run(size, str(ledger), run_id=name)[0], last)
    (_, made), (_, arrived) = lines(ledger)
    rows = {row.step_id: row for row in opened.runtime.store.list_steps(name)}
    return {
        **figures,
        "stored_s": rows["make"].finished_at.timestamp() - made,
        "first_byte_s": arrived - rows["make"].finished_at.timestamp(),
        "producer_own_mb": most[0],
        "consumer_own_mb": opened.get_run(name).result()[1],
    }


@contextlib.contextmanager
def most_own_mb():
    """Look twenty times a second; what is given holds the most that a process had for itself."""
    most, over = [0.0], threading.Event()

    def look() -> None:
        while not over.wait(0.05):
            with contextlib.suppress(OSError, ValueError):  # one of them has ended
                most[0] = max(most[0], *map(own_mb, family(os.getpid())))

    looker = threading.Thread(target=look)
    looker.start()
    try:
        yield most
    finally:
        over.set()
        looker.join()


def family(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    lists = (each.read_text() for each in Path(f"/proc/{pid}/task").glob("*/children"))
    return [pid, *(own for text in lists for child in text.split() for own in family(int(child)))]


def written_mb() -> float:
    """Return what this process and those of its children that have ended gave to the disk."""
    words = Path("/proc/self/io").read_text().split()
    return int(words[words.index("write_bytes:") + 1]) / 2**20


def resumed(size: int, folder: Path) -> Figures:
    ledger = folder / "ledger"
    command = [sys.executable, __file__]
    words = [str(size), str(folder)]
    again = [*command, "resume", *words]
    return interrupted([*command, "noted", *words], ledger, size, again=again)


def noted(size: int, folder: Path) -> Figures:
    import perdure_steps as steps

    with client(folder):
        return timed(lambda: steps.noted.run(size, str(folder / "ledger"), run_id="noted"), size)


def resume(size: int, folder: Path) -> Figures:
    with client(folder) as opened:
        return timed(lambda: opened.resume("noted").result(), size)


def asleep(size: int, folder: Path) -> Figures:
    """Runs that sleep, a tenth of which are due at once; the seconds are those of the last."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
    from tests.benchmarks import sleepers

    found = sleepers.figures(size, max(1, size // 10), POSTGRES or "")
    return {"seconds": found["next_step_last_s"], **found}


def cold(size: int, folder: Path) -> Figures:
    script = folder / "cold.py"
    script.write_text(COLD)
    own = {"STORE": store(folder), "BLOBS": str(folder / "blobs"), "EXECUTOR": EXECUTOR}
    environ = {**os.environ, **{f"PERDURE_{name}": value for name, value in own.items()}}
    begin = time.perf_counter()
    subprocess.run([sys.executable, str(script)], env=environ, check=True, stdout=sys.stderr)
    return {"seconds": time.perf_counter() - begin}


def spread(size: int, folder: Path) -> Figures:
    import perdure_steps as steps

    with client(folder):
        return timed(lambda: steps.spread.run(size), size)


if __name__ == "__main__":
    main(
        {
            "W1": chain,
            "W2": fan_out,
            "W3": many_runs,
            "W4": large,
            "W5": resumed,
            "W6": cold,
            "W7": spread,
            "W9": asleep,
            "noted": noted,
            "resume": resume,
        },
        {
            "executor": EXECUTOR,
            "durability": DURABILITY,
            "store": "PostgreSQL" if POSTGRES else "SQLite, WAL, synchronous=FULL",
        },
        "perdure",
        "sqlalchemy",
    )
