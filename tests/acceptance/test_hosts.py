"""Hosts of different kinds on one store, each taking on the runs that fit it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.conftest import CommandLine
from tests.crash.ledger import wait_until

import perdure as library
from perdure.client import Perdure, open_store
from perdure.engine.coordinator import Coordinator
from perdure_storage.lifecycle import RunStatus


@library.task(gpus=1)
def on_gpu(n: int) -> int:
    return n * 2


@library.task(resources={"zone=b": 1})
def in_zone(n: int) -> int:
    return n


@library.task
def gives_gpu_step(n: int) -> Any:
    return on_gpu.bind(n)


@library.task
def gives_gpu_map(n: int) -> Any:
    return on_gpu.map([n, n + 1])


@library.task
def three(n: int) -> list[int]:
    return [n, n, n]


class Site:
    """One store, and coordinators of hosts over it, turned by the test."""

    def __init__(self, folder: Path) -> None:
        self._url = str(folder / "perdure.db")
        self._hosts: list[tuple[Perdure, Coordinator]] = []
        self._names: dict[str, str] = {}
        self.client = open_store(self._url, executor="inline", cpus=1, gpus=0)

    def start(self, name: str, *, gpus: int = 0, zone: str | None = None) -> None:
        labels = {} if zone is None else {"zone": zone}
        client = open_store(self._url, executor="inline", cpus=2, gpus=gpus, labels=labels)
        before = {owner.token for owner, _ in client.runtime.store.coordinators()}
        serving = client.runtime.coordinator(serves=True)
        serving.serve()
        (mine,) = {owner.token for owner, _ in client.runtime.store.coordinators()} - before
        self._names[mine] = name
        self._hosts.append((client, serving))

    def turn(self) -> None:
        for _, serving in self._hosts:
            serving.turn(0.01)

    def driven_by(self, run_id: str) -> set[str]:
        claims = [
            event for event in self.client.get_run(run_id).events() if event.kind == "claimed"
        ]
        return {self._names[event.detail["owner"]] for event in claims}

    def finish(self, *run_ids: str) -> None:
        def over() -> bool:
            self.turn()
            records = [self.client.get_run(run_id).record for run_id in run_ids]
            return all(record.status is RunStatus.SUCCEEDED for record in records)

        wait_until(over, 30, "they do not come to an end")

    def close(self) -> None:
        for client, serving in self._hosts:
            serving.close()
            client.close()
        self.client.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


def test_hosts_take_on_the_runs_that_fit_them(site: Site) -> None:
    site.start("cpu")
    site.start("gpu", gpus=1)

    names = [f"gpu-{number}" for number in range(3)]
    for name in names:
        site.client.submit(on_gpu.bind(2), run_id=name)
    site.finish(*names)

    assert [site.driven_by(name) for name in names] == [{"gpu"}] * 3


def test_run_waits_for_a_host_that_has_what_it_asks_for(site: Site) -> None:
    site.start("cpu")
    run = site.client.submit(on_gpu.bind(2), run_id="waits")
    for _ in range(5):
        site.turn()

    said = run.waits_for_host
    why = run["on_gpu"].why()
    site.start("gpu", gpus=1)
    site.finish("waits")

    assert said.startswith("waits for a host with gpus=1: process ")
    assert said.endswith(" has gpus=0")
    assert why == f"on_gpu has not begun: its run is QUEUED, and {said}"
    assert run.waits_for_host == ""
    assert run.result() == 4


def test_labels_choose_among_hosts(site: Site) -> None:
    site.start("a", zone="a")
    run = site.client.submit(in_zone.bind(2), run_id="zoned")
    site.turn()

    said = run.waits_for_host
    site.start("b", zone="b")
    site.finish("zoned")

    assert said.startswith("waits for a host with zone=b: process ")
    assert said.endswith(" has no zone=b")
    assert site.driven_by("zoned") == {"b"}


def test_run_in_this_process_that_could_never_fit_is_refused(site: Site) -> None:
    with pytest.raises(library.DefinitionError, match=r"gpus=1 asked, 0 here.*PERDURE_GPUS"):
        site.client.run(on_gpu.bind(2))
    with pytest.raises(library.DefinitionError, match=r"zone=b asked, none here.*PERDURE_LABELS"):
        site.client.run(in_zone.bind(2))


def test_map_whose_items_could_never_fit_is_refused_before_anything_runs(site: Site) -> None:
    with pytest.raises(library.DefinitionError, match=r"step on_gpu can never.*gpus=1 asked"):
        site.client.run(on_gpu.map(three.bind(2)), run_id="m")

    assert site.client.list_runs() == []


def test_run_with_a_map_is_left_to_the_host_that_fits_its_items(site: Site) -> None:
    site.start("cpu")
    run = site.client.submit(on_gpu.map(three.bind(2)), run_id="m")
    for _ in range(5):
        site.turn()

    said = run.waits_for_host
    site.start("gpu", gpus=1)
    site.finish("m")

    assert said.startswith("waits for a host with gpus=1: process ")
    assert site.driven_by("m") == {"gpu"}
    assert run.result() == [4, 4, 4]


@pytest.mark.parametrize("gives", [gives_gpu_step, gives_gpu_map])
def test_run_with_a_graph_that_does_not_fit_is_handed_to_a_host_that_does(
    site: Site, gives: Any
) -> None:
    site.start("cpu")
    run = site.client.submit(gives.bind(2), run_id="g")
    wait_until(lambda: site.turn() or bool(run.waits_for_host), 30, "it is not handed back")
    for _ in range(5):
        site.turn()

    told = [event.detail["why"] for event in run.events() if event.kind == "handed-back"]
    why = run[gives.__name__].why()
    site.start("gpu", gpus=1)
    site.finish("g")

    assert [text.partition(": ")[2] for text in told] == ["gpus=1 asked, 0 here"]
    assert "waits for a host with gpus=1" in why
    assert site.driven_by("g") == {"cpu", "gpu"}
    assert run.result() == (4 if gives is gives_gpu_step else [4, 6])
    assert len(run[gives.__name__].attempts) == 1
    left = f"  process {os.getpid()} on {socket.gethostname()} left its run to another host: "
    assert left in run[gives.__name__].why()


def test_runs_find_their_host_whoever_claims_them_first(site: Site) -> None:
    site.start("cpu")
    site.start("gpu", gpus=1)

    names = [f"g-{number}" for number in range(4)]
    for name in names:
        site.client.submit([gives_gpu_step.bind(2), gives_gpu_map.bind(2)], run_id=name)
    site.finish(*names)

    assert [site.client.get_run(name).result() for name in names] == [[4, [4, 6]]] * 4


def test_graph_that_can_never_run_here_fails_a_run_that_is_driven_here(site: Site) -> None:
    with pytest.raises(library.RunFailed, match="which gives_gpu_map gave, can never run here"):
        site.client.run(gives_gpu_map.bind(2))


def test_commands_say_what_a_run_waits_for(perdure: CommandLine) -> None:
    perdure.write(
        "w.py",
        "from perdure import task, workflow\n"
        "@task(gpus=2)\n"
        "def fit(): ...\n"
        "@workflow\n"
        "def models():\n"
        "    return fit.bind()\n",
    )
    up = perdure.start("up", "--no-http", "--json", "--gpus", "1", "--cpus", "1")
    assert up.stdout is not None
    up.stdout.readline()

    left = perdure("run", "--detach", "--id", "m", "w.py")
    listed, shown, told = perdure("ls"), perdure("show", "m"), perdure("why", "m", "fit")

    assert left.code == 3
    for text in (listed.out, shown.out, told.out):
        assert "waits for a host with gpus=2: process " in text
        assert "has gpus=1" in text
