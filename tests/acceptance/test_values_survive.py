"""Values in real processes: killed in the middle, out of room, larger than they may copy."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perdure_storage.blobs import open_blobs
from perdure_storage.errors import StoreUnavailable, ValueDamaged
from perdure_storage.faults import CRASH_POINTS
from perdure_storage.hashing import integrity_digest

_STORE = "store"
_LARGE = bytes(range(256)) * 80_000

_PUT = """
from perdure_storage.blobs import open_blobs
blobs = open_blobs({root!r}, "store", bind=True)
data = bytes(range(256)) * 80_000
print(blobs.put([data[:1000], data[1000:]]), flush=True)
print(blobs.put([data]), flush=True)
blobs.quarantine(blobs.put([data]))
blobs.delete(blobs.put([data]))
"""


def _run(program: str, *, expect: int = 0, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == expect, done.stderr
    return done.stdout


_POINTS = sorted(name for name in CRASH_POINTS if name.startswith(("blob.", "marker.")))


@pytest.mark.parametrize("point", _POINTS)
def test_blob_is_whole_or_absent_after_a_kill(tmp_path: Path, point: str) -> None:
    _run(
        _PUT.format(root=str(tmp_path)),
        expect=-signal.SIGKILL,
        PERDURE_CRASH_POINTS=f"{point}:1:kill",
    )

    blobs = open_blobs(tmp_path, _STORE, bind=True)
    digest = integrity_digest([_LARGE])

    for name in blobs.list_digests():
        assert name == digest
        assert bytes(blobs.open(name, len(_LARGE))) == _LARGE
    assert blobs.put([_LARGE]) == digest
    assert bytes(blobs.open(digest, len(_LARGE))) == _LARGE
    blobs.sweep_temporaries(older_than_s=-60)
    assert list((tmp_path / _STORE / "incoming").iterdir()) == []


def test_hits_are_counted_over_processes(tmp_path: Path) -> None:
    hits = tmp_path / "hits"
    armed = f"blob.after-rename:2:kill@{hits}"
    program = _PUT.format(root=str(tmp_path / "data"))

    for number in range(2):
        blob = program.replace("80_000", str(80_000 + number)).splitlines()[:5]
        expect = -signal.SIGKILL if number == 1 else 0
        _run("\n".join(blob), expect=expect, PERDURE_CRASH_POINTS=armed)

    assert hits.stat().st_size == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("mount is not installed")
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_full_disk_loses_nothing_and_takes_values_again_when_there_is_room(
    small_disk: Path,
) -> None:
    blobs = open_blobs(small_disk, _STORE, bind=True)
    kept = blobs.put([_LARGE[: 6 << 20]])
    filler = small_disk / "filler"
    filler.write_bytes(bytes(6 << 20))

    with pytest.raises(StoreUnavailable, match=r"No space left.*make room and resume"):
        blobs.put([_LARGE[: 8 << 20]])

    assert list((small_disk / _STORE / "incoming").iterdir()) == []
    assert bytes(blobs.open(kept, 6 << 20)) == _LARGE[: 6 << 20]
    filler.unlink()
    later = blobs.put([_LARGE[: 8 << 20]])
    assert bytes(blobs.open(later, 8 << 20)) == _LARGE[: 8 << 20]


def test_limit_on_the_size_of_files_is_a_full_disk(tmp_path: Path) -> None:
    said = _run(
        f"""
        import resource
        from perdure_storage.blobs import open_blobs
        from perdure_storage.errors import StoreUnavailable
        blobs = open_blobs({str(tmp_path)!r}, "store", bind=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        try:
            blobs.put([bytes(10 << 20)])
        except StoreUnavailable as error:
            print(error)
        """
    )

    assert "committed is kept" in said


_MEMORY = """
import sys
import numpy as np
from perdure_storage.blobs import open_blobs
from perdure_storage.codecs import Codecs
from perdure_storage.values import Values

def private_mib(name="RssAnon"):
    for line in open("/proc/self/status"):
        if line.startswith(name):
            return int(line.split()[1]) // 1024

blobs = open_blobs({root!r}, "store", bind=True)
values = Values(Codecs(), blobs, blobs.spool("run"))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize(
    "make",
    [
        "np.arange(32 << 20, dtype=float)",
        "np.zeros((8192, 8192))[:, ::2]",
        "{'x': np.arange(32 << 20, dtype=float)}",
        "bytes(256 << 20)",
        "__import__('pyarrow').table({'x': np.arange(32 << 20, dtype=float)})",
        "__import__('pandas').DataFrame({'x': np.arange(32 << 20, dtype=float)})",
        "__import__('polars').DataFrame({'x': np.arange(32 << 20, dtype=float)})",
    ],
    ids=["array", "strided", "pickled", "bytes", "arrow", "pandas", "polars"],
)
def test_storing_256_mib_holds_no_second_256_mib(tmp_path: Path, make: str) -> None:
    _run(
        _MEMORY.format(root=str(tmp_path))
        + f"""
import resource
values.store(np.arange(10_000.0))
value = {make}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
stored = values.store(value)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
assert stored.size_bytes >= 256 << 20, stored.size_bytes
assert stored.value_digest.startswith("v1:"), stored.value_digest
assert after - before < 100, (before, after)
"""
    )


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_reading_256_mib_copies_nothing(tmp_path: Path) -> None:
    program = _MEMORY.format(root=str(tmp_path))
    stored = _run(
        program
        + """
import msgspec
sys.stdout.write(msgspec.json.encode(values.store(np.arange(32 << 20, dtype=float))).decode())
"""
    )

    _run(
        program
        + f"""
import msgspec
from perdure_storage.records import StoredValue
stored = msgspec.json.decode({stored!r}, type=StoredValue)
before = private_mib()
array = values.load(stored)
assert array[-1] == (32 << 20) - 1
assert array.sum() > 0
assert private_mib() - before < 20, (before, private_mib())
array[:1000] = -1
assert private_mib() - before < 20, (before, private_mib())
assert values.load(stored)[0] == 0
"""
    )


_ACCOUNT = """
import os, sys
from pathlib import Path
from perdure_storage.blobs import open_blobs
from perdure_storage.errors import ValueUnavailable
blobs = open_blobs({root!r}, "store")
os.setuid(65534)
try:
    blobs.open({digest!r}, {size})
except ValueUnavailable as error:
    print(error)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_value_that_may_not_be_read_is_unavailable(tmp_path: Path) -> None:
    blobs: Any = open_blobs(tmp_path, _STORE, bind=True)
    digest = blobs.put([b"data"])
    (tmp_path / _STORE / "blobs").chmod(0)

    said = _run(_ACCOUNT.format(root=str(tmp_path), digest=digest, size=4))

    assert "Permission denied" in said


_SCRIPT = '''
import dataclasses, enum, subprocess, sys
from perdure_storage.codecs import Codecs

class Kind(enum.Enum):
    A = 1

class Bad(Exception):
    pass

@dataclasses.dataclass
class Row:
    kind: Kind
    n: int
    def more(self):
        return Row(self.kind, self.n + 1)

WORKER = """
import sys
from perdure_storage.codecs import Codecs
codecs = Codecs()
row, bad, double = codecs.unpickle(sys.stdin.buffer.read())
sys.stdout.buffer.write(codecs.pickle([row.more(), double(row.n), bad, row.kind]))
"""

codecs = Codecs()
sent = codecs.pickle([Row(Kind.A, 1), Bad("x"), lambda n: 2 * n])
done = subprocess.run([sys.executable, "-c", WORKER], input=sent, capture_output=True, check=True)
row, doubled, bad, kind = codecs.unpickle(done.stdout)
assert type(row) is Row and row == Row(Kind.A, 2), row
assert doubled == 2
assert kind is Kind.A and row.kind is Kind.A
try:
    raise bad
except Bad as error:
    assert error.args == ("x",)
print("home")
'''


def test_script_s_classes_go_to_a_worker_and_come_home(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)

    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)

    assert done.stdout == "home\n", done.stderr


def test_script_s_objects_are_read_by_its_next_run(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    saved = tmp_path / "saved"
    body = _SCRIPT.partition("WORKER")[0] + textwrap.dedent(
        f"""
        import os, warnings
        warnings.simplefilter("error")
        codecs = Codecs()
        if not os.path.exists({str(saved)!r}):
            open({str(saved)!r}, "wb").write(codecs.pickle(Row(Kind.A, 1)))
        row = codecs.unpickle(open({str(saved)!r}, "rb").read())
        assert type(row) is Row and row.kind is Kind.A
        """
    )
    script.write_text(body)

    for _ in range(2):
        subprocess.run([sys.executable, str(script)], check=True)

    script.write_text(body.replace("self.n + 1", "self.n + 2"))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert "Row as it was before it was edited" in done.stderr


def test_damage_is_found_by_a_process_that_has_not_seen_the_blob(tmp_path: Path) -> None:
    blobs = open_blobs(tmp_path, _STORE, bind=True)
    digest = blobs.put([_LARGE])
    (path,) = tmp_path.glob("store/blobs/*/blake3-*")
    with path.open("r+b") as file:
        file.seek(12_345_678)
        file.write(b"\x00\x01")

    with pytest.raises(ValueDamaged):
        open_blobs(tmp_path, _STORE).open(digest, len(_LARGE))
