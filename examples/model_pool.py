"""A pool of models between two CPU stages: texts are read, embedded and written at the same time.

    python examples/model_pool.py          # also draws who worked when
    perdure run examples/model_pool.py

The texts are the docstrings of Python's standard library. ``read`` parses a module, ``Embedder``
turns its texts into vectors, ``write`` makes one of them for the module: item by item, so that the
model has work while modules are still read. The model is made once in each of two processes, from
a quarter of the texts: TF-IDF of parts of words, then the 32 largest dimensions of an SVD (latent
semantic analysis). Reading is quick: it pauses while 64 modules wait for the model.
On a machine with GPUs, a model that needs one says so: ``Embedder.options(pool=2, gpus=1)``.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterable
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import perdure
from perdure import task, workflow

INSTALL = "pip install scikit-learn"
MODULES = sorted(name for name in sys.stdlib_module_names if name[0] != "_")
QUESTION = "read and write archives of compressed files"
LETTERS = {"read": "r", "Embedder": "M", "Embedder.embed": "E", "write": "w"}
WIDTH = 72
Span = tuple[str, str, datetime, datetime]


def texts_of(module: str) -> list[str]:
    """Return the docstrings of a module of the standard library, none if it is not there."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return []
    tree = ast.parse(Path(spec.origin).read_text("utf-8"))
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    found = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds))
    return [text for text in found if text]


@task
def read(module: str) -> list[str]:
    """Return the texts of a module."""
    return texts_of(module)


class Embedder(perdure.Actor, state="rebuild"):
    """Turns texts into vectors that are near each other for texts about the same."""

    def __init__(self, modules: list[str]) -> None:
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import Normalizer

        parts = TfidfVectorizer(
            analyzer="char_wb", ngram_range=(3, 4), max_features=5_000, sublinear_tf=True
        )
        self.model = make_pipeline(parts, TruncatedSVD(32, random_state=0), Normalizer())
        self.model.fit([text for module in modules[::4] for text in texts_of(module)])

    @perdure.method
    def embed(self, texts: list[str]) -> Any:
        """Return a vector for each text."""
        return self.model.transform(texts or [""])


@task
def write(vectors: Any) -> list[float]:
    """Return one vector for all the texts of a module."""
    import numpy as np

    mean = vectors.mean(axis=0)
    length = float(np.linalg.norm(mean)) or 1.0
    return [float(x) / length for x in mean]


@task
def search(modules: list[str], vectors: list[list[float]], question: Any) -> list[str]:
    """Return the three modules whose texts are nearest to the question."""
    nearness = [sum(a * b for a, b in zip(each, question[0])) for each in vectors]
    best = sorted(range(len(modules)), key=lambda n: -nearness[n])
    return [modules[n] for n in best[:3]]


@workflow
def library(modules: list[str] = MODULES, question: str = QUESTION) -> list[str]:
    """Find the modules that a question is about."""
    model = Embedder.options(pool=2).bind(modules)
    vectors = write.map(model.embed.map(read.map(modules)))
    return search.bind(modules, vectors, model.embed.bind([question]))


# --- who worked when ----------------------------------------------------------------------------
def spans(run: Any) -> list[Span]:
    """Return the stage of each item of the pipeline, who worked on it, from when to when."""
    found: list[Span] = []
    for stage in LETTERS:
        for step in run.steps(name=stage if stage == "Embedder" else f"{stage}[*]"):
            last = step.attempts[-1]
            found.append((stage, last.worker, last.started_at, last.finished_at))
    return found


def timeline(found: list[Span]) -> Iterable[str]:
    """Draw a line for each process: which stage it worked for, from left to right."""
    begin, end = min(each[2] for each in found), max(each[3] for each in found)
    lanes: dict[str, list[str]] = {}
    for stage, worker, start, stop in sorted(found, key=lambda each: each[2]):
        lane = lanes.setdefault(worker, ["."] * WIDTH)
        first, last = (int((at - begin) / (end - begin) * (WIDTH - 1)) for at in (start, stop))
        lane[first : last + 1] = LETTERS[stage] * (last + 1 - first)
    for worker, lane in lanes.items():
        yield f"{worker.rpartition('/')[2]:>8} {''.join(lane)}"
    seconds = (end - begin).total_seconds()
    yield f"{'':8} r read, M make the model, E embed, w write; {seconds:.1f} s in all"


def seconds_together(found: list[Span]) -> float:
    """Return for how long the model and a CPU stage were at work at the same time."""
    times = sorted({at for *_, start, stop in found for at in (start, stop)})
    together = 0.0
    for now, later in pairwise(times):
        busy = {stage == "Embedder.embed" for stage, _, start, stop in found if start <= now < stop}
        together += (later - now).total_seconds() if len(busy) == 2 else 0.0
    return together


if __name__ == "__main__":
    try:
        import sklearn  # noqa: F401
    except ImportError:
        print(f"this example needs scikit-learn: {INSTALL}")
        sys.exit(1)
    # As if there were four: both stages have their turn where there is one.
    with perdure.open(str(Path(".perdure", "perdure.db")), executor="processes", cpus=4) as client:
        nearest = client.run(library, run_id="model-pool", if_exists="resume")
        worked = spans(client.get_run("model-pool"))
    print(*timeline(worked), sep="\n")
    print(f"processes of the model: {len({who for stage, who, *_ in worked if stage[0] == 'E'})}")
    print(f"the model and a CPU stage at work together: {seconds_together(worked):.2f} s")
    print(f"{QUESTION}: {', '.join(nearest)}")
