"""How a torch CPU tensor lies in bytes: a small JSON header, padding to 64 bytes, the items."""

from __future__ import annotations

import importlib
from typing import Any

from perdure_storage.array_layout import pack_header
from perdure_storage.hashing import flat
from perdure_storage.records import Buffer


def tensor_buffers(value: Any) -> list[Buffer] | None:
    """Return header and items of a dense CPU tensor, or None if it is of any other kind.

    Nothing is copied where the items lie in C order already.
    """
    torch: Any = importlib.import_module("torch")

    if (
        type(value) is not torch.Tensor
        or value.device.type != "cpu"
        or value.layout is not torch.strided
        or value.is_quantized
        or value.is_conj()
        or value.is_neg()
        or value.grad_fn is not None
        or value.grad is not None
        or value.__dict__
    ):
        return None
    header = pack_header(
        {
            "dtype": str(value.dtype).removeprefix("torch."),
            "requires_grad": value.requires_grad,
            "shape": list(value.shape),
        }
    )
    items = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    return [header, flat(items.data)]
