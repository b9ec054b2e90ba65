"""Webhooks: signed requests start runs, each delivery once; all else is told why not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.asking import Asking, Here

from perdure.client import Perdure, open_store
from perdure.http.app import make_app
from perdure.http.door import Door
from perdure.http.service import Service
from perdure.http.signatures import sign
from perdure.target import load_target
from perdure.triggers import Event, Webhook, all_of, any_of, event
from perdure_storage.trigger_records import ArrivalQuery

FLOWS = """
from pathlib import Path
from perdure import task, workflow

@task
def name(repo: str, n: int, at: Path) -> str:
    return f"{repo} {n} {at.name}"

@workflow
def build(repo: str, n: int = 1, at: Path = Path("here")) -> str:
    return name.bind(repo, n, at)
"""
KEY, OLD = "the-key-of-this-hook", "the-key-before-that"
BODY = {"repo": {"full_name": "a/b"}, "n": "7"}


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Perdure]:
    (tmp_path / "flows.py").write_text(FLOWS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOOK_KEY", KEY)
    with open_store(str(tmp_path / ".perdure" / "perdure.db"), executor="inline") as opened:
        yield opened


@pytest.fixture
def http(client: Perdure) -> Asking:
    # With a token, and asked for a name of the proxy: neither is for webhooks.
    service = Service(client, ["flows.py"], Here(client))
    return Asking(make_app(service, Door(token="the-token-of-this-server")))


def wait_for(client: Perdure, name: str = "pushed", **options: Any) -> None:
    given: dict[str, Any] = {
        "on": Webhook(keys=["HOOK_KEY", "HOOK_KEY_OLD"], headers=["X-Kind"]),
        "inputs": {"repo": event.body.repo.full_name, "n": event.body.n},
        **options,
    }
    client.trigger(name, load_target("flows.py:build"), **given)


def send(
    http: Asking,
    client: Perdure,
    body: Any = BODY,
    *,
    delivery: str = "d1",
    to: str = "pushed",
    by: str = KEY,
    off: timedelta = timedelta(0),
    **headers: str,
) -> Any:
    content = json.dumps(body).encode()
    timestamp = f"{(client.runtime.clock.now() + off).timestamp():.0f}"
    signature = sign(by.encode(), delivery, timestamp, content)
    return http.send(
        f"/v1/hooks/{to}",
        content,
        content_type="application/json",
        webhook_id=delivery,
        webhook_timestamp=timestamp,
        webhook_signature=signature,
        host="hooks.example.com",
        **headers,
    )


def decisions(client: Perdure, name: str = "pushed") -> list[str]:
    query = ArrivalQuery(trigger=name, oldest_first=True)
    return [each.decision for each in client.runtime.store.triggers.list_arrivals(query)]


def test_signed_delivery_makes_a_run_of_what_it_says(http: Asking, client: Perdure) -> None:
    wait_for(client)

    answer = send(http, client)

    assert answer.status_code == 202
    said = answer.json()
    assert (said["decision"], said["is_new"]) == ("fired", True)
    assert said["run_id"].startswith("pushed-d1-")
    assert client.resume(said["run_id"]).result() == "a/b 7 here"


def test_delivery_that_comes_again_is_told_of_its_run(http: Asking, client: Perdure) -> None:
    wait_for(client)

    first = send(http, client).json()
    again = send(http, client, {"repo": {"full_name": "other"}}).json()

    assert (again["run_id"], again["is_new"]) == (first["run_id"], False)
    assert len(client.list_runs()) == 1


def test_either_key_signs_while_one_is_replaced(
    http: Asking, client: Perdure, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_for(client)
    monkeypatch.setenv("HOOK_KEY_OLD", OLD)

    assert send(http, client, by=OLD).status_code == 202
    assert send(http, client, by=KEY, delivery="d2").status_code == 202


@pytest.mark.parametrize(
    ("wrong", "status", "type"),
    [
        ({"by": OLD}, 401, "SignatureWrong"),
        ({"off": timedelta(minutes=-6)}, 401, "SignatureWrong"),
        ({"to": "none"}, 404, "HookNotFound"),
        ({"to": "pushed/other"}, 404, "HookNotFound"),
    ],
)
def test_what_is_not_signed_by_a_key_in_time_is_refused(
    http: Asking, client: Perdure, wrong: dict[str, Any], status: int, type: str
) -> None:
    wait_for(client)

    refused = send(http, client, **wrong)

    assert (refused.status_code, refused.json()["type"]) == (status, type)
    assert client.list_runs() == []
    assert decisions(client) == []


def test_hook_without_a_key_says_so_in_the_log_only(
    http: Asking,
    client: Perdure,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    wait_for(client)
    monkeypatch.setenv("HOOK_KEY", "")

    refused = send(http, client, by="")

    assert refused.status_code == 503
    assert "HOOK_KEY" not in refused.text
    assert "set HOOK_KEY or HOOK_KEY_OLD where `perdure up` runs" in caplog.text


def test_filter_is_told_and_makes_no_run(http: Asking, client: Perdure) -> None:
    wait_for(client, where=event.headers["x-kind"] == "push")

    left = send(http, client, x_kind="ping").json()
    taken = send(http, client, delivery="d2", x_kind="push").json()

    assert (left["decision"], left["run_id"]) == ("filtered", None)
    assert taken["decision"] == "fired"
    assert len(client.list_runs()) == 1


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({**BODY, "n": "many"}, "build: parameter 'n': expected int, got str 'many'"),
        ({"n": 1}, "body.repo"),
        ([1], "is missing"),
    ],
)
def test_delivery_that_the_workflow_does_not_take_is_refused_and_counts_when_it_is_mended(
    http: Asking, client: Perdure, body: Any, says: str
) -> None:
    wait_for(client)

    refused = send(http, client, body)
    shown = client.get_trigger("pushed").state.troubles
    mended = send(http, client).json()

    assert refused.status_code == 422
    assert says in refused.json()["detail"]
    assert says in shown[""].message
    assert (mended["decision"], mended["is_new"]) == ("fired", True)
    assert client.get_trigger("pushed").state.troubles == {}


def test_delivery_is_taken_in_though_the_module_cannot_be_imported_now(
    http: Asking, client: Perdure, tmp_path: Path
) -> None:
    wait_for(client)
    (tmp_path / "flows.py").write_text("import nothing_of_that_name\n")

    taken = send(http, client)
    (tmp_path / "flows.py").write_text(FLOWS)

    assert taken.status_code == 202
    assert client.resume(taken.json()["run_id"]).result() == "a/b 7 here"


def test_constants_beside_facts_are_checked_together(http: Asking, client: Perdure) -> None:
    wait_for(client, inputs={"repo": event.body.repo.full_name, "n": 3, "at": Path("/there")})

    taken = send(http, client)

    assert taken.status_code == 202
    assert client.resume(taken.json()["run_id"]).result() == "a/b 3 there"


def test_delivery_to_a_paused_trigger_is_kept_for_later(http: Asking, client: Perdure) -> None:
    wait_for(client)
    client.get_trigger("pushed").pause()

    kept = send(http, client).json()
    client.get_trigger("pushed").resume()

    assert (kept["decision"], kept["run_id"]) == ("deferred", None)
    assert decisions(client) == ["fired"]


def test_delivery_of_github_is_known_by_its_id(http: Asking, client: Perdure) -> None:
    import hmac

    wait_for(client, on=Webhook(keys=["HOOK_KEY"], scheme="github"))
    content = json.dumps(BODY).encode()
    headers = {
        "content_type": "application/json",
        "x_hub_signature_256": f"sha256={hmac.digest(KEY.encode(), content, 'sha256').hex()}",
    }

    without = http.send("/v1/hooks/pushed", content, **headers)
    first = http.send("/v1/hooks/pushed", content, x_github_delivery="g1", **headers)
    again = http.send("/v1/hooks/pushed", content, x_github_delivery="g1", **headers)
    keyed = http.send("/v1/hooks/pushed", content, idempotency_key="k1", **headers)

    assert without.status_code == 422
    assert again.json()["run_id"] == first.json()["run_id"]
    assert keyed.json()["run_id"] != first.json()["run_id"]


def test_each_webhook_of_several_has_a_route(http: Asking, client: Perdure) -> None:
    hook = Webhook(keys=["HOOK_KEY"])
    facts = {"repo": event.body.repo.full_name}
    wait_for(client, "either", on=any_of(a=hook, b=hook), inputs=facts)
    wait_for(
        client,
        "both",
        on=all_of(hook=hook, said=Event("go"), within="1h"),
        inputs={"repo": event.hook.body.repo.full_name},
    )

    several = send(http, client, to="either")
    a, b = (send(http, client, to=f"either/{each}").json() for each in "ab")
    waits = send(http, client, to="both").json()

    assert several.status_code == 404
    assert "/v1/hooks/either/a, /v1/hooks/either/b" in several.json()["detail"]
    assert a["run_id"] != b["run_id"], "the keys of two senders have nothing to do with each other"
    assert waits["decision"] == "held"


def test_body_that_is_no_json_or_too_long_is_refused(http: Asking, client: Perdure) -> None:
    wait_for(client)
    headers = {"content_type": "application/json"}

    unsigned = http.send("/v1/hooks/pushed", b"{", **headers)
    long = http.send("/v1/hooks/pushed", b" " * ((1 << 20) + 1), **headers)
    form = http.send("/v1/hooks/pushed", b"a=b", content_type="application/x-www-form-urlencoded")

    assert [each.status_code for each in (unsigned, long, form)] == [401, 413, 415]


def test_webhook_takes_a_body_as_long_as_the_setting_says(
    tmp_path: Path, client: Perdure, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_for(client)
    monkeypatch.setenv("PERDURE_HTTP_MAX_BODY", "2MiB")
    at = str(tmp_path / ".perdure" / "perdure.db")
    long = {"repo": {"full_name": "a/b"}, "n": 1, "rest": "x" * (3 << 19)}

    with open_store(at, executor="inline") as other:
        service = Service(other, ["flows.py"], Here(other))
        http = Asking(make_app(service, Door()))
        taken, refused = send(http, other, long), send(http, other, {**long, "more": "x" * 600_000})

    assert (taken.status_code, taken.json()["decision"]) == (202, "fired")
    assert refused.status_code == 413
    assert "2,097,152 bytes" in refused.json()["detail"]


def test_secret_is_nowhere_in_what_is_said_and_logged(
    http: Asking, client: Perdure, caplog: pytest.LogCaptureFixture
) -> None:
    wait_for(client)

    said = [send(http, client), send(http, client, by="wrong-key-of-nobody", delivery="d2")]

    assert KEY not in caplog.text + "".join(each.text for each in said)


def test_workflow_that_a_trigger_names_may_be_started(http: Asking, client: Perdure) -> None:
    wait_for(client)
    service = Service(client, [], Here(client))
    asking = Asking(make_app(service, Door()))

    started = asking.post("/v1/runs", {"workflow": "build", "inputs": {"repo": "x"}})

    assert started.status_code == 202
