"""GPUs as NVIDIA's library tells of them: here a stand-in for it, with GPUs as they are given."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from perdure.executors.gpus import Gpu, gpu_ids, read_gpus, usable_gpus, visible_gpus

GIB = 1 << 30


class NVMLError(Exception):
    pass


class Nvml:
    """A machine with GPUs of these UUIDs; None: without a driver."""

    NVMLError = NVMLError

    def __init__(self, *uuids: str, driver: bool = True) -> None:
        self._uuids = uuids
        self._driver = driver

    def nvmlInit(self) -> None:
        if not self._driver:
            raise NVMLError("NVML Shared Library Not Found")

    def nvmlShutdown(self) -> None:
        pass

    def nvmlDeviceGetCount(self) -> int:
        return len(self._uuids)

    def nvmlDeviceGetHandleByIndex(self, number: int) -> str:
        return self._uuids[number]

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> SimpleNamespace:
        return SimpleNamespace(total=80 * GIB)

    def nvmlDeviceGetName(self, handle: str) -> bytes:
        return b"NVIDIA H100"  # bytes in older versions

    def nvmlDeviceGetUUID(self, handle: str) -> str:
        return handle


def ids(visible: str | None) -> list[str]:
    return [gpu.id for gpu in read_gpus(Nvml("GPU-aa1", "GPU-ab2", "GPU-cc3"), visible).found]


def test_gpus_are_numbered_named_and_measured() -> None:
    found = read_gpus(Nvml("GPU-aa1"), None).found

    assert found == (Gpu("0", "NVIDIA H100", 80 * GIB),)


def test_machine_without_a_driver_has_no_gpus() -> None:
    assert read_gpus(Nvml(driver=False), None).found == ()


@pytest.mark.parametrize(
    ("visible", "chosen"),
    [
        (None, ["0", "1", "2"]),
        ("2,0", ["2", "0"]),
        ("", []),
        ("-1", []),
        ("1,7,0", ["1"]),  # as in CUDA: what names none ends the list
        ("GPU-c", ["GPU-c"]),
        ("GPU-a", []),  # two begin with it
        ("MIG-1234,MIG-5678", ["MIG-1234", "MIG-5678"]),
    ],
)
def test_gpus_that_this_process_may_not_see_are_not_given_out(
    visible: str | None, chosen: list[str]
) -> None:
    assert ids(visible) == chosen


def test_counts_beyond_what_is_found_are_pretended() -> None:
    found = len(usable_gpus().found)

    assert gpu_ids(0) == ()
    assert len(gpu_ids(found + 3)) == len(set(gpu_ids(found + 3))) == found + 3


def test_numbers_are_those_of_the_bus_unless_the_user_has_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    by_bus = visible_gpus(("0", "2"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0")

    assert by_bus == {"CUDA_VISIBLE_DEVICES": "0,2", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert visible_gpus(("2",)) == {"CUDA_VISIBLE_DEVICES": "2"}
