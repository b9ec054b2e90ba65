"""Digests, targets and bundles over files and processes: as a script, by -m, by path, imported."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from perdure import DefinitionError, ValueDamaged, execute
from perdure.bundle import make_bundle, unpack_bundle
from perdure.fingerprint import code_digest
from perdure.target import load_target, origin_of

HELPERS = """
RATE = 2

def scale(x):
    return x * RATE

def unused(x):
    return x
"""

LAZY = """
import os
import prep

LIMIT = 10

def late(x):
    return min(prep.scale(x), LIMIT)

def untouched():
    return 1
"""

SCRIPT = """
import enum
import json
import sys
from dataclasses import dataclass

import prep
from prep import scale
from perdure import task, workflow

NAMES = {"b", "a", "c"}


class Kind(enum.Enum):
    FAST = 1


@dataclass
class Config:
    lr: float = 0.1
    kind: Kind = Kind.FAST


@task
def step(x: int, config: Config = Config()) -> int:
    from lazy import late

    values = sorted(NAMES)
    return scale(x) + prep.scale(len(values)) + late(x) + config.kind.value


@workflow
def main(x: int = 1) -> int:
    return step.bind(step.bind(x))


def report():
    from perdure.compile import compile_dag, prepare
    from perdure.fingerprint import code_digest, fingerprints, plain_digest
    from perdure_storage.blobs import open_blobs
    from perdure_storage.codecs import Codecs
    from perdure_storage.values import Values

    values = Values(Codecs(code_digest=plain_digest), open_blobs("memory://t", "s", bind=True))
    prepared = prepare(main, {})
    plan = compile_dag(prepared.dag, values, origin=prepared.origin)
    inputs = {name: values.store(value) for name, value in prepared.inputs.items()}
    print(json.dumps({
        "digest": code_digest(step).digest,
        "config": values.store(Config()).value_digest,
        "fingerprints": fingerprints(plan, inputs),
        "ids": [each.id for each in plan.steps],
        "origin": plan.origin,
        "bundle": plan.bundle,
        "by_value": [each.value is not None for each in plan.functions.values()],
        "manifest": sorted(code_digest(step).manifest),
    }))


if __name__ == "__main__":
    report()
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "prep.py").write_text(HELPERS)
    (tmp_path / "lazy.py").write_text(LAZY)
    (tmp_path / "app.py").write_text(SCRIPT)
    return tmp_path


def report(project: Path, *words: str, seed: str = "1", code: str = "") -> dict[str, Any]:
    command = [sys.executable, *(words or ("-c", code))]
    done = subprocess.run(
        command,
        cwd=project,
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


BY_PATH = """
from perdure.target import load_target
import sys
workflow = load_target("app.py")
workflow.function.__globals__["report"]()
"""


def test_digests_are_the_same_however_the_script_is_started(project: Path) -> None:
    script = report(project, "app.py", seed="1")
    module = report(project, "-m", "app", seed="2")
    by_path = report(project, code=BY_PATH, seed="3")
    imported = report(project, code="import app; app.report()", seed="4")

    for other in (module, by_path, imported):
        assert other["ids"] == ["step", "step#2"]
    for other in (module, by_path):
        assert other["digest"] == script["digest"]
        assert other["config"] == script["config"]
        assert other["fingerprints"] == script["fingerprints"]
        assert other["bundle"] == script["bundle"]
    assert [script["by_value"], by_path["by_value"], imported["by_value"]] == [
        [True],
        [True],
        [False],
    ]
    assert script["origin"] == by_path["origin"] == f"{project / 'app.py'}:main"
    assert module["origin"] == imported["origin"] == "app:main"


def test_the_manifest_names_files_and_lines(project: Path) -> None:
    manifest = report(project, "app.py")["manifest"]

    assert "prep.scale (prep.py:4)" in manifest
    assert "lazy.late (lazy.py:7)" in manifest
    assert any(name.startswith("app.step (app.py:") for name in manifest)
    assert not any("unused" in name or "untouched" in name for name in manifest)


EDITS = {
    "a helper": ("prep.py", "x * RATE", "x + RATE", True),
    "a helper's constant": ("prep.py", "RATE = 2", "RATE = 3", True),
    "a function that is not used": ("prep.py", "    return x\n", "    return -x\n", False),
    "a comment in a helper": ("prep.py", "RATE = 2", "RATE = 2  # twice", False),
    "a function imported in the body": ("lazy.py", "min(", "max(", True),
    "its constant": ("lazy.py", "LIMIT = 10", "LIMIT = 11", True),
    "its neighbour": ("lazy.py", "return 1", "return 2", False),
    "its imports": ("lazy.py", "import os\n", "import os\nimport sys\n", False),
}


@pytest.mark.parametrize(("file", "old", "new", "changes"), EDITS.values(), ids=EDITS.keys())
def test_an_edit_of_a_module_changes_the_digest_if_it_is_reached(
    project: Path, file: str, old: str, new: str, changes: bool
) -> None:
    before = report(project, "app.py")["digest"]

    text = (project / file).read_text()
    assert old in text
    (project / file).write_text(text.replace(old, new))

    assert (report(project, "app.py")["digest"] != before) is changes


def test_a_lazy_import_counts_the_same_whether_it_is_loaded_or_not(project: Path) -> None:
    early = "import lazy, app; app.report()"

    assert (
        report(project, code=early)["digest"]
        == report(project, code="import app; app.report()")["digest"]
    )


COMPUTED = """
    import os
    import threading
    import time
    from pathlib import Path

    from perdure import task

    HERE = Path(__file__).parent
    STARTED = time.time()
    LOCK = threading.Lock()

    def build():
        return {"a": 1}

    class Opaque:
        def __init__(self, inside):
            self.inside = inside

    MODEL = Opaque(build())

    @task
    def step(path=Path(__file__).parent, *, pid=os.getpid()):
        with LOCK:
            return HERE, STARTED, path, pid, MODEL.inside
"""

SHOW = """
import json, timely
from perdure.fingerprint import code_digest
found = code_digest(timely.step)
print(json.dumps({"stable": found.stable, "digest": found.digest, "not": found.not_followed}))
"""


def test_what_is_computed_at_import_does_not_make_a_worker_refuse_the_code(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "timely.py").write_text(textwrap.dedent(COMPUTED))

    here, there = (report(tmp_path / name, code=SHOW) for name in ("here", "there"))

    assert here["stable"] == there["stable"]
    assert here["digest"] != there["digest"]
    assert any("LOCK" in text for text in here["not"])


@pytest.mark.parametrize(
    ("old", "new"),
    [("Path(__file__).parent\n", "Path(__file__)\n"), ('"a": 1', '"a": 2'), ("getpid", "getppid")],
)
def test_an_edit_of_what_is_computed_at_import_is_seen(tmp_path: Path, old: str, new: str) -> None:
    text = textwrap.dedent(COMPUTED)
    (tmp_path / "timely.py").write_text(text)
    before = report(tmp_path, code=SHOW)["stable"]

    assert old in text
    (tmp_path / "timely.py").write_text(text.replace(old, new))

    assert report(tmp_path, code=SHOW)["stable"] != before


# --- targets --------------------------------------------------------------------------------------
@pytest.fixture
def path_as_it_was() -> Iterator[None]:
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path, path_as_it_was: None) -> Write:
    def write_file(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    return write_file


FLOW = """
    from perdure import task, workflow

    if __name__ == "__main__":
        raise RuntimeError("run as a script")

    @task
    def one() -> int:
        return 1

    @workflow
    def flow() -> int:
        return one.bind()
"""


def test_a_file_is_a_target_with_and_without_the_workflow_s_name(write: Write) -> None:
    path = write("flows.py", FLOW)

    assert load_target(str(path)).name == "flow"
    assert load_target(f"{path}:flow")() == 1
    assert origin_of(load_target(str(path))) == f"{path}:flow"


def test_a_file_that_was_edited_is_imported_again(write: Write) -> None:
    path = write("flows.py", FLOW)
    before = load_target(str(path))

    write("flows.py", FLOW.replace("return 1", "return  22"))
    after = load_target(str(path))

    assert (before(), after()) == (1, 22)
    assert code_digest(before).digest == code_digest(after).digest or execute(after) == 22


def test_a_workflow_of_a_file_keeps_its_module_while_nothing_changed(write: Write) -> None:
    path = write("flows.py", FLOW)

    assert load_target(str(path)) is load_target(str(path))


def test_a_module_is_a_target(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("pkg_of_flows/flows.py", FLOW)
    monkeypatch.syspath_prepend(str(path.parent.parent))

    found = load_target("pkg_of_flows.flows:flow")

    assert found() == 1
    assert origin_of(found.options(run_id="x")) == "pkg_of_flows.flows:flow"


BAD: dict[str, tuple[str, str, str]] = {
    "no file": ("{}/flow.py", FLOW, r"no file .*did you mean 'flows.py'"),
    "no workflow of that name": ("{}/flows.py:flaw", FLOW, "did you mean 'flow'"),
    "a task": ("{}/flows.py:one", FLOW, "is no workflow"),
    "no workflow at all": ("{}/flows.py", "x = 1", "defines no workflow"),
    "several": ("{}/flows.py", FLOW + "\n    again = flow.options(name='again')\n", "several"),
    "a syntax error": ("{}/flows.py", "def f(:\n    pass", r"flows.py:1: "),
    "an error while importing": ("{}/flows.py", "\n1 / 0", r"flows.py:2: ZeroDivisionError"),
    "an exit while importing": ("{}/flows.py", "raise SystemExit(3)", "SystemExit"),
    "a relative import": ("{}/flows.py", "from . import x", "package.module:workflow"),
    "a missing import": ("{}/flows.py", "import not_there_at_all", "not_there_at_all"),
    "no module": ("not_there_at_all:x", FLOW, "no module 'not_there_at_all'"),
    "nothing": ("", FLOW, "write FILE.py"),
}


@pytest.mark.parametrize(("target", "text", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_target_is_refused_with_what_to_type(
    write: Write, tmp_path: Path, target: str, text: str, message: str
) -> None:
    write("flows.py", text)

    with pytest.raises(DefinitionError, match=message):
        load_target(target.format(tmp_path))


# --- bundles --------------------------------------------------------------------------------------
PACKAGE = {
    "bundled/__init__.py": "",
    "bundled/first.py": "from bundled import second\nfrom .sub import third\nimport json\n",
    "bundled/second.py": "X = 1\n",
    "bundled/sub/__init__.py": "from . import third\n",
    "bundled/sub/third.py": "# -*- coding: latin-1 -*-\nNAME = 'x'\n",
    "bundled/unrelated.py": "Y = 1\n",
}


@pytest.fixture
def package(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in PACKAGE.items():
        write(name, text)
    (tmp_path / "bundled/sub/third.py").write_bytes(
        "# -*- coding: latin-1 -*-\nNAME = 'é'\n".encode("latin-1")
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_bundle_has_what_is_imported_and_nothing_else(package: Path, tmp_path: Path) -> None:
    data = make_bundle(["bundled.first", "json", "numpy"])

    assert data is not None
    folder = unpack_bundle(data, tmp_path / "unpacked")
    found = {str(path.relative_to(folder)) for path in folder.rglob("*.py")}
    assert found == set(PACKAGE) - {"bundled/unrelated.py"}
    for name in found:
        assert (folder / name).read_bytes() == (package / name).read_bytes()


def test_a_bundle_has_the_same_bytes_every_time(package: Path) -> None:
    assert make_bundle(["bundled.first"]) == make_bundle(["bundled.first", "bundled.second"])


def test_nothing_local_gives_no_bundle() -> None:
    assert make_bundle(["json", "numpy", "__main__no", "perdure.plan"]) is None


def test_unpacking_twice_is_unpacking_once(package: Path, tmp_path: Path) -> None:
    data = make_bundle(["bundled.second"])
    assert data is not None

    folder = unpack_bundle(data, tmp_path / "unpacked")
    (folder / "mark").touch()

    assert unpack_bundle(memoryview(data), tmp_path / "unpacked") == folder
    assert (folder / "mark").exists()
    assert [each.name for each in tmp_path.glob("unpacked*")] == ["unpacked"]


def test_a_damaged_bundle_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueDamaged):
        unpack_bundle(b"no archive", tmp_path / "unpacked")

    assert list(tmp_path.iterdir()) == []


def test_a_bundle_that_names_a_file_elsewhere_is_refused(tmp_path: Path) -> None:
    import io
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../evil.py", "x = 1")

    with pytest.raises(ValueDamaged, match="elsewhere"):
        unpack_bundle(buffer.getvalue(), tmp_path / "inner" / "unpacked")

    assert not (tmp_path / "evil.py").exists()
    assert not (tmp_path / "inner" / "evil.py").exists()


# --- tasks and workflows that steps of a script use -----------------------------------------------
IN_STEPS = """
from __future__ import annotations

import asyncio
import copy

import perdure
from perdure import Static, task, workflow


@task
def a(x: int, more: int = 10) -> int:
    return x + more


@task
async def later(x: int) -> int:
    return x + 1


@task
def b(x: int) -> tuple[int, int]:
    return a(x) + 1, asyncio.run(later(x))


@task
def even(n: int) -> bool:
    return n == 0 or odd(n - 1)


@task
def odd(n: int) -> bool:
    return n != 0 and even(n - 1)


@task
def factorial(n: int) -> int:
    return 1 if n < 2 else n * factorial(n - 1)


@workflow
def sub(x: int, times: Static[int] = 2) -> int:
    for _ in range(times):
        x = a.bind(x)
    return x


@task
def has_workflow(x: int) -> str:
    return "have" if sub else "none"


@task
def eagerly(x: int) -> list[int]:
    return [sub(x), sub(x, times=1), sub.options(name="again").execute(x, times=3)]


@task
def nested(x: int) -> int | str:
    try:
        return sub.run(x)
    except perdure.DefinitionError as error:
        return type(error).__name__


@task
def call(given: perdure.Task, x: int) -> int:
    return given(x)


class Holder:
    def __init__(self, task: perdure.Task) -> None:
        self.task = task


HOLDER = Holder(factorial)


@task
def held(x: int) -> int:
    return HOLDER.task(x)


@task
def held_by(holder: Holder, x: int) -> int:
    return copy.deepcopy(holder).task(x)


def local():
    @task
    def down(n: int, step: int = 1) -> int:
        return n if n <= 0 else down(n - step)

    return down


@workflow
def main(x: int = 4):
    many = [b.bind(x), even.bind(x), factorial.bind(x), has_workflow.bind(x), eagerly.bind(x)]
    return [*many, call.bind(factorial, x), held.bind(x), held_by.bind(HOLDER, x),
            local().bind(x), nested.bind(x)]


if __name__ == "__main__":
    with perdure.open("store", executor=%r):
        print(main.run())
"""

USED = [(15, 5), True, 24, "have", [24, 14, 34], 24, 24, 24, 0]


def printed(project: Path, *words: str) -> Any:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return ast.literal_eval(done.stdout)


def test_steps_call_the_tasks_and_workflows_of_their_script(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(IN_STEPS % "processes")

    assert printed(tmp_path, "app.py") == [*USED, 24]


def test_steps_call_the_tasks_and_workflows_of_a_file_given_by_path(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(IN_STEPS % "processes")

    assert printed(tmp_path, "-m", "perdure", "run", "app.py:main") == [*USED, 24]


def test_steps_that_run_inline_call_tasks_and_are_told_why_no_run_is_waited_for(
    tmp_path: Path,
) -> None:
    (tmp_path / "app.py").write_text(IN_STEPS % "inline")

    assert printed(tmp_path, "app.py") == [*USED, "DefinitionError"]


GIVEN = """
import json
import perdure
from perdure import task, workflow

@task
def a(x):
    return x + 1

@workflow
def main():
    return a.bind(1)

def report():
    from perdure.fingerprint import plain_digest
    from perdure_storage.codecs import Codecs

    codecs = Codecs(code_digest=plain_digest)
    print(json.dumps([codecs.digest(a), codecs.digest(main), codecs.digest([a])]))

if __name__ == "__main__":
    report()
"""


def test_a_task_given_to_a_step_counts_by_its_code(tmp_path: Path) -> None:
    file = tmp_path / "app.py"
    file.write_text(GIVEN)
    script = printed(tmp_path, "app.py")

    assert printed(tmp_path, "-c", BY_PATH) == script
    assert printed(tmp_path, "-c", "import app; app.report()") == script
    file.write_text("# a line more\n" + GIVEN)
    assert printed(tmp_path, "app.py") == script
    file.write_text(GIVEN.replace("x + 1", "x + 2"))
    assert not set(printed(tmp_path, "app.py")) & set(script)


def test_a_name_that_is_not_there_is_said_when_a_task_is_unpickled() -> None:
    from perdure.task import find_global

    with pytest.raises(ImportError, match="no 'not_there' in module '__main__'"):
        find_global("__main__", "not_there")
