"""``perdure trigger ...``: what runs when something happens, and what became of what did."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import msgspec
import typer

from perdure.cli.completion import choices, trigger_names
from perdure.cli.endings import ExitCode, UsageError, say
from perdure.cli.examples import epilog
from perdure.cli.flags import Verb, Verbs
from perdure.cli.registered import (
    LimitOption,
    ModulesArgument,
    PausedOption,
    YesOption,
    may_remove,
)
from perdure.cli.session import JsonOption, StoreOption, TracebackOption

if TYPE_CHECKING:
    from perdure.client import Perdure
    from perdure.triggering import TriggerHandle

trigger = typer.Typer(
    cls=Verbs,
    help="Runs that begin when something happens: `perdure trigger ls`, `show NAME`, "
    "`arrivals NAME`; `perdure up` makes them.",
    no_args_is_help=True,
)

NameArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="A trigger's name, or a unique prefix of it.",
        autocompletion=trigger_names,
    ),
]
FactsOption = Annotated[
    str | None,
    typer.Option("--facts", metavar="JSON", help="What is known of it: JSON, or @FILE."),
]
ConditionOption = Annotated[
    str,
    typer.Option(
        "--condition", metavar="NAME", help="Which of all_of's or any_of's conditions it is for."
    ),
]
_SHOWN = 5


# --- look -----------------------------------------------------------------------------------------
@trigger.command("ls", cls=Verb, epilog=epilog("trigger ls"))
def list_triggers(
    paused: PausedOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """List triggers: what each waits for, what runs then, and what became of its last arrival."""
    from perdure.cli.opening import NoStoreYet, open_existing
    from perdure.cli.trigger_views import print_triggers, view_triggers
    from perdure.cli.views import to_json
    from perdure_scheduler.hearing import every_trigger
    from perdure_storage.trigger_records import TriggerQuery

    try:
        perdure = open_existing(store)
    except NoStoreYet as nothing:
        print("[]") if as_json else say(f"no triggers: {nothing}")
        return ExitCode.OK
    with perdure:
        triggers = perdure.runtime.store.triggers
        records = list(every_trigger(triggers, TriggerQuery(paused=paused)))
        views = view_triggers(perdure.runtime, records)
        if as_json:
            print(to_json(views))
        elif views:
            print_triggers(views, perdure.runtime.clock.now())
        else:
            say(f"no such triggers in {perdure.runtime.store.url}")
    return ExitCode.OK


@trigger.command("show", cls=Verb, epilog=epilog("trigger show"))
def show(
    name: NameArgument,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Show a trigger: what it waits for, its filter and inputs, and its last arrivals."""
    from perdure.cli.opening import open_existing
    from perdure.cli.trigger_views import print_detail, view_detail
    from perdure.cli.views import to_json

    with open_existing(store) as perdure:
        view = view_detail(perdure.runtime, _find(perdure, name).record)
        if as_json:
            print(to_json(view))
        else:
            print_detail(view, perdure.runtime.clock.now())
    return ExitCode.OK


@trigger.command("arrivals", cls=Verb, epilog=epilog("trigger arrivals"))
def arrivals(
    name: NameArgument,
    decision: Annotated[
        str | None,
        typer.Option(
            metavar="WHICH",
            help="Only those of which this became: fired, filtered, refused, held, ...",
            autocompletion=choices("decision"),
        ),
    ] = None,
    limit: LimitOption = 100,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Print what arrived, newest first: what became of it, why, and its run.

    With --json the facts of each arrival are there too.
    """
    from perdure.cli.opening import open_existing
    from perdure.cli.trigger_views import print_arrivals, view_arrivals
    from perdure.cli.views import to_json
    from perdure_storage.trigger_records import ArrivalQuery

    with open_existing(store) as perdure:
        handle = _find(perdure, name)
        query = ArrivalQuery(trigger=handle.name, decision=_verdict(decision), limit=limit)
        views = view_arrivals(perdure.runtime, query, with_facts=as_json)
        if as_json:
            print(to_json(views))
        elif views:
            print_arrivals(views, perdure.runtime.clock.now())
        else:
            such = "" if decision is None else f" that was {decision}"
            say(f"nothing{such} has arrived for {handle.name}, which stands so: {handle.standing}")
    return ExitCode.OK


def _verdict(text: str | None) -> str | None:
    from perdure.errors import known_names
    from perdure_scheduler.arriving import Verdict

    known = [str(each) for each in Verdict]
    if text is not None and text not in known:
        raise UsageError(f"--decision {text}{known_names(text, known)}")
    return text


@trigger.command("test", cls=Verb, epilog=epilog("trigger test"))
def foresee(
    name: NameArgument,
    facts: FactsOption = None,
    condition: ConditionOption = "",
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Say what would become of facts, or of the files that are there now. Nothing is changed.

    Without --facts the files of the trigger are listed, and what has arrived already is left out.
    """
    from perdure.cli.opening import open_existing
    from perdure.cli.trigger_views import print_foreseen, view_foreseen
    from perdure.cli.views import to_json
    from perdure_scheduler.arrival import Arrival

    with open_existing(store) as perdure:
        handle = _find(perdure, name)
        if facts is None:
            decisions = handle.foresee_listing()
        else:
            given = Arrival(key="test", facts=_read_facts(facts))
            decisions = handle.foresee([given], condition=condition)
        views = [view_foreseen(each) for each in decisions]
    if as_json:
        print(to_json(views))
    elif views:
        print_foreseen(views)
    else:
        say(f"nothing is there that has not arrived for {handle.name}")
    return ExitCode.OK


def _read_facts(text: str) -> dict[str, Any]:
    """Return facts from JSON, or from the file that ``@FILE`` names."""
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text()
        except (OSError, UnicodeDecodeError, ValueError) as error:
            raise UsageError(f"--facts {text}: {error}") from None
    try:
        facts = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise UsageError(
            f"--facts: {error}", 'write JSON: --facts \'{"path": "in/a.csv"}\', or @FILE'
        ) from None
    if not isinstance(facts, dict):
        raise UsageError("--facts: facts are a JSON object", '--facts \'{"path": "in/a.csv"}\'')
    return cast("dict[str, Any]", facts)


# --- change ---------------------------------------------------------------------------------------
@trigger.command("register", cls=Verb, epilog=epilog("trigger register"))
def register(
    modules: ModulesArgument,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Register what modules declare, schedules too, and pause what they no longer declare.

    Imports them. To register again what is there changes nothing. `perdure up MODULE...` does it
    before it serves.
    """
    from perdure.cli.registering import register_modules

    return register_modules(modules, store, as_json=as_json)


@trigger.command("pause", cls=Verb, epilog=epilog("trigger pause"))
def pause(
    name: NameArgument,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Why; it stands with what arrives meanwhile.")
    ] = "by hand",
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Let a trigger make no run until it is resumed; what arrives meanwhile is kept for then."""
    from perdure.cli.opening import open_existing

    with open_existing(store) as perdure:
        handle = _find(perdure, name)
        handle.pause(reason)
        _tell(perdure, handle, as_json=as_json)
    return ExitCode.OK


@trigger.command("resume", cls=Verb, epilog=epilog("trigger resume"))
def resume(
    name: NameArgument,
    skip: Annotated[
        bool, typer.Option("--skip", help="Make no runs of what arrived meanwhile.")
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Let a paused trigger go on; what arrived meanwhile is decided now, in its order."""
    from perdure.cli.opening import open_existing

    with open_existing(store) as perdure:
        handle = _find(perdure, name)
        handle.resume(skip=skip)
        _tell(perdure, handle, as_json=as_json)
    return ExitCode.OK


@trigger.command("fire", cls=Verb, epilog=epilog("trigger fire"))
def fire(
    name: NameArgument,
    facts: Annotated[
        str, typer.Option("--facts", metavar="JSON", help="What is known of it: JSON, or @FILE.")
    ] = "{}",
    key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY", help="Names the arrival: the same one counts once; default: the time."
        ),
    ] = None,
    condition: ConditionOption = "",
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Bring an arrival by hand, as if it had happened: filter and inputs apply to it."""
    from perdure.cli.opening import open_existing
    from perdure.cli.views import to_json
    from perdure_scheduler.arriving import Verdict

    with open_existing(store) as perdure:
        handle = _find(perdure, name)
        receipt = handle.fire(_read_facts(facts), key=key, condition=condition)
    code = ExitCode.FAILED if receipt.decision == Verdict.REFUSED else ExitCode.OK
    if as_json:
        print(to_json(receipt))
        return code
    again = "" if receipt.is_new else " already, earlier"
    run = f": `perdure show {receipt.run_id}`" if receipt.run_id is not None else ""
    say(f"{receipt.decision}{again}: {receipt.reason}{run}")
    return code


@trigger.command("rm", cls=Verb, epilog=epilog("trigger rm"))
def remove(
    name: NameArgument,
    yes: YesOption = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Remove a trigger with its arrivals; its runs stay. There is no way back.

    What a module declares comes back when that module is registered again, as a new trigger: of
    files that are still there it makes other runs, unless existing="skip".
    """
    from perdure.cli.opening import open_existing
    from perdure.cli.views import to_json

    with open_existing(store) as perdure:
        handle = _find(perdure, name)
        if not may_remove("trigger", handle.name, "arrivals", yes=yes):
            return ExitCode.FAILED
        handle.remove()
    if as_json:
        print(to_json({"name": handle.name, "removed": True}))
    else:
        say(f"trigger {handle.name} is removed; its runs stay")
    return ExitCode.OK


def _tell(perdure: Perdure, handle: TriggerHandle, *, as_json: bool) -> None:
    """Say how a trigger stands now."""
    from perdure.cli.trigger_views import view_triggers
    from perdure.cli.views import to_json

    if as_json:
        [view] = view_triggers(perdure.runtime, [handle.record])
        print(to_json(view))
    else:
        say(f"{handle.name}: {handle.standing}")


def _find(perdure: Perdure, text: str) -> TriggerHandle:
    """Return the trigger that ``text`` names: by its name, or a unique prefix of it.

    Raises:
        TriggerNotFound: there is none.
        UsageError: several begin with it.
    """
    from perdure.cli.naming import by_prefix
    from perdure_storage.trigger_records import TriggerQuery

    triggers = perdure.runtime.store.triggers

    def begin_so(prefix: str, limit: int) -> list[str]:
        page = triggers.list_triggers(TriggerQuery(name_prefix=prefix, limit=limit))
        return [each.name for each in page]

    return perdure.get_trigger(by_prefix(text, begin_so, "triggers"))
