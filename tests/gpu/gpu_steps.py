"""Steps that use a GPU through torch, imported by name in workers."""

from __future__ import annotations

import os

import perdure
from perdure import task


@task(gpus=1)
def device() -> tuple[str, int, float]:
    """Return what the step is told, how many GPUs torch sees, and a product that one computed."""
    import torch

    ones = torch.ones(64, 64, device="cuda")
    return os.environ["CUDA_VISIBLE_DEVICES"], torch.cuda.device_count(), float((ones @ ones).sum())


@task
def without() -> tuple[bool, str]:
    import torch

    return torch.cuda.is_available(), os.environ["CUDA_VISIBLE_DEVICES"]


@task(gpus=0.5)
def half(n: int, mib: int) -> tuple[str, int]:
    """Take memory of a GPU, keep it in torch's cache, and tell which GPU it was."""
    import torch

    kept = torch.empty(mib << 20, dtype=torch.uint8, device="cuda")
    return os.environ["CUDA_VISIBLE_DEVICES"], kept.numel() >> 20


@task(gpus=1)
def free_mib() -> int:
    """Return how much memory of its GPU nobody holds."""
    import torch

    return int(torch.cuda.mem_get_info()[0] >> 20)


@perdure.actor(state="rebuild", gpus=1)
class Holder:
    """Keeps memory of its GPU, as a model does."""

    def __init__(self, mib: int) -> None:
        import torch

        self.kept = torch.empty(mib << 20, dtype=torch.uint8, device="cuda")

    def gpu(self, n: int) -> str:
        return os.environ["CUDA_VISIBLE_DEVICES"]


@task
def free_of_all() -> list[int]:
    """Return of each GPU that it sees how much memory nobody holds."""
    import torch

    return [torch.cuda.mem_get_info(n)[0] >> 20 for n in range(torch.cuda.device_count())]
