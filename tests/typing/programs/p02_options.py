"""Every option of a task, in the decorator and per call."""

from datetime import timedelta
from typing import assert_type

from perdure import Backoff, task


@task(
    name="n",
    version="2",
    cpus=0.5,
    gpus=1,
    memory=2**30,
    resources={"licence": 1},
    retries=3,
    retry_on=(OSError, ValueError),
    backoff=Backoff("1s", factor=2, max="60s", jitter=0.1),
    lost_retries=-1,
    timeout=timedelta(minutes=5),
    checkpoint=False,
    volatile=True,
)
def fetch(url: str, *, limit: int = 3) -> bytes:
    return url.encode()[:limit]


def is_worth_it(error: BaseException) -> bool:
    return "busy" in str(error)


again = fetch.options(retries=1, retry_on=is_worth_it, timeout="5m", allow_unenforced=True)
one_class = fetch.options(retry_on=ValueError)
several = fetch.options(retry_on=[ValueError, KeyError])
first = fetch.bind("a", limit=2)
second = again.options(name="later", after=first).bind("b")
third = fetch.options(after=[first, second]).bind("c")
assert_type(second, bytes)
assert_type(again("a"), bytes)
