"""A program whose steps let a secret slip everywhere a step can say something."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from tests.acceptance import traced_steps  # noqa: F401 - sets OpenTelemetry up in every process

import perdure
from perdure import Secret, actor, current, task

NAME = "SWEPT_TOKEN"


class Refusal(Exception):
    """Says nothing of what it holds."""

    def __init__(self, held: str) -> None:
        super().__init__()
        self.held = held

    def __str__(self) -> str:
        return "refused"


@dataclass
class Login:
    user: str
    token: Any


def _say(token: str) -> None:
    print("printed", token)
    print("repr", repr(token), {"token": token})
    sys.stderr.write(f"to stderr {token}\n")
    logging.getLogger("users").warning("logged %s", token)
    current().progress(1, 2, f"told {token}")


def _chained(token: str) -> Exception:
    try:
        raise ValueError(f"the first {token}")
    except ValueError as first:
        error = RuntimeError(f"raised {token!r}")
        error.__cause__ = first
        error.add_note(f"noted {token}")
        return error


@task
def says(token: str) -> int:
    _say(token)
    subprocess.run([sys.executable, "-c", "import sys; print(sys.argv[1])", token], check=True)
    return 1


@task
def logs_in(login: Login) -> int:
    _say(login.token)
    return 2


@task(catch=True)
def raises(token: str) -> int:
    raise _chained(token)


@task(catch=True)
def holds(token: str) -> int:
    raise Refusal(token)


@task(catch=True)
def groups(token: str) -> int:
    raise ExceptionGroup(f"several {token}", [_chained(token), KeyError(token)])


@task(catch=True)
def long_winded(token: str) -> int:
    for before in range(0, 5_000, 7):
        print("." * (before % 97) + token, end="")
    raise ValueError("x" * 9_990 + token + "y" * 500)


@task(catch=True)
def gives_what_cannot_be_stored(token: str) -> Any:
    class Holder:
        def __init__(self) -> None:
            self.lock = contextlib.ExitStack()
            self.file = sys.stdin

        def __repr__(self) -> str:
            return f"Holder({token})"

        def __reduce__(self) -> Any:
            raise TypeError(f"cannot pickle the holder of {token}")

    return Holder()


def _is_worth_it(error: BaseException) -> bool:
    raise LookupError(f"the predicate met {error}")


@task(catch=True, retries=1, retry_on=_is_worth_it)
def judged(token: str) -> int:
    raise ValueError(f"to be judged {token}")


@task
def item(n: int, token: str) -> int:
    print(f"item {n} {token}")
    return n


@task
def item_of_login(n: int, login: Login) -> int:
    print(f"item {n} {login}")
    return n


@task(retries=1)
def item_that_fails(n: int, token: str) -> int:
    print(f"item {n} {token}")
    if current().attempt == 1:
        raise ValueError(f"item {n} with {token}")
    return len(token)


@task
def binds_on(token: str) -> Any:
    return logs_in.bind({"deep": [Login("me", token)]}["deep"][0])


@actor(state="rebuild")
class Client:
    def __init__(self, token: str) -> None:
        print("made with", token)
        self.token = token

    def ask(self, n: int) -> int:
        print("asked with", self.token, flush=True)
        return n


@task(catch=True)
def is_lost(token: str) -> int:
    import os

    print("before it dies", token, flush=True)
    os._exit(3)


@task
def fails(token: str) -> int:
    raise _chained(token)


def dag() -> list[Any]:
    """Return all but the step that fails the run."""
    token = Secret(NAME)
    return [
        says.bind(token),
        logs_in.bind(Login("me", token)),
        raises.bind(token),
        holds.bind(token),
        groups.bind(token),
        long_winded.bind(token),
        gives_what_cannot_be_stored.bind(token),
        judged.bind(token),
        item.map([1, 2], token=token),
        item_of_login.map([1, 2], login=Login("me", token)),
        item_that_fails.options(chunk=2).map([1, 2, 3], token=token),
        binds_on.bind(token),
        Client.bind(token).ask.bind(3),
        is_lost.options(lost_retries=0).bind(token),
    ]


def main() -> None:
    """Run them all, and then one that fails its run."""
    with perdure.open("perdure.db", executor="processes", workers=2) as store:
        store.run(dag(), run_id="slips")
        try:
            store.run(fails.bind(Secret(NAME)), run_id="fails")
        except perdure.RunFailed as error:
            print(error, "caused by", repr(error.__cause__))
