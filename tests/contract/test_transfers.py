"""Runs through a file, between every two kinds of store; and files that are not as written."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.contract.test_whole_runs import MOVES

from perdure_storage.blobs import open_blobs
from perdure_storage.clock import ManualClock
from perdure_storage.codecs import Codecs
from perdure_storage.connect import open_run_store
from perdure_storage.contract_samples import NOW, a_save, a_whole_run
from perdure_storage.directories import Directories
from perdure_storage.errors import InternalError, PerdureError, RunConflict, RunFileRefused
from perdure_storage.hashing import digest_of, hex_of
from perdure_storage.logs import open_logs
from perdure_storage.memory import MemoryRunStore
from perdure_storage.protocols import RunStore
from perdure_storage.records import RunId, RunQuery, StepId, WholeRun
from perdure_storage.run_files import KINDS, Contents, RunFile
from perdure_storage.schema import CURRENT
from perdure_storage.transfers import Place, bring_run, write_run
from perdure_storage.values import Values

EXAMPLES = int(os.environ.get("PERDURE_TEST_DAMAGES", "40"))
SHARED = [HealthCheck.function_scoped_fixture]  # each example makes a place of its own
_RUN = RunId("run")
_LOG = (_RUN, StepId("a"), 3, 2)
CONTENTS = Contents(
    perdure="0.1.0",
    schema=CURRENT.head,
    store="elsewhere",
    run="run",
    workflow="flow",
    status="FAILED",
    exported_at=NOW,
)


def a_place(store: RunStore, folder: Path) -> Place:
    url = str(folder / "blobs")
    blobs = open_blobs(url, store.store_id, bind=True)
    return Place(store=store, blobs=blobs, logs=open_logs(url, store.store_id))


def a_memory_place(folder: Path) -> Place:
    return a_place(MemoryRunStore(ManualClock(NOW)), folder)


@pytest.fixture
def places(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[[str], Place]]:
    made: list[RunStore] = []
    numbers = itertools.count()

    def place(kind: str) -> Place:
        folder = tmp_path / f"{kind}{next(numbers)}"
        if kind == "memory":
            return a_memory_place(folder)
        key = bytes([len(made)]) * 32
        is_file = kind == "sqlite"
        url = str(folder / "perdure.db") if is_file else request.getfixturevalue("postgres_url")
        made.append(open_run_store(url, key=key, clock=ManualClock(NOW)))
        return a_place(made[-1], folder)

    yield place
    for store in made:
        store.close()


def stored(place: Place) -> WholeRun:
    """Return a run of every kind of row, whose blobs are in that place."""
    text = msgspec.json.encode(a_whole_run()).decode()
    values = Values(Codecs(), place.blobs)
    large = bytes(range(256)) * 8000
    for name in ("input", "code", "old code", "child code", "history", "state", "default", "sent"):
        text = text.replace(f'"blake3:{name}"', f'"{place.blobs.put([name.encode()])}"')
    text = text.replace('"blake3:large"', f'"{place.blobs.put([large])}"')
    text = text.replace('"blake3:file"', f'"{place.blobs.put([b"of a folder"])}"')
    for plan in a_whole_run().plans:
        text = text.replace(f'"{plan.digest}"', f'"{digest_of(plan.body)}"')
    whole = msgspec.json.decode(text, type=WholeRun)
    return msgspec.structs.replace(
        whole,
        plans=tuple(sorted(whole.plans, key=lambda plan: plan.digest)),
        history=msgspec.structs.replace(
            whole.history, saves=(*whole.history.saves, a_folder(values))
        ),
    )


def a_folder(values: Values) -> Any:
    """Return a save that is a folder: a manifest, and a blob for each file."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "weights.bin").write_bytes(b"w" * 3_000_000)
        (Path(folder) / "inner").mkdir()
        (Path(folder) / "inner" / "notes.txt").write_text("notes")
        value = Directories(values).store(folder)
    return a_save("folder", number=1, value=value)


def filled(place: Place) -> Place:
    assert place.store.import_run(stored(place), {"from": "a test"}) is not None
    place.logs.append(*_LOG, b"printed\n" * 300_000)
    place.logs.append(*_LOG, b"and more\n")
    return place


def exported(place: Place) -> bytes:
    file = io.BytesIO()
    write_run(place, place.store.get_run(_RUN), file, CONTENTS)
    return file.getvalue()


def brought(place: Place, path: Path, data: bytes) -> bool:
    path.write_bytes(data)
    with RunFile(path, CURRENT.revisions) as file:
        return bring_run(place, file, file.whole_run())


def comparable(place: Place) -> WholeRun:
    """Return a run's rows without its story, which each import makes longer, and numbers."""
    whole = place.store.whole_run(_RUN)
    return msgspec.structs.replace(
        whole,
        run=msgspec.structs.replace(whole.run, seq=0),
        history=msgspec.structs.replace(whole.history, events=()),
    )


def test_a_file_has_every_table_of_a_run() -> None:
    assert set(KINDS) == MOVES - {"plan_ref", "blob_ref"}


@pytest.mark.parametrize("way", list(itertools.product(["memory", "sqlite"], repeat=2)), ids=str)
def test_run_is_the_same_behind_a_file(
    places: Callable[[str], Place], tmp_path: Path, way: tuple[str, str]
) -> None:
    _there_and_back(places, tmp_path, way)


@pytest.mark.postgres
@pytest.mark.parametrize("other", ["memory", "sqlite"])
def test_run_is_the_same_on_postgres_and_back(
    places: Callable[[str], Place], tmp_path: Path, other: str
) -> None:
    _there_and_back(places, tmp_path, (other, "postgres"))


def _there_and_back(places: Callable[[str], Place], tmp_path: Path, way: tuple[str, str]) -> None:
    source, target, back = filled(places(way[0])), places(way[1]), places(way[0])

    assert brought(target, tmp_path / "there", exported(source))
    assert brought(back, tmp_path / "back", exported(target))

    assert comparable(target) == comparable(source)
    assert comparable(back) == comparable(source)
    assert back.logs.read(*_LOG) == source.logs.read(*_LOG)
    assert sorted(back.blobs.list_digests()) == sorted(target.blobs.list_digests())
    told = [e.detail for e in back.store.list_events(_RUN) if e.kind == "imported"]
    assert [each.get("store") for each in told] == [None, "elsewhere", "elsewhere"]


def test_folder_arrives_with_its_files(places: Callable[[str], Place], tmp_path: Path) -> None:
    source, target = filled(places("sqlite")), places("sqlite")
    brought(target, tmp_path / "file", exported(source))
    (save,) = [s for s in target.store.list_saves(_RUN) if s.step_id == "folder"]

    restored = tmp_path / "restored"
    Directories(Values(Codecs(), target.blobs)).restore(save.value, restored)

    assert (restored / "weights.bin").stat().st_size == 3_000_000
    assert (restored / "inner" / "notes.txt").read_text() == "notes"


def test_second_import_brings_what_is_missing_of_logs_and_nothing_else(
    places: Callable[[str], Place], tmp_path: Path
) -> None:
    source, target = filled(places("sqlite")), places("sqlite")
    data = exported(source)
    brought(target, tmp_path / "file", data)
    before = target.store.whole_run(_RUN)
    target.logs.delete(_RUN)
    target.logs.append(*_LOG, b"printed\npri")

    assert not brought(target, tmp_path / "file", data)

    assert target.store.whole_run(_RUN) == before
    assert target.logs.read(*_LOG) == source.logs.read(*_LOG)


# --- files that are not as they were written --------------------------------------------------
@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return exported(filled(a_memory_place(tmp_path_factory.mktemp("written"))))


def parts_of(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(parts: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return file.getvalue()


def agreeing(parts: dict[str, bytes]) -> dict[str, bytes]:
    """Return parts with contents that say of them what is true: the work of a forger."""
    contents = json.loads(parts["contents.json"])
    for kind, part in contents["rows"].items():
        rows = parts[f"rows/{kind}.jsonl"]
        part |= {"size_bytes": len(rows), "digest": digest_of(rows)}
    return {**parts, "contents.json": json.dumps(contents).encode()}


def refuses(tmp_path: Path, data: bytes, why: str) -> None:
    place = a_memory_place(tmp_path / "place")

    with pytest.raises(RunFileRefused, match=why):
        brought(place, tmp_path / "file", data)

    assert place.store.find_run(_RUN) is None


@pytest.mark.parametrize("data", [b"", b"PK", b"no archive at all", packed({"a": b"b"})])
def test_what_is_no_export_is_refused_as_such(tmp_path: Path, data: bytes) -> None:
    refuses(tmp_path, data, "is no exported run")


def test_a_file_that_came_in_part_or_compressed_is_refused_with_what_is_wrong(
    tmp_path: Path, written: bytes
) -> None:
    refuses(tmp_path, written[: len(written) // 2], "its end is missing")
    refuses(tmp_path, gzip.compress(written), "unpack it with `gunzip`")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path, Path("\0")):
        with pytest.raises(RunFileRefused):
            RunFile(path, CURRENT.revisions)


def test_a_compressed_file_is_refused_before_it_is_unpacked(tmp_path: Path, written: bytes) -> None:
    parts = parts_of(written)
    parts["rows/step.jsonl"] = b" " * 50_000_000

    refuses(tmp_path, packed(parts, zipfile.ZIP_DEFLATED), "are compressed")


def test_a_file_whose_parts_overlap_is_refused(tmp_path: Path, written: bytes) -> None:
    data = bytearray(written)
    with zipfile.ZipFile(io.BytesIO(written)) as archive:
        large = max(archive.infolist(), key=lambda entry: entry.file_size)
    # Every entry of the directory at the back leads to the one large part.
    at = len(data)
    while (at := data.rfind(b"PK\x01\x02", 0, at)) >= 0:
        data[at + 16 : at + 28] = _facts_of(data, large.filename)
        data[at + 42 : at + 46] = large.header_offset.to_bytes(4, "little")

    refuses(tmp_path, bytes(data), "longer than the file|no exported run|damaged")


def _facts_of(data: bytearray, name: str) -> bytes:
    at = data.rfind(name.encode()) - 46
    return bytes(data[at + 16 : at + 28])


def test_a_file_of_a_newer_perdure_names_the_remedy(tmp_path: Path, written: bytes) -> None:
    for change in ({"format": 2}, {"schema": "9999"}):
        parts = parts_of(written)
        contents = json.loads(parts["contents.json"]) | change
        parts["contents.json"] = json.dumps(contents).encode()

        refuses(tmp_path, packed(parts), "newer.*pip install -U perdure")


@pytest.mark.parametrize("prefix", ["rows/step", "blobs/", "logs/"])
def test_a_part_that_is_missing_or_another_is_refused(
    tmp_path: Path, written: bytes, prefix: str
) -> None:
    parts = parts_of(written)
    name = next(name for name in parts if name.startswith(prefix))
    part = parts.pop(name)

    refuses(tmp_path, packed(parts), "missing")
    refuses(tmp_path, packed({**parts, name: part + b" "}), "missing, or are others")
    refuses(tmp_path, packed({**parts, name: b"x" * len(part)}), "not what it was|is damaged")


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/cron.d/x", "blobs/../../x", "rows/more.jsonl"]
)
def test_a_part_that_nobody_asked_for_is_refused(tmp_path: Path, written: bytes, name: str) -> None:
    refuses(tmp_path, packed({**parts_of(written), name: b"x"}), "others than it says")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "place"]


def test_a_value_that_no_row_names_is_refused_and_one_that_a_row_names_is_wanted(
    tmp_path: Path, written: bytes
) -> None:
    parts = parts_of(written)
    contents = json.loads(parts["contents.json"])
    more = b"nobody names me"
    contents["blobs"][digest_of(more)] = len(more)
    extra = {**parts, f"blobs/{hex_of(digest_of(more))}": more}
    extra["contents.json"] = json.dumps(contents).encode()
    steps = parts["rows/step.jsonl"].splitlines(keepends=True)
    lacking = agreeing({**parts, "rows/step.jsonl": b"".join(steps[:-1])})

    refuses(tmp_path, packed(extra), "others than those of its rows")
    assert brought(a_memory_place(tmp_path / "fine"), tmp_path / "file", packed(lacking))


def test_a_run_that_went_on_elsewhere_is_not_mixed_with_what_is_here(
    tmp_path: Path, written: bytes
) -> None:
    parts, place = parts_of(written), a_memory_place(tmp_path / "place")
    steps = parts["rows/step.jsonl"].splitlines(keepends=True)
    earlier = agreeing({**parts, "rows/step.jsonl": b"".join(steps[:-1])})
    brought(place, tmp_path / "file", packed(earlier))
    before = place.store.whole_run(_RUN)

    with pytest.raises(RunConflict, match="went on elsewhere"):
        brought(place, tmp_path / "file", written)

    assert place.store.whole_run(_RUN) == before


def _damaged(data: bytes, at: float, what: str, piece: bytes) -> bytes:
    position = int(at * len(data))
    match what:
        case "cut":
            return data[:position]
        case "insert":
            return data[:position] + piece + data[position:]
        case "overwrite":
            return data[:position] + piece + data[position + len(piece) :]
        case _:
            return data[:position] + data[position + len(piece) :]


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.floats(0, 1, exclude_max=True),
    st.sampled_from(["cut", "insert", "overwrite", "remove"]),
    st.binary(min_size=1, max_size=8),
)
@example(0.0, "cut", b"x")
def test_a_damaged_file_is_refused_or_brings_what_was_written(
    tmp_path: Path, written: bytes, at: float, what: str, piece: bytes
) -> None:
    """Most of a file is values: the damage goes where the structure is, at its end, too."""
    place = a_memory_place(tmp_path / f"place{os.urandom(4).hex()}")
    # Half of the trials are spent on the directory at the back.
    start = 0 if at < 0.3 else len(written) - 9000
    data = written[:start] + _damaged(written[start:], at, what, piece)

    try:
        brought(place, tmp_path / "file", data)
    except RunFileRefused as error:
        assert str(error).startswith(str(tmp_path / "file"))  # noqa: PT017
        assert place.store.find_run(_RUN) is None
    else:
        assert place.store.list_steps(_RUN, current_only=False) == [
            msgspec.json.decode(line, type=KINDS["step"])
            for line in parts_of(written)["rows/step.jsonl"].splitlines()
        ]


_ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=4),
    st.sampled_from(["\0", "../..", "2026-01-01T00:00:00", "blake3:" + "0" * 64, "PENDING"]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_a_forged_row_is_refused_or_makes_a_run_that_can_be_read(
    tmp_path: Path, written: bytes, data: st.DataObject
) -> None:
    """Whoever forges a row makes the digests fit: what is left is what a row may say."""
    parts = parts_of(written)
    filled_kinds = [kind for kind in KINDS if parts[f"rows/{kind}.jsonl"]]
    kind = data.draw(st.sampled_from(filled_kinds))
    rows = [json.loads(line) for line in parts[f"rows/{kind}.jsonl"].splitlines()]
    row = data.draw(st.sampled_from(rows))
    row[data.draw(st.sampled_from(sorted(row)))] = data.draw(_ODD)
    parts[f"rows/{kind}.jsonl"] = b"".join(json.dumps(each).encode() + b"\n" for each in rows)
    folder = tmp_path / os.urandom(4).hex()
    store = open_run_store(folder / "perdure.db", key=bytes(32), clock=ManualClock(NOW))
    place = a_place(store, folder)

    try:
        brought(place, tmp_path / "file", packed(agreeing(parts)))
    except PerdureError as error:
        assert not isinstance(error, InternalError), error  # noqa: PT017
        assert store.find_run(_RUN) is None
    else:
        (found,) = place.store.list_runs(RunQuery())
        place.store.whole_run(found.id)
    finally:
        store.close()
