"""Async tasks stand for the awaited value."""

from collections.abc import Coroutine
from typing import Any, assert_type

from perdure import task, workflow


@task
async def fetch(url: str) -> bytes:
    return url.encode()


@task(retries=2, timeout="30s")
async def parse(body: bytes) -> dict[str, int]:
    return {"n": len(body)}


@workflow
def crawl(urls: list[str]) -> dict[str, int]:
    body = fetch.bind("https://example.org")
    assert_type(body, bytes)
    return parse.bind(body)


def use() -> None:
    assert_type(crawl(["a"]), dict[str, int])
    assert_type(fetch("u"), Coroutine[Any, Any, bytes]).close()
    assert_type(parse.options(retries=3).bind(b""), dict[str, int])
