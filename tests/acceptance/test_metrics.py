"""What `perdure up` counts for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient
from tests.acceptance import plain_steps
from tests.acceptance.asking import BASE

from perdure import Queue
from perdure.client import Perdure, open_store
from perdure.errors import RunFailed
from perdure.http.app import make_app
from perdure.http.door import Door
from perdure.http.service import Service
from perdure.metrics import Metrics

TOKEN = "a token that is long enough"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Perdure]:
    with open_store(str(tmp_path / "perdure.db"), executor="inline") as client:
        client.runtime.metrics = Metrics(client.runtime)
        yield client


def counted(client: Perdure) -> dict[str, float]:
    """Return every sample, by its name and labels as Prometheus writes them."""
    metrics = client.runtime.metrics
    assert isinstance(metrics, Metrics)
    families = text_string_to_metric_families(metrics.text().decode())
    return {
        f"{sample.name}{sorted(sample.labels.values())}": sample.value
        for family in families
        for sample in family.samples
    }


def test_runs_steps_attempts_and_commits_are_counted(client: Perdure) -> None:
    client.run(plain_steps.everything)
    with pytest.raises(RunFailed):
        client.run(plain_steps.failing)

    found = counted(client)

    assert found["perdure_runs_total['succeeded']"] == 1
    assert found["perdure_runs_total['failed']"] == 1
    assert found["perdure_attempts_total['user_error']"] == 1
    assert found["perdure_attempts_total['succeeded']"] > 5
    assert found["perdure_steps_total['succeeded']"] > 5
    assert found["perdure_value_bytes_total['inline']"] > 100
    assert found["perdure_commit_seconds_count[]"] > 2
    assert found["perdure_attempt_seconds_count[]"] > 5


def test_gauges_say_what_goes_on_in_the_whole_store(client: Perdure) -> None:
    for _ in range(2):
        client.submit(plain_steps.everything, queue=Queue("nightly", limit=2))
    client.submit(plain_steps.everything)

    found = counted(client)

    assert found["perdure_live_runs['queued']"] == 3
    assert found["perdure_live_runs['running']"] == 0
    assert found["perdure_queue_depth['nightly']"] == 2
    assert found["perdure_queue_depth['']"] == 1
    assert found["perdure_coordinators[]"] == 0
    assert found["perdure_workers[]"] == 0


def test_no_label_has_the_name_of_a_run_or_of_a_step(client: Perdure) -> None:
    client.run(plain_steps.everything, run_id="a-run-of-its-own")

    text = client.runtime.metrics.text().decode()  # type: ignore[union-attr]

    assert "a-run-of-its-own" not in text
    assert "doubled" not in text


def test_metrics_are_served_to_whoever_has_the_token(client: Perdure) -> None:
    metrics = client.runtime.metrics
    assert isinstance(metrics, Metrics)
    app = make_app(Service(client, metrics=metrics.text), Door(token=TOKEN))
    asking = TestClient(app, base_url=BASE)

    refused = asking.get("/metrics")
    served = asking.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})

    assert refused.status_code == 401
    assert served.status_code == 200
    assert served.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "perdure_live_runs" in served.text


def test_where_nothing_is_counted_the_answer_says_what_to_install(client: Perdure) -> None:
    asking = TestClient(make_app(Service(client), Door()), base_url=BASE)

    answer = asking.get("/metrics")

    assert answer.status_code == 404
    assert "perdure[metrics]" in answer.json()["detail"]
