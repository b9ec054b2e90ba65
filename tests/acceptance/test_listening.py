"""The process that listens beside ``perdure up``: kept alive, of today's code, ended in time."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from tests.acceptance.conftest import CommandLine
from tests.crash.ledger import wait_until

from perdure import listening_child
from perdure.client import open_store
from perdure.errors import DefinitionError
from perdure.listening import load_source
from perdure.listening_child import ListeningChild
from perdure_scheduler.conditions import Files, Listen
from perdure_scheduler.facts import event, path_of
from perdure_scheduler.template import RunTemplate
from perdure_scheduler.trigger import Trigger
from perdure_scheduler.trigger_changes import state_of
from perdure_scheduler.trigger_registry import TriggerRegistry
from perdure_storage.records import RunQuery

FEED = """
import asyncio
from perdure import Arrival, task, workflow

class Feed:
    async def listen(self, cursor):
        {first}
        yield Arrival(key="{key}", facts={{"text": "{key}"}})
        await asyncio.Event().wait()

feed = Feed()

@task
def note(text: str) -> str:
    return text

@workflow
def flow(text: str) -> str:
    return note.bind(text)
"""


HOLD = "import re; re.match('(a+)+$', 'a' * 60 + 'b')"
"""Comes to no end, and lets no other thread run."""


class Project:
    """A folder with a source of its own, a store, and what is served there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.command_line = CommandLine(folder)
        self.module = folder / "feeds.py"
        self.write("one")
        self.client = open_store(str(folder / ".perdure" / "perdure.db"), executor="inline")

    def write(self, key: str, first: str = "pass") -> None:
        self.module.write_text(FEED.format(key=key, first=first))

    def register(self, on: Files | Listen | None = None, name: str = "t") -> None:
        runtime = self.client.runtime
        fact = event.name if isinstance(on, Files) else event.text
        trigger = Trigger(
            name=name,
            on=on or Listen(source=f"{self.module}:feed"),
            inputs={"text": path_of(fact)},
            run=RunTemplate(workflow="flow", origin=f"{self.module}:flow"),
        )
        TriggerRegistry(runtime.store, runtime.values, runtime.clock).register(trigger)

    def up(self) -> subprocess.Popen[str]:
        return self.command_line.start("up", "--executor", "inline")

    def results(self) -> set[str]:
        """The results of the runs that have one."""
        found = self.client.runtime.store.list_runs(RunQuery())
        runs = [self.client.get_run(run.id) for run in found]
        return {run.result() for run in runs if run.status == "SUCCEEDED"}

    def has_fired(self, *names: str) -> bool:
        """Say whether all these triggers have made a run."""
        store = self.client.runtime.store
        return all(store.list_runs(RunQuery(trigger=name)) for name in names)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Keep a process alive that listens, from a thread of this one."""
        child, stop = ListeningChild(self.client.runtime), threading.Event()
        serving = threading.Thread(target=child.serve, args=(stop,))
        serving.start()
        try:
            yield
        finally:
            stop.set()
            serving.join()

    def trouble(self, name: str = "t") -> str:
        record = self.client.runtime.store.triggers.get_trigger(name)
        return "".join(each.message for each in state_of(record).troubles.values())


def listener_of(server: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the processes that listen for a server."""
    found = []
    for child in psutil.Process(server.pid).children():
        try:
            if "perdure.listening" in child.cmdline():
                found.append(child)
        except psutil.NoSuchProcess:
            pass
    return found


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.chdir(tmp_path)
    project = Project(tmp_path)
    yield project
    project.command_line.end()
    project.client.close()


def test_source_of_ones_own_is_heard_and_its_code_is_that_of_the_moment(project: Project) -> None:
    project.register()
    project.up()
    wait_until(lambda: project.results() == {"one"}, 60, "nothing arrives")

    project.write("two")

    wait_until(lambda: project.results() == {"one", "two"}, 60, "the edit is not seen")


def test_no_process_listens_until_something_is_to_be_listened_to(project: Project) -> None:
    server = project.up()
    wait_until(lambda: project.client.runtime.store.coordinators(), 60, "it does not serve")
    assert listener_of(server) == []

    project.register()

    wait_until(lambda: listener_of(server), 60, "nobody listens")
    project.client.runtime.store.triggers.remove("t")
    wait_until(lambda: not listener_of(server), 60, "it listens to nothing")


def test_process_that_listens_ends_with_its_parent_however_that_ends(project: Project) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        project.register(name=f"t{number}")
        server = project.up()
        wait_until(lambda server=server: listener_of(server), 60, "nobody listens")
        (child,) = listener_of(server)

        server.send_signal(number)

        wait_until(lambda child=child: not child.is_running(), 30, "it listens for nobody")


def test_source_that_blocks_neither_holds_up_files_nor_the_end(project: Project) -> None:
    project.write("one", first="import time; time.sleep(3600)")
    inbox = project.folder / "in"
    inbox.mkdir()
    project.register(name="blocks")
    project.register(Files(url=f"{inbox}/*"), name="files")
    server = project.up()
    wait_until(lambda: listener_of(server), 60, "nobody listens")

    (inbox / "a").touch()
    wait_until(lambda: project.results() == {"a"}, 60, "the file does not arrive")
    server.terminate()

    assert server.wait(30) == 0


def test_process_that_listens_ends_with_its_parent_though_a_source_holds_the_interpreter(
    project: Project,
) -> None:
    held = project.folder / "held"
    project.write("one", first=f"open({str(held)!r}, 'w').close(); {HOLD}")
    project.register()
    server = project.up()
    wait_until(held.exists, 60, "nobody listens")
    (child,) = listener_of(server)

    server.kill()

    wait_until(lambda: not child.is_running(), 30, "it listens for nobody")


def test_source_that_holds_the_interpreter_is_told_of_and_rests_while_others_go_on(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening_child, "SILENT_S", 4.0)
    project.write("one", first=HOLD)
    innocent = project.folder / "innocent.py"
    innocent.write_text(FEED.format(key="two", first="await asyncio.sleep(1e-3)"))
    inbox = project.folder / "in"
    inbox.mkdir()
    project.register(name="holds")
    project.register(Listen(source=f"{innocent}:feed"), name="innocent")
    project.register(Files(url=f"{inbox}/*"), name="files")

    with project.listening():
        wait_until(lambda: project.trouble("holds"), 60, "nobody misses it")
        (inbox / "a").touch()
        wait_until(lambda: project.has_fired("files", "innocent"), 60, "others do not go on")

    assert "hold the interpreter" in project.trouble("holds")
    assert project.trouble("innocent") == ""


def test_source_that_takes_its_process_down_is_told_of_and_rests_while_files_arrive(
    project: Project,
) -> None:
    project.write("one", first="import os; os.kill(os.getpid(), 11)")
    inbox = project.folder / "in"
    inbox.mkdir()
    project.register(name="faulty")
    project.register(Files(url=f"{inbox}/*"), name="files")

    with project.listening():
        wait_until(lambda: project.trouble("faulty"), 60, "nobody tells of it")
        (inbox / "a").touch()
        wait_until(lambda: project.has_fired("files"), 60, "the file does not arrive")

    assert "has died (SIGSEGV) while it listened to this" in project.trouble("faulty")


def test_process_that_dies_again_and_again_as_it_starts_is_started_later_and_later_and_told_of(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.folder / "sitecustomize.py").write_text("import os; os._exit(3)")
    monkeypatch.setenv("PYTHONPATH", str(project.folder))
    project.register()

    with project.listening():
        wait_until(lambda: project.trouble(), 60, "nobody tells of it")

    assert "has died (exit status 3) 2 times in a row, soon after its start" in project.trouble()


def test_source_that_cannot_be_imported_is_told_of_and_heard_once_it_is_mended(
    project: Project,
) -> None:
    project.module.write_text("import nothing_of_this_name\n")
    project.register()
    project.up()
    wait_until(lambda: "nothing_of_this_name" in project.trouble(), 60, "no trouble is told")

    project.write("mended")

    wait_until(lambda: project.results() == {"mended"}, 60, "it is not heard")
    assert project.trouble() == ""


@pytest.mark.parametrize("name", ["nothing", "flow", "Feed.nothing", ""])
def test_what_is_no_source_is_refused_with_what_a_source_is(project: Project, name: str) -> None:
    with pytest.raises(DefinitionError, match="with a method `listen`"):
        load_source(f"{project.module}:{name}")
