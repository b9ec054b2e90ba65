"""The process that listens beside ``perdure up``: kept alive, of today's code, ended in time."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.acceptance.conftest import CommandLine
from tests.crash.ledger import wait_until

from perdure.client import open_store
from perdure.errors import DefinitionError
from perdure.listening import load_source
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

    def trouble(self) -> str:
        record = self.client.runtime.store.triggers.get_trigger("t")
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
