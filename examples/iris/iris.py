"""Cluster Fisher's irises in five steps, each checkpointed: run it, kill it, resume it.

    perdure run examples/iris/iris.py
    perdure run examples/iris/iris.py --k 4 --folder four-clusters
    python examples/iris/iris.py

Without ``--k`` the number of clusters is chosen from the data. The model is a value that one
step returns and another takes; nobody has to invent a file name for it.
"""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans
from sklearn.metrics import calinski_harabasz_score

from perdure import task, workflow

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int32]

HERE = Path(__file__).resolve().parent
COLUMNS = ("sepal_length", "sepal_width", "petal_length", "petal_width")


def kmeans(k: int, rows: Floats) -> KMeans:
    """Fit k clusters; the same rows give the same model."""
    return KMeans(n_clusters=k, n_init=10, random_state=0).fit(rows)


@task
def load(path: Path) -> Floats:
    """Read the four measurements of each flower, in centimetres: shape (n, 4)."""
    with path.open(newline="") as file:
        return np.array([[float(row[name]) for name in COLUMNS] for row in csv.DictReader(file)])


@task
def number_of_clusters(rows: Floats, k: int | None) -> int:
    """Return k, or the number between 2 and 8 whose clusters are best told apart.

    Source: the variance ratio of Caliński and Harabasz, "A dendrite method for cluster
    analysis", Communications in Statistics 3 (1974).
    """
    if k is not None:
        return k
    return max(range(2, 9), key=lambda n: calinski_harabasz_score(rows, kmeans(n, rows).labels_))


@task(retries=1, timeout="5m")
def train(k: int, rows: Floats) -> KMeans:
    """Fit the model."""
    return kmeans(k, rows)


@task
def predict(model: KMeans, rows: Floats) -> Labels:
    """Say for each flower to which cluster it belongs: shape (n,)."""
    labels: Labels = model.predict(rows)
    return labels


@task
def report(model: KMeans, rows: Floats, labels: Labels, folder: Path) -> str:
    """Write ``report.md`` and ``clusters.png`` into ``folder`` and return the findings as text."""
    sizes = sorted(Counter(labels.tolist()).values())
    findings = [
        f"inertia {model.inertia_:.4f}",
        f"cluster sizes {', '.join(str(size) for size in sizes)}",
    ]
    folder.mkdir(parents=True, exist_ok=True)
    draw(model, rows, labels, folder / "clusters.png")
    lines = ["# Iris", "", f"{len(rows)} flowers in {len(sizes)} clusters.", ""]
    lines += [f"- {finding}" for finding in findings]
    lines += ["", "| cluster | flowers | " + " | ".join(COLUMNS) + " |", "|---" * 6 + "|"]
    for index, centre in enumerate(model.cluster_centers_):
        means = " | ".join(f"{mean:.2f}" for mean in centre)
        lines.append(f"| {index} | {int(np.sum(labels == index))} | {means} |")
    lines += ["", "![the clusters](clusters.png)", ""]
    (folder / "report.md").write_text("\n".join(lines), encoding="utf-8")
    return "\n".join([f"report {folder.resolve() / 'report.md'}", *findings])


def draw(model: KMeans, rows: Floats, labels: Labels, path: Path) -> None:
    """Draw sepals and petals, coloured by cluster, with the centres marked."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (x, y) in zip(figure.subplots(1, 2), [(0, 1), (2, 3)], strict=True):
        axes.scatter(rows[:, x], rows[:, y], c=labels, s=18, cmap="viridis", alpha=0.8)
        axes.scatter(
            model.cluster_centers_[:, x],
            model.cluster_centers_[:, y],
            marker="X",
            c="crimson",
            s=90,
        )
        axes.set_xlabel(COLUMNS[x].replace("_", " ") + " (cm)")
        axes.set_ylabel(COLUMNS[y].replace("_", " ") + " (cm)")
    figure.savefig(path, dpi=120)


@workflow
def iris(
    path: Path = HERE / "iris.csv",
    k: int | None = None,
    folder: Path = Path("iris-report"),
) -> str:
    """Load, choose the number of clusters, train, predict, report."""
    rows = load.bind(path)
    model = train.bind(number_of_clusters.bind(rows, k), rows)
    return report.bind(model, rows, predict.bind(model, rows), folder)


if __name__ == "__main__":
    print(iris.run())
