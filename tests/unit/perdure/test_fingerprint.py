from __future__ import annotations

import functools
import importlib
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perdure import task, workflow
from perdure.compile import compile_dag, prepare
from perdure.fingerprint import CodeDigest, code_digest, fingerprints, plain_digest
from perdure_storage.values import Values

Cell = Callable[..., dict[str, Any]]

BASE = '''
import functools
import json
import math
from dataclasses import dataclass, field
from enum import Enum
from perdure import task

SCALE = 3
NAMES = {"a": [1, 2], "b": (3,)}
LIMITS = frozenset({"x", "y"})
CACHE = {}
UNUSED = 1

def scale(x):
    """Scale a number."""
    return deeper(x) * SCALE

def deeper(x):
    return x + 1

def unused(x):
    return x

def even(n): return n == 0 or odd(n - 1)
def odd(n): return n != 0 and even(n - 1)

class Base:
    rate = 2
    def method(self, x):
        return x * self.rate

class Model(Base):
    @property
    def size(self): return 4
    @staticmethod
    def tool(x): return x - 1
    @classmethod
    def make(cls): return cls()
    def predict(self, x):
        return self.method(x) + scale(x)

@dataclass
class Config:
    lr: float = 0.1
    layers: list = field(default_factory=list)
    def double(self): return self.lr * 2

class Kind(Enum):
    FAST = 1
    SLOW = 2

DEFAULT = Config(lr=0.5)

@functools.lru_cache
def cached(x):
    return x * 10

@task
def other(x):
    return x + 100

@task(version="1")
def versioned(x):
    return x

def outer_decorator(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args) + 5
    return wrapper

@outer_decorator
def decorated(x):
    return x

@task(retries=2)
def step(rows, factor=2, *, mode="m"):
    """Docstring."""
    # a comment
    total = 0
    try:
        values = [value * factor for value in rows]
    except ValueError as problem:
        raise KeyError from problem
    for item in values:
        total += scale(item)
    if even(len(values)):
        total += 1
    CACHE["last"] = total
    callback = lambda q: q + total
    model = Model()
    kind = Kind.FAST
    return (model.predict(total), NAMES, LIMITS, DEFAULT.double(), kind, cached(1), other(2),
            versioned(3), decorated(4), callback(5), math.sqrt(4), json.dumps([1]))
'''

MEMBERS = """\
    @property
    def size(self): return 4
    @staticmethod
    def tool(x): return x - 1"""

SAME = {
    "a comment": ("# a comment", "# quite another comment, and a longer one"),
    "white space": ("    total = 0\n", "\n\n    total   =   0\n\n"),
    "the docstring": ('"""Docstring."""', '"""Another."""'),
    "the docstring removed": ('    """Docstring."""\n', ""),
    "a helper's docstring": ('"""Scale a number."""', '"""Scale."""'),
    "options of the task": ("@task(retries=2)", "@task(retries=5, cpus=2)"),
    "the decorator removed": ("@task(retries=2)\n", ""),
    "a local variable renamed": ("total", "summe"),
    "a comprehension's variable renamed": ("value * factor for value in", "v * factor for v in"),
    "an exception's variable renamed": ("problem", "trouble"),
    "a loop's variable renamed": ("item", "element"),
    "an unused function edited": ("    return x\n\ndef even", "    return x + 1\n\ndef even"),
    "an unused constant edited": ("UNUSED = 1", "UNUSED = 2"),
    "a constant written otherwise": ("SCALE = 3", "SCALE = 1 + 2"),
    "members of a class in another order": (
        MEMBERS,
        "\n".join(MEMBERS.splitlines()[2:] + MEMBERS.splitlines()[:2]),
    ),
    "a body that is a versioned task's": (
        "def versioned(x):\n    return x\n",
        "def versioned(x):\n    return x + 7\n",
    ),
    "the elements of a set in another order": ('{"x", "y"}', '{"y", "x"}'),
    "parentheses": ("x * 10", "(x * 10)"),
    "quotes": ('mode="m"', "mode='m'"),
}

CHANGED = {
    "a constant in the body": ("total = 0", "total = 1"),
    "an operator": ("total += scale(item)", "total -= scale(item)"),
    "a default": ("factor=2", "factor=3"),
    "a keyword's default": ('mode="m"', 'mode="n"'),
    "a parameter's name": ('mode="m"', 'mood="m"'),
    "a global constant": ("SCALE = 3", "SCALE = 4"),
    "the type of a constant": ("SCALE = 3", "SCALE = 3.0"),
    "a nested constant": ("(3,)", "(4,)"),
    "a set": ('{"x", "y"}', '{"x", "z"}'),
    "a helper": ("deeper(x) * SCALE", "deeper(x) + SCALE"),
    "a helper of a helper": ("return x + 1", "return x + 2"),
    "a function of a cycle": ("n != 0 and", "n > 0 and"),
    "a class's method": ("self.method(x) + scale(x)", "self.method(x)"),
    "a base's method": ("x * self.rate", "x + self.rate"),
    "a base's attribute": ("rate = 2", "rate = 3"),
    "a base class": ("class Model(Base)", "class Model(Base, dict)"),
    "a property": ("return 4", "return 5"),
    "a static method": ("return x - 1", "return x - 2"),
    "a class method": ("return cls()", "return cls"),
    "a field's default": ("lr: float = 0.1", "lr: float = 0.2"),
    "a field's factory": ("default_factory=list", "default_factory=dict"),
    "a field's type": ("layers: list", "layers: tuple"),
    "the method of a constant's class": ("self.lr * 2", "self.lr * 3"),
    "a constant of a data class": ("Config(lr=0.5)", "Config(lr=0.6)"),
    "an enum's value": ("FAST = 1", "FAST = 7"),
    "a cached function": ("x * 10", "x * 11"),
    "a reached task": ("x + 100", "x + 101"),
    "a reached task's version": ('version="1"', 'version="2"'),
    "a decorator's wrapper": ("function(*args) + 5", "function(*args) + 6"),
    "a decorated function": (
        "def decorated(x):\n    return x",
        "def decorated(x):\n    return -x",
    ),
    "a decorator removed": ("@outer_decorator\n", ""),
    "a lambda in the body": ("lambda q: q + total", "lambda q: q - total"),
    "an except clause": ("except ValueError", "except TypeError"),
    "how state is set up": ("CACHE = {}", "CACHE = {1: 2}"),
    "which library function": ("math.sqrt", "math.cbrt"),
    "two helpers swapped": ("scale(item)", "deeper(item)"),
    "sync to async": ("def step(", "async def step("),
}


def digest_of(cell: Cell, source: str) -> CodeDigest:
    return code_digest(cell(source)["step"])


@pytest.fixture
def base(cell: Cell) -> CodeDigest:
    return digest_of(cell, BASE)


def test_the_same_source_has_the_same_digest_in_another_cell(cell: Cell, base: CodeDigest) -> None:
    assert digest_of(cell, "\n\n\n" + BASE).digest == base.digest


@pytest.mark.parametrize(("old", "new"), SAME.values(), ids=SAME.keys())
def test_an_edit_without_meaning_keeps_the_digest(
    cell: Cell, base: CodeDigest, old: str, new: str
) -> None:
    assert old in BASE

    assert digest_of(cell, BASE.replace(old, new)).digest == base.digest


@pytest.mark.parametrize(("old", "new"), CHANGED.values(), ids=CHANGED.keys())
def test_an_edit_with_meaning_changes_the_digest(
    cell: Cell, base: CodeDigest, old: str, new: str
) -> None:
    assert old in BASE

    assert digest_of(cell, BASE.replace(old, new)).digest != base.digest


def test_the_manifest_names_the_helper_that_changed(cell: Cell, base: CodeDigest) -> None:
    other = digest_of(cell, BASE.replace("return x + 1\n", "return x + 2\n"))

    changed = {name for name, digest in other.manifest.items() if base.manifest[name] != digest}

    assert {name.split(" ")[0].rpartition(".")[2] for name in changed} == {"deeper"}


def test_the_manifest_names_the_constant_that_changed_and_not_who_reads_it(
    cell: Cell, base: CodeDigest
) -> None:
    other = digest_of(cell, BASE.replace("SCALE = 3", "SCALE = 4"))

    changed = {name for name, digest in other.manifest.items() if base.manifest[name] != digest}

    assert {name.split(" ")[0].rpartition(".")[2] for name in changed} == {"SCALE"}


def test_the_manifest_names_the_captured_value_that_changed() -> None:
    def make(rate: int) -> Callable[[int], int]:
        return lambda x: x * rate

    before, after = code_digest(make(3)).manifest, code_digest(make(4)).manifest

    changed = [name for name, digest in after.items() if before[name] != digest]
    assert len(changed) == 1
    assert changed[0].startswith("rate, captured by ")


def test_state_that_functions_change_is_listed_as_not_followed(base: CodeDigest) -> None:
    assert any("CACHE" in text for text in base.not_followed)


def test_changing_state_at_run_time_keeps_the_digest(cell: Cell) -> None:
    names = cell(BASE)
    before = plain_digest(names["step"])

    names["CACHE"]["last"] = 5

    assert plain_digest(names["step"]) == before


def test_redefining_a_helper_in_another_cell_is_seen(cell: Cell) -> None:
    names = cell("def helper(x): return x\ndef step(x): return helper(x)")
    before = plain_digest(names["step"])

    cell("def helper(x): return x + 1", names)
    changed = plain_digest(names["step"])
    cell("def helper(x): return x", names)

    assert changed != before
    assert plain_digest(names["step"]) == before


def test_closure_values_count(cell: Cell) -> None:
    names = cell(
        """
        def make(n):
            def step(x): return x + n
            return step
        """
    )

    assert plain_digest(names["make"](1)) == plain_digest(names["make"](1))
    assert plain_digest(names["make"](1)) != plain_digest(names["make"](2))


def test_an_opaque_closure_value_counts_by_its_bytes(cell: Cell) -> None:
    names = cell(
        """
        class Opaque:
            def __init__(self, n): self.n = n
        def make(n):
            held = Opaque(n)
            def step(x): return x + held.n
            return step
        """
    )

    assert plain_digest(names["make"](1)) != plain_digest(names["make"](2))


def test_an_opaque_global_is_listed_as_not_followed(cell: Cell) -> None:
    names = cell("import threading\nlock = threading.Lock()\ndef step():\n    lock.acquire()")

    assert code_digest(names["step"]).not_followed == ("lock (_thread.lock)",)


def test_dynamic_look_ups_are_listed_as_not_followed(cell: Cell) -> None:
    names = cell("def step(name):\n    return eval(name)")

    assert "eval" in code_digest(names["step"]).not_followed[0]


def test_lambdas_on_one_line_are_told_apart(cell: Cell) -> None:
    names = cell("pair = [lambda x: x + 1, lambda x: x + 2, (lambda y: lambda x: x + y)(3)]")

    assert len({plain_digest(each) for each in names["pair"]}) == 3
    assert all(code_digest(each).is_source for each in names["pair"])


def test_a_function_without_source_counts_by_its_bytecode() -> None:
    names: list[dict[str, Any]] = [{}, {}, {}]
    for scope, text in zip(names, ("x + 1", "x + 1", "x + 2")):
        exec(f"def step(x): return {text}", scope)
    digests = [code_digest(scope["step"]) for scope in names]

    assert not digests[0].is_source
    assert digests[0].digest == digests[1].digest != digests[2].digest


def test_a_default_of_a_nested_function_counts(cell: Cell) -> None:
    sources = ["def step():\n    def inner(x=1): return x\n    return inner()"]
    sources.append(sources[0].replace("x=1", "x=2"))

    assert len({digest_of(cell, source).digest for source in sources}) == 2


def test_names_seen_by_locals_are_not_renamed(cell: Cell) -> None:
    source = "def step():\n    total = 1\n    return locals()"

    assert (
        digest_of(cell, source).digest != digest_of(cell, source.replace("total", "summe")).digest
    )


def test_a_rename_that_changes_which_variable_is_meant_is_seen(cell: Cell) -> None:
    source = "def step(x):\n    a = x\n    b = 2\n    return a"

    assert (
        digest_of(cell, source).digest
        != digest_of(cell, source.replace("return a", "return b")).digest
    )


def test_a_variable_that_shadows_a_global_is_seen(cell: Cell) -> None:
    source = "y = 1\ndef step(x):\n    z = x\n    return y"

    assert (
        digest_of(cell, source).digest != digest_of(cell, source.replace("z = x", "y = x")).digest
    )


def test_a_task_has_the_digest_of_its_function() -> None:
    def plain(x: int) -> int:
        return x

    assert plain_digest(task(plain)) == plain_digest(plain)


def test_a_declared_version_replaces_the_digest() -> None:
    @task(version="7", name="n")
    def step() -> None: ...

    assert code_digest(step).digest == "version:n:7"


def test_partials_and_methods_count_by_what_they_hold() -> None:
    def add(a: int, b: int) -> int:
        return a + b

    one, other = functools.partial(add, 1), functools.partial(add, 2)

    assert plain_digest(one) == plain_digest(functools.partial(add, 1))
    assert plain_digest(one) != plain_digest(other)


def test_code_of_libraries_counts_by_name() -> None:
    assert plain_digest(math.sqrt) == plain_digest(math.sqrt)
    assert plain_digest(math.sqrt) != plain_digest(math.floor)
    assert plain_digest(threading.Thread) != plain_digest(threading.Event)
    assert code_digest(threading.Thread).manifest == {}


def test_versions_of_distributions_are_noted_and_not_compared(cell: Cell) -> None:
    names = cell("import numpy as np\ndef step(x): return np.mean(x)")

    found = code_digest(names["step"])

    noted = [name for name, digest in found.manifest.items() if digest == "noted"]
    assert [name.split()[0] for name in noted] == ["numpy"]


CLASSES = {
    "pydantic": (
        """
        import pydantic
        class Made(pydantic.BaseModel):
            size: int = 1
            def area(self): return self.size * 2
        """,
        [("size: int = 1", "size: int = 2"), ("self.size * 2", "self.size * 3")],
    ),
    "msgspec": (
        """
        import msgspec
        class Made(msgspec.Struct):
            size: int = 1
            def area(self): return self.size * 2
        """,
        [("size: int = 1", "size: int = 2"), ("self.size * 2", "self.size * 3")],
    ),
    "a named tuple": (
        """
        from typing import NamedTuple
        class Made(NamedTuple):
            size: int = 1
            def area(self): return self.size * 2
        """,
        [("size: int = 1", "size: int = 2"), ("self.size * 2", "self.size * 3")],
    ),
    "slots": (
        """
        class Made:
            __slots__ = ("size",)
            def __init__(self): self.size = 1
        """,
        [('("size",)', '("size", "more")'), ("self.size = 1", "self.size = 2")],
    ),
    "a data class": (
        """
        from dataclasses import dataclass
        @dataclass(frozen=True)
        class Made:
            size: int = 1
            def __str__(self): return str(self.size)
        """,
        [("frozen=True", "frozen=False"), ("str(self.size)", "repr(self.size)")],
    ),
}


@pytest.mark.parametrize(("source", "edits"), CLASSES.values(), ids=CLASSES.keys())
def test_classes_of_every_kind_count_by_their_fields_and_methods(
    cell: Cell, source: str, edits: list[tuple[str, str]]
) -> None:
    use = "\n        def step(): return Made()\n        "
    first = digest_of(cell, source + use)

    assert first.not_followed == ()
    assert digest_of(cell, source + use).digest == first.digest
    for old, new in edits:
        assert digest_of(cell, source.replace(old, new) + use).digest != first.digest


# --- plans --------------------------------------------------------------------------------------
@task
def load(path: str) -> list[int]:
    return [len(path)]


@task
def add(a: Any, b: Any) -> Any:
    return a + b


def prints(definition: Any, values: Values, **given: Any) -> dict[str, str]:
    prepared = prepare(definition, given)
    inputs = {name: values.store(value) for name, value in prepared.inputs.items()}
    return fingerprints(compile_dag(prepared.dag, values), inputs)


def test_reordered_siblings_keep_their_fingerprints(values: Values) -> None:
    @workflow
    def forward() -> Any:
        a, b = load.bind("a"), load.bind("b")
        return add.bind(a, b)

    @workflow
    def backward() -> Any:
        b, a = load.bind("b"), load.bind("a")
        return add.bind(a, b)

    assert sorted(prints(forward, values).values()) == sorted(prints(backward, values).values())


def test_names_retries_and_resources_do_not_enter_a_fingerprint(values: Values) -> None:
    plain = prints(load.bind("a"), values)
    dressed = prints(load.options(name="x", retries=3, cpus=4, timeout="5s").bind("a"), values)

    assert list(plain.values()) == list(dressed.values())


@pytest.mark.parametrize(
    "other",
    [
        lambda: add.bind(load.bind("b"), 1),
        lambda: add.bind(load.bind("a"), 2),
        lambda: add.bind(load.bind("a")[0], 1),
        lambda: add.bind([load.bind("a")], 1),
        lambda: add.bind((load.bind("a"),), 1),
        lambda: add.bind(1, load.bind("a")),
        lambda: add.bind(a=load.bind("a"), b=1),
        lambda: add.options(catch=True).bind(load.bind("a"), 1),
        lambda: add.options(outputs=2).bind(load.bind("a"), 1),
        lambda: add.options(version="1").bind(load.bind("a"), 1),
        lambda: add.bind(load.bind("a"), True),
        lambda: add.bind(load.bind("a"), 1.0),
    ],
)
def test_whatever_decides_a_result_enters_the_fingerprint(values: Values, other: Any) -> None:
    base = prints(add.bind(load.bind("a"), 1), values)

    assert prints(other(), values)["add"] != base["add"]


def test_inputs_enter_the_fingerprints_of_the_steps_that_use_them(values: Values) -> None:
    @workflow
    def w(path: str, k: int) -> Any:
        return [load.bind(path), add.bind(k, 1)]

    one, other = prints(w, values, path="a", k=1), prints(w, values, path="a", k=2)

    assert one["load"] == other["load"]
    assert one["add"] != other["add"]


def test_a_projection_of_an_input_counts_by_its_own_digest_where_that_is_known(
    values: Values,
) -> None:
    @workflow
    def w(config: dict[str, int]) -> Any:
        return add.bind(config["lr"], 1)

    prepared = prepare(w, {"config": {"lr": 1, "unused": 1}})
    plan = compile_dag(prepared.dag, values)
    found = [
        fingerprints(plan, {"config": values.store(config, parts={"['lr']": config["lr"]})})
        for config in ({"lr": 1, "unused": 1}, {"lr": 1, "unused": 2}, {"lr": 2, "unused": 1})
    ]

    assert found[0] == found[1] != found[2]


HELD = {
    "a function in a dict": ("T = {'k': lambda x: x + 1}", "T['k'](x)", "x + 1", "x + 2"),
    "which function a dict has": (
        "def one(x): return x\ndef two(x): return -x\nT = {'k': one}",
        "T['k'](x)",
        "'k': one",
        "'k': two",
    ),
    "what functions in a list call": (
        "def inner(x): return x + 1\nL = [lambda x: inner(x)]",
        "L[0](x)",
        "x + 1",
        "x + 2",
    ),
    "functions that a closure has": (
        "def make(*fs): return lambda x: fs[0](x)\nf = make(lambda x: x + 1)",
        "f(x)",
        "x + 1",
        "x + 2",
    ),
    "a callable object": (
        "class C:\n    def __init__(self, k): self.k = k\n    def __call__(self, x): return x\n"
        "c = C(1)",
        "c(x)",
        "C(1)",
        "C(2)",
    ),
    "whom a bound method is of": (
        "class C:\n    def __init__(self, k): self.k = k\n    def go(self, x): return x\n"
        "f = C(1).go",
        "f(x)",
        "C(1)",
        "C(2)",
    ),
    "an object that a partial holds": (
        "import functools\nclass C:\n    def __init__(self, k): self.k = k\n"
        "def f(x, c): return x\np = functools.partial(f, c=C(1))",
        "p(x)",
        "C(1)",
        "C(2)",
    ),
    "what a library's callable holds": (
        "import operator\nget = operator.itemgetter(0)",
        "get(x)",
        "(0)",
        "(1)",
    ),
    "a method of a metaclass": (
        "class M(type):\n    def __call__(cls): return 1\nclass K(metaclass=M): pass",
        "K()",
        "return 1",
        "return 2",
    ),
    "a partial method": (
        "import functools\nclass K:\n    def f(self, a): return a\n"
        "    g = functools.partialmethod(f, 1)",
        "K().g()",
        "f, 1",
        "f, 2",
    ),
    "an attribute of a function": (
        "def f(x): return f.rate * x\nf.rate = 1",
        "f(x)",
        "f.rate = 1",
        "f.rate = 2",
    ),
    "what a generic function does for a type": (
        "import functools\n@functools.singledispatch\ndef f(x): return 1\n"
        "@f.register\ndef _(x: int): return 2",
        "f(x)",
        "return 2",
        "return 3",
    ),
}


@pytest.mark.parametrize(("setup", "body", "old", "new"), HELD.values(), ids=HELD.keys())
def test_what_values_of_another_cell_hold_counts(
    cell: Cell, setup: str, body: str, old: str, new: str
) -> None:
    def digest(text: str) -> str:
        return code_digest(cell(f"def step(x): return {body}", cell(text))["step"]).digest

    before = digest(setup)

    assert old in setup
    assert digest(setup.replace(old, new)) != before
    assert digest(setup) == before


@pytest.mark.parametrize(
    "setup",
    [
        "class S:\n    def __init__(self): self.me = self",
        "class S:\n    def __reduce__(self): return S, ()",
    ],
    ids=["itself", "how it is pickled"],
)
def test_object_of_a_cell_that_runs_again_is_the_same_whatever_it_says(
    cell: Cell, setup: str
) -> None:
    def digest() -> str:
        names = cell("def step(x): return held", cell(setup + "\nheld = S()"))
        return code_digest(names["step"]).digest

    assert digest() == digest()


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        ("held = Held(LIMIT)", "LIMIT = 1", "LIMIT = 2"),
        ("inner = Held(1)\nheld = inner.go", "Held(1)", "Held(2)"),
        ("held = Held(other)\nother = Held(held)", "= Held(held)", "= Held(LIMIT)"),
        ("class Has:\n    it = Held(1)\nheld = Has.it", "Held(1)", "Held(2)"),
        ("class Has:\n    it = Held(LIMIT)\nheld = Has()", "LIMIT = 1", "LIMIT = 2"),
    ],
    ids=["a constant", "an object", "each other", "a class's object", "and its constant"],
)
def test_what_an_opaque_global_of_a_module_was_made_of_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, old: str, new: str
) -> None:
    setup = (
        "LIMIT = 1\nother = None\n"
        "class Held:\n    def __init__(self, of): self.of = of\n    def go(self): return self.of\n"
    )

    def digest(source: str) -> str:
        name = f"made_{len(list(tmp_path.glob('*.py')))}_in_{tmp_path.name}"  # imported by no other
        (tmp_path / f"{name}.py").write_text(f"{source}\ndef step(): return held")
        monkeypatch.syspath_prepend(tmp_path)
        return code_digest(importlib.import_module(name).step).digest

    before = digest(setup + text)

    assert digest((setup + text).replace(old, new)) != before
    assert digest(setup + text) == before
