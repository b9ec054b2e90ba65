"""Asks the app over HTTP, and holds every answer against the document that describes it."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx2 as httpx
import msgspec
from jsonschema import Draft202012Validator
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from perdure.client import Perdure
from perdure.http.app import OPERATIONS
from perdure.http.beside import prepare_answers
from perdure.http.openapi import document

DOCUMENT = document(OPERATIONS)
T = TypeVar("T")
BASE = "http://127.0.0.1:7373"


class Here:
    """Answers in this process what a child answers to who serves."""

    def __init__(self, client: Perdure) -> None:
        self._answer = prepare_answers(client.settings)
        self._turn = threading.Lock()

    def ask(self, question: Any, answer: type[T], /) -> T:
        with self._turn:
            answered = self._answer(msgspec.json.encode(question))
        return msgspec.json.decode(msgspec.json.encode(answered), type=answer)

    def close(self) -> None:
        """Nothing is held."""


@dataclass
class Asking:
    """Asks, and refuses answers that are not as the document says."""

    app: ASGIApp
    client: TestClient = field(init=False)

    def __post_init__(self) -> None:
        self.client = TestClient(self.app, base_url=BASE, raise_server_exceptions=False)

    def get(self, path: str, **query: Any) -> httpx.Response:
        return self.checked("get", path, self.client.get(path, params=query))

    def post(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        content = {} if body is None else body
        return self.checked("post", path, self.client.post(path, json=content, headers=named))

    def send(self, path: str, content: bytes, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        response = self.client.post(path, content=content, headers=named)
        return self.checked("post", path, response)

    def checked(self, method: str, path: str, response: httpx.Response) -> httpx.Response:
        described = described_at(method, path)
        if described is None:
            return response
        said = described["responses"].get(str(response.status_code))
        assert said is not None, f"{method} {path}: {response.status_code} {response.text}"
        ((kind, content),) = said["content"].items()
        assert response.headers["content-type"] == kind
        schema = {**content["schema"], "components": DOCUMENT["components"]}
        Draft202012Validator(schema).validate(response.json())
        return response


def described_at(method: str, path: str) -> dict[str, Any] | None:
    for template, described in DOCUMENT["paths"].items():
        pattern = re.sub(r"{\w+}", "[^/]+", template)
        if re.fullmatch(pattern, path) and method in described:
            found: dict[str, Any] = described[method]
            return found
    return None
