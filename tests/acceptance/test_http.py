"""The verbs over HTTP: as on the command line, with what is refused said in the same words."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from tests.acceptance.asking import Asking, Here
from tests.acceptance.conftest import CommandLine

from perdure.client import Perdure, open_store
from perdure.http import app
from perdure.http.app import make_app
from perdure.http.door import Door
from perdure.http.server import Address, Server
from perdure.http.service import Service
from perdure.queueing import register
from perdure.queues import Queue

FLOWS = """
from pathlib import Path
from perdure import Schedule, task, wait_event, wait_signal, workflow

@task
def double(n: int, at: Path) -> str:
    return f"{n * 2} {at.name}"

@workflow
def flow(n: int, at: Path = Path("here")) -> str:
    return double.bind(n, at)

@task
def broken() -> int:
    raise ValueError("no")

@workflow
def fails() -> int:
    return broken.bind()

@workflow
def asks() -> int:
    return wait_signal("answer", schema=int)

@workflow
def listens() -> str:
    return wait_event("price", match={"symbol": "X"})

tagged = flow.options(tags={"team": "a"})
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "flows.py").write_text(FLOWS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("flows", None)


@pytest.fixture
def client(project: Path) -> Iterator[Perdure]:
    store = str(project / ".perdure" / "perdure.db")
    with open_store(store, executor="inline") as opened:
        yield opened


@pytest.fixture
def service(client: Perdure) -> Service:
    return Service(client, ["flows.py"], Here(client))


@pytest.fixture
def http(service: Service) -> Asking:
    return Asking(make_app(service, Door()))


def result_of(client: Perdure, run_id: str) -> Any:
    """Drive a run here, as some ``perdure up`` would."""
    return client.resume(run_id).result()


@pytest.fixture
def server(service: Service) -> Iterator[Server]:
    """A server at a free port: what many ask at once has to be asked of one event loop."""
    made = Server(service, Address(host="127.0.0.1", port=0))
    made.start()
    yield made
    made.close()


# --- start --------------------------------------------------------------------------------------
def test_started_run_is_in_the_store_with_its_inputs_when_it_is_answered(
    http: Asking, client: Perdure
) -> None:
    body = {"workflow": "flow", "inputs": {"n": 4, "at": "/there"}, "tags": {"team": "b"}}

    started = http.post("/v1/runs", body)

    assert started.status_code == 202
    made = started.json()
    assert made["is_new"]
    assert started.headers["location"] == f"/v1/runs/{made['run_id']}"
    run = client.get_run(made["run_id"])
    assert run.inputs == {"n": 4, "at": Path("/there")}
    assert run.tags == {"team": "b"}
    assert result_of(client, run.id) == "8 there"


def test_started_run_stands_in_its_queue_as_it_was_asked_to(http: Asking, client: Perdure) -> None:
    register(client.runtime.store, Queue("gpu", limit=1), client.runtime.clock.now())
    body = {
        "workflow": "flow",
        "inputs": {"n": 4, "at": "/there"},
        "queue": "gpu",
        "priority": 3,
        "limit_key": "acme",
        "delay": "10m",
        "dedup_key": "order-17",
    }

    first = http.post("/v1/runs", body)
    other = http.post("/v1/runs", body)
    same = http.post("/v1/runs", {**body, "if_duplicate": "return"})

    record = client.get_run(first.json()["run_id"]).record
    assert (record.queue, record.priority, record.limit_key) == ("gpu", 3, "acme")
    assert record.not_before is not None
    assert other.status_code == 409
    assert record.id in other.json()["detail"]
    assert (same.status_code, same.json()["run_id"]) == (202, record.id)
    assert not same.json()["is_new"]


def test_duplicate_of_no_key_is_refused(http: Asking) -> None:
    refused = http.post("/v1/runs", {"workflow": "flow", "if_duplicate": "return"})

    assert refused.status_code == 422
    assert "give one too" in refused.json()["detail"]


def test_unknown_queue_is_refused(http: Asking) -> None:
    refused = http.post("/v1/runs", {"workflow": "flow", "inputs": {"n": 4}, "queue": "gpus"})

    assert refused.status_code == 422
    assert "gpus" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"delay": "99999999d"}, "36500d at most"),
        ({"delay": 1e300}, "36500d at most"),
        ({"priority": 10**20}, "priority"),
        ({"priority": -(2**63)}, "priority"),
    ],
)
def test_number_that_is_too_large_is_refused_by_name(
    http: Asking, option: dict[str, Any], said: str
) -> None:
    refused = http.post("/v1/runs", {"workflow": "flow", "inputs": {"n": 4}, **option})

    assert refused.status_code == 422
    assert said in refused.json()["detail"]


def test_workflow_is_named_as_in_its_target_and_its_options_hold(
    http: Asking, client: Perdure
) -> None:
    body = {"workflow": "tagged", "inputs": {"n": 1}}

    plain = http.post("/v1/runs", {**body, "workflow": "flow"}).json()["run_id"]
    tagged = http.post("/v1/runs", body, idempotency_key="k").json()["run_id"]

    assert client.get_run(plain).tags == {}
    assert client.get_run(tagged).tags == {"team": "a"}


def test_workflow_of_a_name_that_two_modules_have_is_named_by_its_entry_point(
    client: Perdure, project: Path
) -> None:
    (project / "more.py").write_text(FLOWS)
    service = Service(client, ["flows.py", "more.py"], Here(client))
    http = Asking(make_app(service, Door()))

    several = http.post("/v1/runs", {"workflow": "flow", "inputs": {"n": 1}})
    target = f"{project / 'more.py'}:flow"
    one = http.post("/v1/runs", {"workflow": target, "inputs": {"n": 1}})

    assert several.status_code == 422
    assert target in several.json()["detail"]
    assert client.get_run(one.json()["run_id"]).origin == target


def test_inputs_that_do_not_fit_are_refused_in_the_words_of_the_command_line(
    http: Asking, project: Path, client: Perdure
) -> None:
    refused = http.post("/v1/runs", {"workflow": "flow", "inputs": {"n": "x"}})
    typed = CommandLine(project)("run", "flows.py:flow", "--n", "x")

    assert refused.status_code == 422
    assert refused.json()["detail"] == "flow: parameter 'n': expected int, got str 'x'"
    assert f"error: {refused.json()['detail']}" in typed.err
    assert client.list_runs() == []


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"inputs": {}}, "missing required field `workflow`"),
        ({"workflow": "flow"}, "parameter 'n': int is missing"),
        ({"workflow": "flow", "inputs": {"m": 1}}, "no parameter 'm'"),
        ({"workflow": "flow", "inputs": {"n": 1}, "id": "-x"}, "cannot be typed"),
        ({"workflow": "flow", "inputs": {"n": 1}, "tag": {}}, "unknown field `tag`"),
        ({"workflow": "flow", "inputs": [1]}, "Expected `object`"),
    ],
)
def test_body_that_makes_no_sense_is_refused_and_makes_no_run(
    http: Asking, client: Perdure, body: Any, says: str
) -> None:
    refused = http.post("/v1/runs", body)

    assert refused.status_code == 422
    assert says in refused.json()["detail"]
    assert client.list_runs() == []


def test_only_what_is_served_may_be_started(http: Asking, client: Perdure, project: Path) -> None:
    (project / "other.py").write_text(FLOWS)

    for name in ("flw", "other.py:flow", f"{project / 'other.py'}:flow", "os:system", ""):
        refused = http.post("/v1/runs", {"workflow": name, "inputs": {"n": 1}})

        assert refused.status_code == 404, refused.text
        assert "Served: asks, fails, flow, listens, tagged." in refused.json()["detail"]
    assert client.list_runs() == []


def test_workflow_that_a_schedule_of_the_store_names_may_be_started(
    client: Perdure, project: Path
) -> None:
    from perdure.target import load_target

    client.schedule("nightly", load_target("flows.py:flow"), cron="@daily", inputs={"n": 1})
    service = Service(client, [], Here(client))
    http = Asking(make_app(service, Door()))

    started = http.post("/v1/runs", {"workflow": "flow", "inputs": {"n": 2}})
    refused = http.post("/v1/runs", {"workflow": "asks"})

    assert started.status_code == 202
    assert refused.status_code == 404


def test_module_that_cannot_be_imported_is_no_mistake_of_who_asks(
    http: Asking, project: Path
) -> None:
    (project / "flows.py").write_text("import nothing_of_that_name\n")

    failed = http.post("/v1/runs", {"workflow": "flow", "inputs": {"n": 1}})
    (project / "flows.py").write_text(FLOWS)
    mended = http.post("/v1/runs", {"workflow": "flow", "inputs": {"n": 1}})

    assert failed.status_code == 503
    assert "No module named 'nothing_of_that_name'" in failed.json()["detail"]
    assert mended.status_code == 202


# --- once ---------------------------------------------------------------------------------------
def test_same_key_makes_one_run_however_often_and_at_once(server: Server, client: Perdure) -> None:
    body = {"workflow": "flow", "inputs": {"n": 4}}

    def ask(_: int) -> dict[str, Any]:
        headers = {"idempotency-key": "order 17"}
        answer = httpx.post(f"{server.url}/v1/runs", json=body, headers=headers)
        return dict(answer.json())

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(16)))

    assert len({answer["run_id"] for answer in answers}) == 1
    assert sum(answer["is_new"] for answer in answers) == 1
    assert [run.id for run in client.list_runs()] == [answers[0]["run_id"]]
    assert answers[0]["run_id"].startswith("http-order-17-")


def test_same_key_of_another_request_is_refused(http: Asking, client: Perdure) -> None:
    body = {"workflow": "flow", "inputs": {"n": 4}}
    made = http.post("/v1/runs", body, idempotency_key="k").json()

    for other in ({**body, "inputs": {"n": 5}}, {**body, "tags": {"a": "b"}}, {"workflow": "asks"}):
        refused = http.post("/v1/runs", other, idempotency_key="k")

        assert refused.status_code == 409
        assert made["run_id"] in refused.json()["detail"]
    assert len(client.list_runs()) == 1


def test_same_key_opens_no_run_again_that_failed(http: Asking, client: Perdure) -> None:
    made = http.post("/v1/runs", {"workflow": "fails"}, idempotency_key="k").json()
    client.resume(made["run_id"]).wait()

    again = http.post("/v1/runs", {"workflow": "fails"}, idempotency_key="k").json()

    assert (again["run_id"], again["is_new"]) == (made["run_id"], False)
    assert again["status"] == "FAILED"


def test_same_key_finds_its_run_though_the_code_has_changed_or_is_broken(
    http: Asking, project: Path
) -> None:
    body = {"workflow": "flow", "inputs": {"n": 4}}
    made = http.post("/v1/runs", body, idempotency_key="k").json()

    (project / "flows.py").write_text("import nothing_of_that_name\n")
    again = http.post("/v1/runs", body, idempotency_key="k")

    assert again.status_code == 202
    assert again.json()["run_id"] == made["run_id"]


def test_id_does_what_it_does_on_the_command_line(http: Asking, client: Perdure) -> None:
    body = {"workflow": "flow", "inputs": {"n": 4}, "id": "monday"}

    first = http.post("/v1/runs", body).json()
    result_of(client, "monday")
    again = http.post("/v1/runs", body).json()
    other = http.post("/v1/runs", {**body, "inputs": {"n": 5}})
    both = http.post("/v1/runs", body, idempotency_key="k")

    assert first["is_new"]
    assert not again["is_new"]
    assert "recorded result" in again["note"]
    assert other.status_code == 409
    assert "has succeeded with other code or inputs" in other.json()["detail"]
    assert both.status_code == 422


def test_run_takes_over_what_has_not_changed_as_the_refusal_of_its_id_advises(
    http: Asking, client: Perdure
) -> None:
    body = {"workflow": "flow", "inputs": {"n": 4}}
    http.post("/v1/runs", {**body, "id": "monday"})
    result_of(client, "monday")
    refused = http.post("/v1/runs", {**body, "inputs": {"n": 5}, "id": "monday"})

    made = http.post("/v1/runs", {**body, "reuse": "monday"})
    absent = http.post("/v1/runs", {**body, "reuse": "tuesday"})

    assert "pass reuse='monday'" in refused.json()["detail"]
    assert made.status_code == 202
    run = client.get_run(made.json()["run_id"])
    assert run.record.reuse_from == "monday"
    result_of(client, run.id)
    assert run["double"].attempts == []
    assert absent.status_code == 404


@pytest.mark.parametrize("key", ["", " k", "x" * 201])
def test_key_that_is_none_is_refused(http: Asking, key: str) -> None:
    refused = http.post("/v1/runs", {"workflow": "asks"}, idempotency_key=key)

    assert refused.status_code == 400


# --- look ---------------------------------------------------------------------------------------
def test_runs_are_listed_page_by_page(http: Asking, client: Perdure) -> None:
    for n in range(5):
        client.submit(_flow("flow"), n=n, run_id=f"r{n}", tags={"even": str(n % 2 == 0)})

    pages, after = [], None
    while True:
        page = http.get("/v1/runs", limit=2, **({} if after is None else {"after": after})).json()
        pages.append([run["id"] for run in page["runs"]])
        after = page["next"]
        if after is None:
            break

    assert pages == [["r4", "r3"], ["r2", "r1"], ["r0"]]
    even = http.get("/v1/runs", tag="even=True", status=["queued", "running"], since="1h")
    assert [run["id"] for run in even.json()["runs"]] == ["r4", "r2", "r0"]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"limit": 0}, 422),
        ({"limit": "many"}, 400),
        ({"statsu": "queued"}, 400),
        ({"status": "quuued"}, 422),
        ({"tag": "even"}, 422),
        ({"since": "yesterday-ish"}, 422),
        ({"since": "2026-01-01"}, 422),
    ],
)
def test_query_that_makes_no_sense_is_refused(
    http: Asking, query: dict[str, Any], status: int
) -> None:
    assert http.get("/v1/runs", **query).status_code == status


def test_time_without_a_zone_is_refused_with_what_to_write(http: Asking) -> None:
    refused = http.get("/v1/runs", since="2026-01-01T00:00:00")

    assert "write 2026-01-01T00:00:00Z" in refused.json()["detail"]


def test_run_is_shown_with_its_steps_counted(http: Asking, client: Perdure) -> None:
    client.submit(_flow("fails"), run_id="a/1 ü")
    client.resume("a/1 ü").wait()

    shown = http.get("/v1/runs/a%2F1%20%C3%BC").json()
    whole = http.get("/v1/runs/a%2F1%20%C3%BC", steps=True).json()

    assert shown["run"]["status"] == "FAILED"
    assert shown["run"]["failed"] == 1
    assert "perdure resume 'a/1 ü'" in shown["run"]["next"]
    assert shown["groups"][0]["name"] == "broken"
    assert "steps" not in shown["run"]
    assert [step["id"] for step in whole["run"]["steps"]] == ["broken"]


def test_run_that_is_not_there_is_answered_with_the_nearest(http: Asking, client: Perdure) -> None:
    client.submit(_flow("asks"), run_id="monday")

    absent = http.get("/v1/runs/mnday")

    assert absent.status_code == 404
    assert absent.json()["type"] == "RunNotFound"
    assert "Did you mean 'monday'" in absent.json()["detail"]
    assert absent.json()["next"].startswith("perdure ls")


def test_route_that_is_not_there_is_a_problem_too(http: Asking) -> None:
    absent = http.client.get("/v1/jobs")
    wrong = http.client.delete("/v1/runs")

    assert (absent.status_code, wrong.status_code) == (404, 405)
    assert absent.headers["content-type"] == "application/problem+json"
    assert wrong.headers["allow"]


# --- ask ----------------------------------------------------------------------------------------
def test_signal_is_converted_by_the_schema_of_the_wait(http: Asking, client: Perdure) -> None:
    client.submit(_flow("asks"), run_id="a/1")
    where = "/v1/runs/a%2F1/signals/answer"

    refused = http.post(where, {"value": "much"})
    sent = http.post(where, {"value": "17"}, idempotency_key="k")
    again = http.post(where, {"value": 18, "dedup_key": "k"})

    assert refused.status_code == 422
    assert refused.json()["detail"] == "signal 'answer': expected int, got str 'much'"
    assert sent.json() == {"name": "answer", "sent": True, "run_id": "a/1", "is_awaited": True}
    assert again.json()["sent"] is False
    assert result_of(client, "a/1") == 17


def test_signal_to_a_run_that_is_over_or_absent_is_refused(http: Asking, client: Perdure) -> None:
    client.run(_flow("flow"), n=1, run_id="over")

    assert http.post("/v1/runs/over/signals/answer", {"value": 1}).status_code == 409
    assert http.post("/v1/runs/none/signals/answer", {"value": 1}).status_code == 404


def test_event_reaches_the_runs_that_wait_for_it(http: Asking, client: Perdure) -> None:
    client.submit(_flow("listens"), run_id="w")

    other = http.post("/v1/events/price", {"payload": "no", "match": {"symbol": "Y"}})
    sent = http.post("/v1/events/price", {"payload": "high", "match": {"symbol": "X"}})
    unfit = http.post("/v1/events/price", {"match": {"symbol": [1]}})

    assert (other.status_code, sent.json()) == (202, {"name": "price", "sent": True})
    assert unfit.status_code == 422
    assert result_of(client, "w") == "high"


def test_cancel_and_resume_ask_and_do_not_drive(http: Asking, client: Perdure) -> None:
    client.submit(_flow("asks"), run_id="w")

    asked = http.post("/v1/runs/w/cancel")
    record = client.get_run("w").record

    assert asked.status_code == 202
    assert record.cancel_requested
    assert record.owner is None


def test_run_that_failed_goes_on_with_todays_code(
    http: Asking, client: Perdure, project: Path
) -> None:
    client.submit(_flow("fails"), run_id="f")
    client.resume("f").wait()
    (project / "flows.py").write_text(FLOWS.replace('raise ValueError("no")', "return 5"))

    refused = http.post("/v1/runs/f/resume", {"code": "newest"})
    resumed = http.post("/v1/runs/f/resume", {"code": "current"})

    assert refused.status_code == 422
    assert resumed.json()["status"] == "QUEUED"
    assert "goes on" in resumed.json()["note"]
    assert result_of(client, "f") == 5


def test_run_that_succeeded_is_neither_cancelled_nor_opened_again(
    http: Asking, client: Perdure
) -> None:
    client.run(_flow("flow"), n=1, run_id="over")

    assert http.post("/v1/runs/over/cancel").status_code == 409
    assert http.post("/v1/runs/over/resume").json()["status"] == "SUCCEEDED"


# --- the door -----------------------------------------------------------------------------------
def test_document_is_valid_and_names_all_routes(http: Asking) -> None:
    from openapi_spec_validator import validate

    told = http.client.get("/openapi.json").json()

    validate(told)
    assert {
        "/v1/runs",
        "/v1/runs/{id}",
        "/v1/runs/{id}/cancel",
        "/v1/runs/{id}/resume",
        "/v1/runs/{id}/signals/{name}",
        "/v1/events/{name}",
        "/health",
        "/health/ready",
    } <= set(told["paths"])


def test_body_that_is_no_json_is_refused(http: Asking) -> None:
    json = {"content_type": "application/json"}

    for content in (b"{", b"[" * 100_000, b'{"workflow": "\xff"}', b"\x00"):
        refused = http.send("/v1/runs", content, **json)

        assert refused.status_code in (400, 422), content[:20]


def test_body_that_is_too_long_is_refused_before_it_is_read(http: Asking) -> None:
    json = {"content_type": "application/json"}

    told = http.send("/v1/runs", b"x" * (2 << 20), **json)
    lied = http.client.post(
        "/v1/runs",
        content=iter([b"x" * (1 << 20)] * 2),
        headers={"content-type": "application/json"},
    )

    assert told.status_code == 413
    assert lied.status_code == 413


HEAD = b"POST /v1/runs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def test_body_that_does_not_come_is_given_up(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "BODY_WITHIN_S", 0.1)

    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as slow:
        slow.sendall(HEAD + b"Content-Length: 10\r\n\r\n{")
        answer = slow.recv(1000)

    assert answer.startswith(b"HTTP/1.1 408 ")


def test_sender_that_goes_away_is_no_error_of_ours(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as gone:
        gone.sendall(HEAD + b"Content-Length: 10\r\n\r\n{")

    assert httpx.get(f"{server.url}/health").status_code == 200
    assert "failed" not in caplog.text


@pytest.mark.parametrize(
    "headers",
    [
        {"content_type": "text/plain"},
        {"content_type": "application/x-www-form-urlencoded"},
        {"content_type": ""},
    ],
)
def test_form_of_a_page_can_ask_for_nothing(
    http: Asking, client: Perdure, headers: dict[str, str]
) -> None:
    client.submit(_flow("asks"), run_id="w")

    refused = http.send("/v1/runs/w/cancel", b"{}", **headers)

    assert refused.status_code == 415
    assert not client.get_run("w").record.cancel_requested


def test_page_of_another_site_can_ask_for_nothing(http: Asking) -> None:
    foreign = http.post("/v1/runs", {"workflow": "asks"}, origin="https://evil.example")
    rebound = http.client.get("/v1/runs", headers={"host": "evil.example:7373"})
    own = http.post("/v1/events/x", {}, origin="http://127.0.0.1:7373")

    assert foreign.status_code == 403
    assert rebound.status_code == 421
    assert own.status_code == 202


def test_token_is_asked_for_everything_but_health(service: Service) -> None:
    token = "0123456789abcdef-token"
    http = Asking(make_app(service, Door(token=token)))

    missing = http.get("/v1/runs")
    wrong = http.client.get("/v1/runs", headers={"authorization": "Bearer 0123456789abcdef"})
    basic = http.client.get("/v1/runs", headers={"authorization": f"Basic {token}"})
    right = http.client.get(
        "/v1/runs", headers={"authorization": f"Bearer {token}", "host": "perdure.example"}
    )

    assert [each.status_code for each in (missing, wrong, basic, right)] == [401, 401, 401, 200]
    assert missing.headers["www-authenticate"].startswith("Bearer")
    assert token not in missing.text
    assert http.get("/health").status_code == 200


def test_readiness_is_whether_somebody_drives_the_runs(http: Asking, client: Perdure) -> None:
    assert http.get("/health").json()["status"] == "ok"
    assert http.get("/health/ready").status_code == 503


def _flow(name: str) -> Any:
    from perdure.target import load_target

    return load_target(f"flows.py:{name}")


def test_refusal_names_what_was_asked_and_no_file_of_the_server(http: Asking) -> None:
    refused = http.get("/v1/runs", status=["zzz"])

    assert refused.status_code == 422
    detail = refused.json()["detail"]
    assert detail.startswith("no status 'zzz'. Known: ")
    assert "\n" not in detail
    assert ".py" not in detail
