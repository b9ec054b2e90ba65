"""``perdure queue ...``: how many runs go on at a time, who does, and who waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from perdure.cli.completion import queue_names
from perdure.cli.endings import ExitCode, UsageError, say
from perdure.cli.examples import epilog
from perdure.cli.flags import Verb, Verbs
from perdure.cli.session import JsonOption, StoreOption, TracebackOption

if TYPE_CHECKING:
    from datetime import datetime

    from perdure.runtime import Runtime
    from perdure_storage.queue_records import QueueRecord

queue = typer.Typer(
    cls=Verbs,
    help="Runs that begin in their turn: `perdure queue ls`, `show NAME`, `set NAME --limit 2`.",
    no_args_is_help=True,
)

NameArgument = Annotated[
    str,
    typer.Argument(metavar="NAME", help="The queue's name.", autocompletion=queue_names),
]
_NONE = "none"
_DIGITS = 10


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    """How a key of a queue stands."""

    key: str
    running: int
    waiting: int


class QueueView(msgspec.Struct, frozen=True, kw_only=True):
    """A queue as the verbs show it; ``keys`` and ``holders`` with ``show``.

    Attributes:
        window_s: within how many seconds ``rate`` runs begin.
        running: runs that have a slot.
        waiting, delayed: runs that could begin, and runs whose time has not come.
        oldest: when the run was made that has waited longest.
        starts: runs that have begun in the window that ends now.
        opens_at: when the rate lets the next one begin.
    """

    name: str
    limit: int | None
    limit_per_key: int | None
    rate: int | None
    window_s: float | None
    running: int
    waiting: int
    delayed: int
    oldest: datetime | None
    starts: int
    opens_at: datetime | None
    keys: list[KeyView] = []
    holders: list[str] = []


@queue.command("ls", cls=Verb, epilog=epilog("queue ls"))
def list_queues(
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """List queues: their limits, how many runs go on and wait, and since when."""
    from perdure.cli.opening import NoStoreYet, open_existing
    from perdure.cli.views import to_json

    try:
        perdure = open_existing(store)
    except NoStoreYet as nothing:
        print("[]") if as_json else say(f"no queues: {nothing}")
        return ExitCode.OK
    with perdure:
        queues = perdure.runtime.store.queues.list_queues()
        views = [_view(perdure.runtime, each) for each in queues]
        if as_json:
            print(to_json(views))
        elif views:
            _print_all(views, queues, perdure.runtime.clock.now())
        else:
            say(f"no queues in {perdure.runtime.store.url}: `perdure queue set NAME --limit 2`")
    return ExitCode.OK


@queue.command("show", cls=Verb, epilog=epilog("queue show"))
def show(
    name: NameArgument,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Show a queue: its limits, who has its slots, and who waits, by key."""
    from perdure.cli.opening import open_existing
    from perdure.cli.views import to_json

    with open_existing(store) as perdure:
        found = _find(perdure.runtime, name)
        view = _view(perdure.runtime, found)
        if as_json:
            print(to_json(view))
        else:
            _print_one(view, found, perdure.runtime.clock.now())
    return ExitCode.OK


@queue.command("set", cls=Verb, epilog=epilog("queue set"))
def set_queue(
    name: NameArgument,
    limit: Annotated[
        str | None,
        typer.Option(metavar="N", help="How many of its runs go on at a time; none: any number."),
    ] = None,
    limit_per_key: Annotated[
        str | None, typer.Option(metavar="N", help="The same of those with one limit key.")
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(
            metavar="N/TIME", help="How many begin within a time, up to 36500d: 100/1m; none: any."
        ),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Set limits of a queue, or make it; what is not named stays as it is.

    They hold from the next run that begins, on every host. What a module declares takes their
    place when its declaration changes.
    """
    from perdure.cli.opening import open_store
    from perdure.cli.views import to_json
    from perdure.queueing import said_limits, set_limits
    from perdure.queues import check_name

    check_name(name)
    changes: dict[str, Any] = {}
    for option, text in (("limit", limit), ("limit_per_key", limit_per_key)):
        if text is not None:
            changes[option] = _number(option, text)
    if rate is not None:
        changes["rate"], changes["window"] = _rate(name, rate)
    with open_store(store) as perdure:
        runtime = perdure.runtime
        put = set_limits(runtime.store, name, changes, runtime.clock.now())
        if as_json:
            print(to_json(_view(runtime, put)))
        else:
            say(f"queue {name}: {said_limits(put)}")
    return ExitCode.OK


@queue.command("rm", cls=Verb, epilog=epilog("queue rm"))
def remove(
    name: NameArgument,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Remove a queue's limits; its runs stay, and begin without them."""
    from perdure.cli.opening import open_existing
    from perdure.cli.views import to_json

    with open_existing(store) as perdure:
        view = _view(perdure.runtime, _find(perdure.runtime, name))
        perdure.runtime.store.queues.remove_queue(name)
        if as_json:
            print(to_json(view))
        else:
            waiting = view.waiting + view.delayed
            left = f": {waiting} waiting runs begin without its limits" if waiting else ""
            say(f"queue {name} is removed{left}")
    return ExitCode.OK


def _find(runtime: Runtime, name: str) -> QueueRecord:
    from perdure.errors import known_names

    found = runtime.store.queues.find_queue(name)
    if found is None:
        known = [each.name for each in runtime.store.queues.list_queues()]
        raise UsageError(
            f"no queue {name!r} in {runtime.store.url}{known_names(name, known)}. "
            f"`perdure queue set {name} --limit 2` makes it"
        )
    return found


def _number(option: str, text: str) -> int | None:
    if text == _NONE:
        return None
    if not text.isdecimal() or len(text) > _DIGITS or int(text) >= 2**31:
        flag = option.replace("_", "-")
        raise UsageError(f"--{flag} {text}: write a whole number, such as --{flag} 2, or none")
    return int(text)


def _rate(name: str, text: str) -> tuple[int | None, Any]:
    from perdure.queues import Queue

    if text == _NONE:
        return None, None
    number, slash, window = text.partition("/")
    if not slash or not number.isdecimal() or len(number) > _DIGITS:
        raise UsageError(f"--rate {text}: write how many within which time: --rate 100/1m, or none")
    declared = Queue(name, rate=(int(number), window))
    return declared.rate, declared.window


def _view(runtime: Runtime, found: QueueRecord) -> QueueView:
    standing = runtime.store.queues.standing(found.name)
    return QueueView(
        name=found.name,
        limit=found.limit,
        limit_per_key=found.limit_per_key,
        rate=found.rate,
        window_s=None if found.window is None else found.window.total_seconds(),
        running=standing.running,
        waiting=standing.waiting,
        delayed=standing.delayed,
        oldest=standing.oldest,
        starts=standing.starts,
        opens_at=standing.opens_at,
        keys=[
            KeyView(key=key.key, running=key.running, waiting=key.waiting) for key in standing.keys
        ],
        holders=list(standing.holders),
    )


def _print_all(views: list[QueueView], queues: list[QueueRecord], now: datetime) -> None:
    from perdure import words
    from perdure.cli.tables import columns, console, plain
    from perdure.queueing import said_limits

    table = columns("QUEUE", "LIMITS", "RUNNING", "WAITING", "DELAYED", "OLDEST")
    for view, found in zip(views, queues, strict=True):
        oldest = "" if view.oldest is None else words.age(view.oldest, now)
        counts = (view.running, view.waiting, view.delayed)
        limits = plain(said_limits(found))
        table.add_row(plain(view.name), limits, *(words.count(n) for n in counts), oldest)
    console().print(table)


def _print_one(view: QueueView, found: QueueRecord, now: datetime) -> None:
    from perdure import words
    from perdure.cli.tables import columns, console, facts_table, plain
    from perdure.queueing import said_limits

    facts = facts_table()
    facts.add_row("queue", plain(view.name))
    facts.add_row("limits", plain(said_limits(found)))
    facts.add_row("running", words.count(view.running))
    if view.holders:
        facts.add_row("", plain(", ".join(view.holders)))
    facts.add_row("waiting", words.count(view.waiting))
    if view.oldest is not None:
        facts.add_row("oldest", f"made {words.age(view.oldest, now)}")
    if view.delayed:
        facts.add_row("delayed", words.count(view.delayed))
    if view.opens_at is not None:
        facts.add_row("next begins", f"{view.opens_at:%Y-%m-%d %H:%M:%S} UTC: the rate is used up")
    console().print(facts)
    if any(key.key for key in view.keys):
        table = columns("KEY", "RUNNING", "WAITING")
        for key in view.keys:
            table.add_row(plain(key.key or "-"), words.count(key.running), words.count(key.waiting))
        console().print(table)
