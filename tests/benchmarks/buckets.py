"""What it costs to put a value into a bucket and to read it, against the bare drivers.

    python -m tests.benchmarks.buckets
    python -m tests.benchmarks.buckets --mib 1 64 --rounds 1

All of them speak to one moto server, in a process of its own, which is most of what is measured:
the ratios count, of rounds that take turns. It copies a whole object for each range that is asked
for, and again for each upload by parts, so parts cost there what they save elsewhere. *By a
temporary name* is the other way to a name that is not known before: to hash while an upload goes
on, and to have the server copy it then.
"""

from __future__ import annotations

import argparse
import os
import resource
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import fsspec
from tests.benchmarks.rounds import circumstances

from perdure_storage.blobs import open_blobs
from perdure_storage.hashing import integrity_digest
from perdure_storage.objects import IN_FLIGHT, FsspecObjects
from perdure_storage.records import CacheTerms

_SERVER = """
import sys, threading
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(port=0, verbose=False)
server.start()
print(*server.get_host_and_port(), flush=True)
sys.stdin.read()
"""

Figures = dict[str, float]


def one_round(bucket: str, size_bytes: int, folder: Path) -> Figures:
    """Return the seconds of each way, with bytes that the server has not seen."""
    s3 = fsspec.filesystem("s3")
    name = bucket.removeprefix("s3://")
    plain = open_blobs(bucket, "plain")
    terms = CacheTerms(folder=str(folder), limit_bytes=4 << 30)
    cached = open_blobs(bucket, "cached", cache=terms)
    local = open_blobs(folder / "local", "local", bind=True)
    found: Figures = {}
    parts = {"chunksize": FsspecObjects.part_bytes, "max_concurrency": IN_FLIGHT}

    def timed(what: str, do: Callable[[], object]) -> None:
        began = time.perf_counter()
        do()
        found[what] = time.perf_counter() - began

    def temporary() -> None:
        s3.pipe_file(f"{name}/temporary", data, **parts)
        digest = integrity_digest([data])
        s3.cp_file(f"{name}/temporary", f"{name}/{digest}")
        s3.rm_file(f"{name}/temporary")

    data = secrets.token_bytes(size_bytes)
    timed("s3fs put", lambda: s3.pipe_file(f"{name}/raw", data))
    timed("s3fs get", lambda: s3.cat_file(f"{name}/raw"))
    timed("s3fs put, by the same parts", lambda: s3.pipe_file(f"{name}/raw", data, **parts))
    timed("s3fs get, by the same parts", lambda: s3.cat_file(f"{name}/raw", **parts))
    timed("put by a temporary name", temporary)
    timed("hash alone", lambda: integrity_digest([data]))
    timed("put", lambda: plain.put([data]))
    digest = integrity_digest([data])
    timed("put of what is there", lambda: plain.put([data]))
    timed("get", lambda: plain.open(digest, size_bytes).release())
    timed("put, and keep a copy", lambda: cached.put([data]))
    timed("read of a copy", lambda: sum(cached.open(digest, size_bytes)[:: 1 << 20]))
    local.put([data])
    timed("read of a local blob", lambda: sum(local.open(digest, size_bytes)[:: 1 << 20]))
    for each in ("raw", str(digest)):
        s3.rm_file(f"{name}/{each}")
    for blobs in (plain, cached, local):
        blobs.delete(digest)
    return found


@contextmanager
def serving() -> Iterator[str]:
    """Yield the URL of an empty bucket, which this process and those that it starts then find."""
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        host, port = server.stdout.readline().split()
        endpoint = f"http://{host}:{port}"
        os.environ.update(AWS_ACCESS_KEY_ID="none", AWS_SECRET_ACCESS_KEY="none")
        os.environ.update(AWS_ENDPOINT_URL=endpoint, AWS_DEFAULT_REGION="us-east-1")
        bucket = f"s3://bucket-{secrets.token_hex(4)}"
        fsspec.filesystem("s3").mkdir(bucket)
        yield bucket
    finally:
        server.kill()
        server.wait()


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, nargs="+", default=[1, 64, 512])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with serving() as bucket:
        for store in ("plain", "cached"):
            open_blobs(bucket, store, bind=True)
        print(circumstances(options.rounds))
        print("\n| MiB | what | s | times s3fs |\n|---|---|---|---|")
        for mib in options.mib:
            with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", ".")) as folder:
                rounds = [one_round(bucket, mib << 20, Path(folder)) for _ in range(options.rounds)]
            report(mib, rounds)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"\npeak resident set of this process: {peak:.0f} MiB")


def report(mib: int, rounds: list[Figures]) -> None:
    """Print the median of each way, and how it stands to the driver's own parts in its round."""
    for what in rounds[0]:
        way = "get" if what.startswith(("get", "read", "s3fs get")) else "put"
        against = f"s3fs {way}, by the same parts"
        ratio = median(each[what] / each[against] for each in rounds)
        print(f"| {mib} | {what} | {median(each[what] for each in rounds):.4f} | {ratio:.3f} |")


if __name__ == "__main__":
    main()
