"""Whatever is asked over HTTP, the answer is one that the document describes, and never a crash."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.acceptance.asking import Asking, Here

from perdure.client import open_store
from perdure.http.app import OPERATIONS, make_app
from perdure.http.door import Door
from perdure.http.service import Service
from perdure.target import load_target

FLOWS = """
from typing import Any
from perdure import task, wait_signal, workflow

@task
def keep(value: Any) -> Any:
    return value

@workflow
def flow(value: Any = None, n: int = 0) -> Any:
    return keep.bind(value)

@workflow
def asks() -> int:
    return wait_signal("answer", schema=int)
"""
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["w", "answer", "hook", "none", "a/b"]) | TEXTS.filter(bool)
STARTS = st.fixed_dictionaries(
    {"workflow": st.sampled_from(["flow", "asks", "none"]), "inputs": JSON},
    optional={"id": TEXTS, "tags": JSON},
)
SENT = st.fixed_dictionaries(
    {}, optional={"value": JSON, "payload": JSON, "match": JSON, "dedup_key": TEXTS, "code": TEXTS}
)
BODIES = st.one_of(STARTS, SENT, JSON).map(lambda each: json.dumps(each).encode())
HEADERS = st.fixed_dictionaries(
    {"content_type": st.sampled_from(["application/json"] * 4 + ["text/plain"])},
    optional={
        "idempotency_key": st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=9),
        "webhook_id": st.just("d"),
        "webhook_timestamp": st.sampled_from(["1", "soon", "9" * 40]),
        "webhook_signature": st.sampled_from(["v1,", "v1,AAAA", "x"]),
    },
)
QUERIES = st.dictionaries(
    st.sampled_from(["status", "workflow", "tag", "since", "limit", "after", "steps", "x"]),
    st.sampled_from(["1", "0", "true", "a=b", "queued", "2d", "-1"]) | TEXTS,
    max_size=3,
)


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    folder = tmp_path_factory.mktemp("fuzz")
    flows = folder / "flows.py"
    flows.write_text(FLOWS)
    with open_store(str(folder / "perdure.db"), executor="inline") as client:
        client.submit(load_target(f"{flows}:asks"), run_id="w")
        client.trigger("hook", load_target(f"{flows}:flow"), **_webhook())
        service = Service(client, [str(Path(flows))], Here(client))
        yield Asking(make_app(service, Door()))


def _webhook() -> dict[str, Any]:
    import perdure

    return {"on": perdure.Webhook(keys=["PATH"]), "inputs": {"value": perdure.event.body}}


@settings(max_examples=150, deadline=None)
@given(
    operation=st.sampled_from(OPERATIONS),
    names=st.lists(NAMES, min_size=2, max_size=2),
    body=BODIES | st.binary(max_size=20),
    headers=HEADERS,
    query=QUERIES,
)
def test_every_answer_is_one_that_the_document_describes(
    http: Asking, operation: Any, names: list[str], body: bytes, headers: Any, query: Any
) -> None:
    path = operation.path
    for name in names:
        start, brace, rest = path.partition("{")
        path = start + quote(name, safe="") + rest.partition("}")[2] if brace else path

    if operation.method == "GET":
        answer = http.get(path, **query)
    else:
        answer = http.send(path, body, **headers)

    assert (
        answer.status_code in {200, 202}
        or 400 <= answer.status_code < 500
        or (answer.status_code == 503)
    ), answer.text
