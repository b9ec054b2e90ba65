"""The document that says to programs what may be asked: OpenAPI, made from the operations.

The schemas are msgspec's, of the very types that decode and encode; only the frame is put together
here. See docs/decisions/0011-openapi-by-msgspec.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

import msgspec

from perdure.http.operations import Operation, Proof
from perdure.http.problems import MEDIA_TYPE, Problem

_REF = "#/components/schemas/{name}"
_JSON = "application/json"
_ANY = (HTTPStatus.BAD_REQUEST, HTTPStatus.MISDIRECTED_REQUEST, HTTPStatus.SERVICE_UNAVAILABLE)
_WITH_BODY = (
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)
_WITH_TOKEN = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    """Return the OpenAPI document of operations."""
    listed = list(operations)
    types = [Problem, *(each.says for each in listed)]
    types += [each.body for each in listed if each.body is not None]
    types += [each.query for each in listed]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    schema_of = dict(zip(types, schemas))
    paths: dict[str, dict[str, Any]] = {}
    for each in listed:
        found = paths.setdefault(each.path, {})
        found[each.method.lower()] = _operation(each, schema_of, components)
    queries = {each.query.__name__ for each in listed}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "perdure",
            "version": version("perdure"),
            "description": "Durable runs of Python workflows. A request that made something is "
            "answered when that is in the store.",
        },
        "paths": paths,
        "components": {
            "schemas": {
                name: _told(schema) for name, schema in components.items() if name not in queries
            },
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(
    operation: Operation, schema_of: Mapping[Any, Any], components: Mapping[str, Any]
) -> dict[str, Any]:
    said: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": [
            *_path_parameters(operation.path),
            *_query_parameters(components[operation.query.__name__]),
            *_header_parameters(operation.headers),
        ],
        "responses": {
            str(int(operation.status)): {
                "description": operation.status.phrase,
                "content": {_JSON: {"schema": schema_of[operation.says]}},
            },
            **{str(int(status)): _problem(status) for status in _statuses(operation)},
        },
        # Without a token the server asks for none: both are allowed.
        "security": [{"token": []}, {}] if operation.proof is Proof.TOKEN else [],
    }
    if operation.method == "POST":
        schema = schema_of[operation.body] if operation.body is not None else {}
        said["requestBody"] = {
            "required": operation.body is not None,
            "content": {_JSON: {"schema": schema}},
        }
    return said


def _statuses(operation: Operation) -> list[HTTPStatus]:
    with_body = _WITH_BODY if operation.method == "POST" else (HTTPStatus.UNPROCESSABLE_ENTITY,)
    with_proof = () if operation.proof is Proof.NONE else _WITH_TOKEN
    return sorted({*_ANY, *with_body, *with_proof, *operation.errors})


def _problem(status: HTTPStatus) -> dict[str, Any]:
    schema = {"$ref": _REF.format(name="Problem")}
    return {"description": status.phrase, "content": {MEDIA_TYPE: {"schema": schema}}}


def _path_parameters(path: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", path)
    ]


def _query_parameters(schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    texts = _attributes(schema.get("description", ""))
    return [
        {"name": name, "in": "query", "description": texts.get(name, ""), "schema": each}
        for name, each in schema.get("properties", {}).items()
    ]


def _header_parameters(headers: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {"name": name.title(), "in": "header", "description": text, "schema": {"type": "string"}}
        for name, text in headers.items()
    ]


def _told(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema with the sentences of its docstring at the properties that they are about."""
    text = schema.get("description", "")
    texts = _attributes(text)
    properties = {
        name: {**each, "description": texts[name]} if name in texts else each
        for name, each in schema.get("properties", {}).items()
    }
    told = {**schema, "properties": properties} if properties else dict(schema)
    if text:
        told["description"] = _sentence(text.partition("Attributes:")[0])
    return told


def _attributes(docstring: str) -> dict[str, str]:
    """Return what a docstring says of each attribute, by name."""
    _, _, listed = docstring.partition("Attributes:\n")
    found = re.findall(r"^ {4,8}([\w, ]+): (.+(?:\n {9,}.+)*)", listed, re.MULTILINE)
    return {name: _sentence(text) for names, text in found for name in names.split(", ")}


def _sentence(text: str) -> str:
    return " ".join(text.split()).replace("``", "`")
