"""Pickled values: classes without a module, functions, and the path to what cannot be stored."""

from __future__ import annotations

import dataclasses
import enum
import pickle
import sys
import threading
import types
import warnings
from pathlib import Path
from typing import Any

import pytest
from tests.unit.storage.examples import Plain, Point

from perdure_storage.codecs import Codecs, Encoded, register_codec
from perdure_storage.errors import NotSerializable, StoreError

_CODECS = Codecs()


def round_trip(value: Any, codecs: Codecs = _CODECS) -> Any:
    return decode(codecs.encode(value), codecs)


def decode(encoded: Encoded, codecs: Codecs = _CODECS) -> Any:
    return codecs.decode(encoded.codec, memoryview(bytearray(b"".join(encoded.buffers))))


def test_objects_of_modules_come_back_as_instances_of_their_class() -> None:
    back = round_trip([Plain(1), ValueError("x", 2)])

    assert back[0] == Plain(1)
    assert type(back[1]) is ValueError
    assert back[1].args == ("x", 2)


def test_functions_without_a_module_come_back_with_their_closure() -> None:
    factor = 3

    assert round_trip(lambda x: x * factor)(2) == 6


def test_each_reading_makes_an_object_of_its_own() -> None:
    encoded = _CODECS.encode(Plain([1]))

    one, two = decode(encoded), decode(encoded)
    one.value.append(2)

    assert two.value == [1]


# --- classes of a script ------------------------------------------------------------------------
_SCRIPT = """
import dataclasses, enum

class Kind(enum.Enum):
    A = 1
    B = 2

@dataclasses.dataclass
class Row:
    kind: Kind
    n: int
    def doubled(self):
        return Row(self.kind, self.n * 2)

@dataclasses.dataclass(slots=True, frozen=True)
class Slotted:
    n: int

class Bad(Exception):
    def __init__(self, row):
        super().__init__(row)
        self.row = row

class Base:
    def who(self):
        return type(self).__name__

class Child(Base):
    def who(self):
        return "child of " + super().who()
    def again(self):
        return Child()
"""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Return a module that stands for the user's ``__main__``."""
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    _run(_SCRIPT, module)
    return module


def _run(source: str, module: types.ModuleType) -> None:
    exec(compile(source, "script.py", "exec", dont_inherit=True), vars(module))


def _elsewhere(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Make this process look like a worker: another ``__main__``, without the user's classes."""
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    return module


def test_script_s_classes_keep_their_identity_at_home(script: Any) -> None:
    value = [script.Kind.A, script.Row(script.Kind.B, 1), script.Slotted(3), script.Child()]

    back = round_trip(value)

    assert back[0] is script.Kind.A
    assert type(back[1]) is script.Row
    assert back[1] == value[1]
    assert back[2] == script.Slotted(3)
    assert type(back[3]) is script.Child


def test_script_s_classes_work_elsewhere_and_come_home(
    script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Codecs()
    value = {"row": script.Row(script.Kind.A, 2), "bad": script.Bad(1), "child": script.Child()}
    sent = Codecs().encode(value)

    monkeypatch.setattr("perdure_storage.codecs.definitions._seen_here", {})
    _elsewhere(monkeypatch)
    received = decode(sent, there)
    again = decode(sent, there)
    answer = {**received, "more": received["row"].doubled(), "kind": received["row"].kind}
    returned = there.encode(answer)

    assert type(received["row"]) is not script.Row
    assert type(received["row"]) is type(again["row"])
    assert received["row"].kind is again["row"].kind
    assert received["child"].who() == "child of Child"
    assert type(received["child"].again()) is type(received["child"])

    monkeypatch.setitem(sys.modules, "__main__", script)
    home = decode(returned)
    assert type(home["more"]) is script.Row
    assert home["more"] == script.Row(script.Kind.A, 4)
    assert home["kind"] is script.Kind.A
    assert isinstance(home["bad"], script.Bad)
    assert isinstance(home["child"], script.Base)


def test_edited_class_is_read_as_it_was_with_a_warning(script: Any) -> None:
    encoded = _CODECS.encode([script.Row(script.Kind.A, 1), script.Kind.A])
    _run(_SCRIPT.replace("self.n * 2", "self.n * 3"), script)

    with pytest.warns(UserWarning, match="Row as it was before it was edited"):
        back, kind = decode(encoded)

    assert type(back) is not script.Row
    assert back.doubled().n == 2
    # What was not edited is the live class, although it was defined anew.
    assert kind is script.Kind.A
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert type(decode(encoded)[0]) is type(back)


def test_cell_that_is_run_again_unchanged_keeps_its_class_s_identity(script: Any) -> None:
    encoded = _CODECS.encode(script.Row(script.Kind.A, 1))
    _run(_SCRIPT, script)

    back = decode(encoded)

    assert type(back) is script.Row
    assert back == script.Row(script.Kind.A, 1)


def test_classes_go_by_the_code_digest_that_is_handed_in(script: Any) -> None:
    digests = {"Row": "one"}
    codecs = Codecs(code_digest=lambda cls: digests.get(cls.__name__, "same"))
    encoded = codecs.encode(script.Row(script.Kind.A, 1))
    live = script.Row
    script.Row = type("Row", (live,), {"__module__": "__main__", "__qualname__": "Row"})
    digests["Row"] = "two"

    with pytest.warns(UserWarning, match="before it was edited"):
        back = decode(encoded, codecs)

    assert type(back) is live


def test_script_imported_by_path_shares_classes_with_the_script_as_main(
    script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from perdure_storage import shapes

    encoded = _CODECS.encode(script.Row(script.Kind.A, 1))
    name = shapes.SCRIPT_PREFIX + "iris_1234"
    imported = types.ModuleType(name)
    monkeypatch.setitem(sys.modules, name, imported)
    _run(_SCRIPT, imported)
    monkeypatch.setattr(shapes, "_mains", {*shapes._mains, name})
    _elsewhere(monkeypatch)

    back = decode(encoded)

    assert type(back) is imported.Row
    assert back.kind is imported.Kind.A


def test_local_classes_keep_their_identity_in_their_process() -> None:
    @dataclasses.dataclass
    class Local:
        x: int

    class Mood(enum.Enum):
        GOOD = 1

    back = round_trip([Local(1), Mood.GOOD])

    assert back == [Local(1), Mood.GOOD]
    assert back[1] is Mood.GOOD


def test_class_itself_is_a_value(script: Any) -> None:
    assert round_trip(script.Row) is script.Row
    assert round_trip([int, Point, type(None)]) == [int, Point, type(None)]


def test_exceptions_come_home_to_except_clauses(script: Any) -> None:
    data = _CODECS.pickle(script.Bad("row"))

    error = _CODECS.decode_exception(data)

    assert isinstance(error, script.Bad)
    assert error.row == "row"
    assert Codecs(allow_pickle=False).decode_exception(data) is None


# --- what cannot be stored ----------------------------------------------------------------------
class Holder:
    def __init__(self, **parts: Any) -> None:
        self.__dict__.update(parts)


class Slots:
    __slots__ = ("inner",)

    def __init__(self, inner: Any) -> None:
        self.inner = inner


class Refuses:
    def __reduce__(self) -> Any:
        raise RuntimeError("never")


def _closure(lock: Any) -> Any:
    return lambda: lock


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda bad: bad, "result"),
        (lambda bad: {"model": Holder(lock=bad)}, 'result["model"].lock'),
        (lambda bad: [1, (2, bad)], "result[1][1]"),
        (lambda bad: {3: [bad]}, "result[3][0]"),
        (lambda bad: Point(Slots(bad)), "result.x.inner"),
        (lambda bad: {"f": _closure(bad)}, "result[\"f\"] (closure variable 'lock')"),
        (lambda bad: Holder(run=Holder(lock=bad).__init__, lock=bad), "result.run.__self__.lock"),
    ],
    ids=["itself", "dict", "tuple", "number", "slots", "closure", "method"],
)
@pytest.mark.parametrize("bad", [threading.Lock(), Refuses()], ids=["lock", "refuses"])
def test_path_leads_to_the_part_that_cannot_be_stored(make: Any, path: str, bad: Any) -> None:
    with pytest.raises(NotSerializable) as raised:
        _CODECS.encode(make(bad))

    assert raised.value.path == path
    assert str(raised.value).startswith(f"{path} cannot be stored: a ")
    assert raised.value.__cause__ is not None


def test_path_begins_with_the_name_that_the_caller_gives() -> None:
    with pytest.raises(NotSerializable) as raised:
        _CODECS.encode({"a": threading.Lock()}, name="argument 'config'")

    assert raised.value.path == "argument 'config'[\"a\"]"


def test_search_for_the_culprit_ends_in_a_cycle() -> None:
    holder = Holder(lock=threading.Lock())
    holder.me = holder  # type: ignore[attr-defined]

    with pytest.raises(NotSerializable) as raised:
        _CODECS.encode(holder)

    assert raised.value.path == "result.lock"


def test_stored_value_whose_class_is_gone_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = _CODECS.encode(Plain(1))
    monkeypatch.delattr("tests.unit.storage.examples.Plain")

    with pytest.raises(StoreError, match=r"cannot be read in this process: AttributeError"):
        decode(encoded)


def test_not_serializable_pickles() -> None:
    error = NotSerializable("no", path="result.x")

    assert pickle.loads(pickle.dumps(error)).path == "result.x"


# --- codecs of users ----------------------------------------------------------------------------
class Mesh:
    def __init__(self, data: bytes) -> None:
        self.data = data


@pytest.fixture
def mesh_codec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure_storage.codecs.encoded._by_type", {})
    monkeypatch.setattr("perdure_storage.codecs.encoded._by_name", {})
    register_codec(
        Mesh,
        "mesh/1",
        encode=lambda mesh: [b"mesh", mesh.data],
        decode=lambda data: Mesh(bytes(data[4:])),
        canonical=True,
    )


@pytest.mark.usefixtures("mesh_codec")
def test_user_s_codec_is_used_for_its_type_only() -> None:
    encoded = Codecs(allow_pickle=False).encode(Mesh(b"abc"))

    assert encoded.codec == "mesh/1"
    assert encoded.size_bytes == 7
    assert decode(encoded).data == b"abc"
    assert _CODECS.encode(type("Sub", (Mesh,), {})(b"")).codec == "pickle/1"
    assert _CODECS.digest(Mesh(b"abc")).startswith("v1:")
    assert _CODECS.digest(Mesh(b"abc")) != _CODECS.digest(Mesh(b"abd"))


@pytest.mark.usefixtures("mesh_codec")
@pytest.mark.parametrize("name", ["json/1", "pickle/9", "mesh", "mesh/x", "/1", "mesh/1"])
def test_bad_and_taken_codec_names_are_refused(name: str) -> None:
    with pytest.raises(StoreError, match="codec name"):
        register_codec(Plain, name, encode=lambda value: [], decode=bytes)


@pytest.mark.usefixtures("mesh_codec")
def test_codec_of_a_class_that_is_defined_again_takes_the_place_of_the_former() -> None:
    again = type("Mesh", (), {"__module__": Mesh.__module__, "data": b"xyz"})

    register_codec(again, "mesh/1", encode=lambda mesh: [mesh.data], decode=bytes)

    encoded = _CODECS.encode(again())
    assert (encoded.codec, encoded.size_bytes) == ("mesh/1", 3)
    assert decode(encoded) == b"xyz"


@pytest.mark.parametrize("mode", ["r", "rb", "w+"])
def test_open_file_is_refused_with_the_path_to_it_instead_of_being_copied(
    tmp_path: Path, mode: str
) -> None:
    (tmp_path / "rows.txt").write_text("1\n")

    with (
        (tmp_path / "rows.txt").open(mode) as file,
        pytest.raises(NotSerializable) as caught,
    ):
        _CODECS.encode({"rows": [1, file]}, name="result")

    assert caught.value.path == 'result["rows"][1]'


def test_open_text_file_is_refused_with_what_to_give_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("1\n")

    with (
        (tmp_path / "rows.txt").open() as file,
        pytest.raises(NotSerializable, match=r"result cannot be stored: .*give its path"),
    ):
        _CODECS.encode(file, name="result")
