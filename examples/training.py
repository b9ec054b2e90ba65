"""Training that is killed in each epoch and ends with the weights of a training that was not.

A small network learns scikit-learn's handwritten digits, with PyTorch on the CPU. The step saves
model and optimizer after each epoch, and its process is killed with SIGKILL in the middle of each
epoch; the next attempt goes on from what was saved last.

    python examples/training.py            # trains twice, killed and not, and compares
    perdure run examples/training.py       # trains once
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import perdure
from perdure import task, workflow

INSTALL = "pip install torch --index-url https://download.pytorch.org/whl/cpu"
EPOCHS = 6
BATCH = 32


@task
def digits() -> dict[str, Any]:
    """Return images and labels, a quarter of them kept for the test."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    split = train_test_split(images / 16.0, labels, test_size=0.25, random_state=0)
    return dict(zip(("train_x", "test_x", "train_y", "test_y"), split))


@task(lost_retries=-1)
def train(data: dict[str, Any], epochs: int, kill_in: Path | None) -> dict[str, Any]:
    """Train for so many epochs, from the last one that was saved; return the weights.

    With a folder ``kill_in`` this process is killed in the middle of each epoch, once.
    """
    import torch

    here = perdure.current()
    torch.set_num_threads(1)  # sums in the same order, so that equal trainings are equal to the bit
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    done = 0
    if saved := here.load():
        done = saved.at
        model.load_state_dict(saved.value["model"])
        optimizer.load_state_dict(saved.value["optimizer"])
    x = torch.tensor(data["train_x"], dtype=torch.float32)
    y = torch.tensor(data["train_y"])
    print(f"attempt {here.attempt} begins after epoch {done}")
    for epoch in range(done + 1, epochs + 1):
        # An epoch's order is its own, not what chance has come to by then.
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))
        for number, batch in enumerate(order.split(BATCH)):
            if kill_in is not None and number == 20:
                _die_once(kill_in / f"epoch-{epoch}")
            loss = torch.nn.functional.cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        here.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, at=epoch)
        here.progress(epoch, epochs, f"loss {loss.item():.3f}")
    return {name: weight.numpy() for name, weight in model.state_dict().items()}


@task
def accuracy(data: dict[str, Any], weights: dict[str, Any]) -> float:
    """Return which part of the digits that were kept is told right."""
    hidden = (data["test_x"] @ weights["0.weight"].T + weights["0.bias"]).clip(min=0)
    guessed = (hidden @ weights["2.weight"].T + weights["2.bias"]).argmax(axis=1)
    return float((guessed == data["test_y"]).mean())


@workflow
def training(epochs: int = EPOCHS, kill_in: Path | None = None) -> tuple[float, dict[str, Any]]:
    """Return accuracy and weights."""
    data = digits.bind()
    weights = train.bind(data, epochs, kill_in)
    return accuracy.bind(data, weights), weights


def _die_once(mark: Path) -> None:
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    """Train with and without kills, and say whether it came to the same."""
    try:
        import torch  # noqa: F401
    except ImportError:
        print(f"this example needs PyTorch; its build for the CPU is enough:\n\n    {INSTALL}\n")
        return 1
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        marks = Path(folder) / "marks"
        marks.mkdir()
        with perdure.open(str(Path(folder) / "perdure.db"), executor="processes") as client:
            wanted, weights = client.run(training, run_id="undisturbed")
            print(f"undisturbed: accuracy {wanted:.3f}")
            found, killed = client.run(training, run_id="killed", kill_in=marks)
            deaths = len(list(marks.iterdir()))
            begun = client.get_run("killed")["train"].logs().count("begins after epoch")
    equal = all(np.array_equal(weights[name], killed[name]) for name in weights)
    print(f"killed in {deaths} epochs, {begun} attempts: accuracy {found:.3f}")
    print(f"weights equal: {equal}")
    return 0 if equal and deaths == EPOCHS and found >= 0.96 else 1


if __name__ == "__main__":
    sys.exit(main())
