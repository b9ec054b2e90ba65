"""Ten mistakes that both checkers find; each on a line that says so."""

from perdure import Backoff, Event, Failure, Files, Secret, Static, Trigger, event, task, workflow


@task(retires=2)  # mistake: an unknown option
def misspelt(x: int) -> int:
    return x


@task(retries="2")  # mistake: an option of the wrong type
def mistyped(x: int) -> int:
    return x


@task
def load(path: str) -> list[int]:
    return [len(path)]


@task
def total(rows: list[int], scale: float = 1.0) -> int:
    return sum(rows)


@task
async def fetch(url: str) -> bytes:
    return url.encode()


@workflow
def flow(path: str, k: Static[int] = 3) -> int:
    rows = load.bind(7)  # mistake: an argument of the wrong type
    total.bind(load.bind(path), scal=2.0)  # mistake: an unknown argument
    total.bind(fetch.bind(path))  # mistake: the awaited value is of another type
    total.bind()  # mistake: a missing argument
    caught: int = total.options(catch=True).bind(rows)  # mistake: it may be a Failure
    Backoff("1s", factr=2)  # mistake: an unknown argument of a back-off
    total.bind([1], Secret("TOKEN"))  # mistake: a secret is text
    return load.bind(path)  # mistake: the workflow returns something else


def use(failure: Failure) -> None:
    flow.bind(path="x", k="3")  # mistake: a static parameter of the wrong type
    flow("x", 3, 4)  # mistake: too many arguments
    Trigger("a", flow)  # mistake: nothing to wait for
    Trigger("a", flow, on="in/*.csv")  # mistake: a text is no condition
    Trigger("a", flow, on=Event("a"), where=event.size)  # mistake: a fact is no filter
    Files("in/*.csv", existing="leave")  # mistake: an unknown word
