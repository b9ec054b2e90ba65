"""Verbs that keep a store small and whole: ``gc``, ``db upgrade``, ``db check``, ``db backup``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from perdure.cli.endings import ExitCode, UsageError, say
from perdure.cli.examples import epilog
from perdure.cli.flags import Verb, Verbs
from perdure.cli.session import JsonOption, StoreOption, TracebackOption

if TYPE_CHECKING:
    from perdure.client import Perdure
    from perdure.retention import GcReport, Policy
    from perdure_storage.checking import CheckReport

db = typer.Typer(
    cls=Verbs,
    help="Look after a store: `perdure db check`, `perdure db backup`, `perdure db upgrade`.",
    no_args_is_help=True,
)


# --- gc ---------------------------------------------------------------------------------------
def gc(
    keep: Annotated[
        str | None,
        typer.Option(metavar="AGE", help="Delete finished runs that ended longer ago: 30d."),
    ] = None,
    keep_last: Annotated[
        int | None,
        typer.Option(metavar="N", help="Delete all finished runs of a workflow but the newest N."),
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Delete only runs with this tag; repeatable."),
    ] = None,
    grace: Annotated[
        str, typer.Option(metavar="AGE", help="Leave alone what is younger than this.")
    ] = "24h",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would go; remove nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before runs are deleted.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Remove what nothing refers to any more; with --keep or --keep-last finished runs too.

    Safe while runs go on. With both rules a run stays if either keeps it. Live runs, and what they
    take over from others, always stay.
    """
    from perdure.cli.opening import open_existing
    from perdure.retention import collect, parse_policy

    policy = parse_policy(keep, keep_last, _tags(tag or []))
    with open_existing(store) as perdure:
        if policy.lets_go and not (yes or dry_run) and not _agreed(perdure, policy, grace):
            return ExitCode.FAILED
        report = collect(perdure.runtime, policy, grace=grace, dry_run=dry_run)
    if as_json:
        _print_json(report)
    else:
        _print_gc(report)
    return ExitCode.OK


def _tags(pairs: list[str]) -> dict[str, str]:
    split = [pair.partition("=") for pair in pairs]
    for name, equals, _ in split:
        if not (name and equals):
            raise UsageError(f"--tag {name!r} is no tag", "write --tag NAME=VALUE")
    return {name: value for name, _, value in split}


def _agreed(perdure: Perdure, policy: Policy, grace: str) -> bool:
    """Ask whether the runs that the policy lets go are to be deleted; true if there are none."""
    from perdure.retention import collect
    from perdure.words import count_of

    runs = collect(perdure.runtime, policy, grace=grace, dry_run=True).runs
    if not runs:
        return True
    shown = f"{', '.join(runs[:3])}{', ...' if len(runs) > 3 else ''}"
    what = f"{count_of(len(runs), 'run')} ({shown})"
    if not sys.stdin.isatty():
        raise UsageError(
            f"gc would delete {what} and nobody can be asked here",
            "say --yes to delete, or --dry-run to see what would go",
        )
    return typer.confirm(f"Delete {what} with their results?", err=True)


def _print_gc(report: GcReport) -> None:
    from perdure.words import count, count_of, duration, size

    done = "would go" if report.dry_run else "gone"
    for run_id in report.runs:
        print(f"run {run_id}")
    print(
        f"{done}: {count_of(len(report.runs), 'run')}, {count_of(report.blobs, 'blob')},"
        f" {count_of(report.files, 'stray file')}, {count_of(report.leftovers, 'folder')} of runs"
        f" that are gone; {size(report.size_bytes)}"
    )
    for reason, number in report.kept.items():
        print(f"kept, {reason}: {count(number)}")
    say(f"what is younger than {duration(report.grace_s)} was left alone (--grace)")


# --- db ---------------------------------------------------------------------------------------
@db.command("upgrade", cls=Verb, epilog=epilog("db upgrade"))
def upgrade(
    check: Annotated[
        bool, typer.Option("--check", help="Only say what is to be done; exit code 1 if anything.")
    ] = False,
    sql: Annotated[bool, typer.Option("--sql", help="Only print the SQL.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Bring a store's tables up to date. SQLite stores do that themselves when they are opened."""
    from perdure.settings import load_settings
    from perdure_storage import connect
    from perdure_storage.schema import CURRENT

    if check and sql:
        raise UsageError("--check and --sql are two ways not to upgrade: choose one")
    url = load_settings(store=store).store
    if sql:
        print(connect.upgrade_sql(url), end="")
        return ExitCode.OK
    pending = connect.pending_revisions(url) if check else connect.upgrade(url)
    if as_json:
        _print_json({"schema": CURRENT.head, "pending" if check else "applied": pending})
    elif check:
        print(f"lacks {', '.join(pending)}" if pending else f"up to date: {CURRENT.head}")
    else:
        applied = f", applied {', '.join(pending)}" if pending else ""
        print(f"up to date: {CURRENT.head}{applied}")
    return ExitCode.FAILED if check and pending else ExitCode.OK


@db.command("check", cls=Verb, epilog=epilog("db check"))
def check(
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every blob, not only look whether it is there.")
    ] = False,
    mend: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Mend references, put blobs back of which this host has a copy, and move others"
            " aside whose bytes are not theirs.",
        ),
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Look whether a store is whole: database, signatures, blobs. Exit code 1 if it is not.

    Exit code 2 if that cannot be looked at: the database cannot be read, the blobs are away.

    With --repair what can be mended here is, and then looked at again. Values of steps that are
    gone are made again by `perdure resume` of their runs.
    """
    from perdure.cli.opening import open_existing
    from perdure.results import outputs_in
    from perdure_storage.checking import check_store
    from perdure_storage.repairing import repair

    with open_existing(store) as perdure:
        rows, blobs = perdure.runtime.rows, perdure.runtime.blobs
        outputs = outputs_in(perdure.runtime)
        report = check_store(rows, blobs, deep=deep, outputs=outputs)
        if mend and (mended := repair(rows, blobs, report.problems)):
            for problem in mended:
                say(f"mended: {problem.message.partition('. ')[0]}")
            report = check_store(rows, blobs, deep=deep, outputs=outputs)
    if as_json:
        _print_json(report)
    else:
        _print_check(report)
    return ExitCode.FAILED if report.problems else ExitCode.OK


def _print_check(report: CheckReport) -> None:
    from perdure.words import count_of, size

    for problem in report.problems:
        print(f"{problem.kind}: {problem.message}")
    looked = "read" if report.deep else "looked for"
    print(
        f"{count_of(report.runs, 'run')} read, {count_of(report.blobs, 'blob')} {looked}"
        f" ({size(report.size_bytes)}): "
        + (count_of(len(report.problems), "problem") if report.problems else "all is well")
    )
    for problem in report.gone:
        say(f"{problem.kind}: {problem.message}")
    if report.orphans:
        orphans = f"{count_of(report.orphans, 'blob')} ({size(report.orphan_bytes)})"
        say(f"nothing refers to {orphans}: `perdure gc` takes what is old enough")


@db.command("rotate-key", cls=Verb, epilog=epilog("db rotate-key"))
def rotate_key(
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Have another key sign the rows of a store, old ones too, while runs go on.

    The file `key` gets a new one. Where keys are in PERDURE_KEY, say both wherever the store is
    used: PERDURE_KEY=OLD,NEW; of several the last one is the new one. Killed in the middle it goes
    on when it is asked again. Exit code 1 if there are rows whose signature fits neither key: they
    stay refused.
    """
    from perdure.cli.opening import open_existing
    from perdure.runtime import key_of
    from perdure.words import count, count_of
    from perdure_storage import rotation

    with open_existing(store) as perdure:
        report = rotation.rotate_key(perdure.runtime.rows, key_of(perdure.settings))
    if as_json:
        _print_json(report)
    else:
        for problem in report.problems:
            print(f"row: {problem}")
        print(
            f"key {report.key_id} signs in place of {report.before}:"
            f" {count_of(report.rows, 'row')} read, {count(report.renewed)} signed anew"
        )
        if report.is_in_file:
            say("backups of before need the old key, which is in their copy of the file `key`")
        else:
            say("take the old key out of PERDURE_KEY; backups of before still need it")
    return ExitCode.FAILED if report.problems else ExitCode.OK


@db.command("backup", cls=Verb, epilog=epilog("db backup"))
def backup(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="The file to make.", show_default=False)
    ] = None,
    listed: Annotated[
        bool, typer.Option("--list", help="List the backups that keep blobs from gc.")
    ] = False,
    release: Annotated[
        str | None, typer.Option(metavar="ID", help="Let gc have the blobs of a backup again.")
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
    traceback: TracebackOption = False,
) -> int:
    """Copy a SQLite store's database, while runs go on, and keep the blobs it names from gc.

    The blobs stay where they are until the backup is released. Keep a copy of the folder `blobs`
    and of the file `key` elsewhere too if the disk may be lost.
    """
    from perdure.cli.opening import open_existing

    if sum((file is not None, listed, release is not None)) != 1:
        raise UsageError("say one of FILE, --list and --release ID")
    with open_existing(store) as perdure:
        if file is not None:
            return _back_up(perdure, file.absolute(), as_json)
        if release is not None:
            return _release(perdure, release, as_json)
        return _list_backups(perdure, as_json)


def _back_up(perdure: Perdure, file: Path, as_json: bool) -> int:
    from perdure_storage.backups import back_up

    pin = back_up(perdure.runtime.rows, file, perdure.runtime.clock.now())
    if as_json:
        _print_json(pin)
    else:
        print(pin.id)
        say(f"backup {pin.id} is in {pin.note}; its blobs are kept from gc until")
        say(f"`perdure db backup --release {pin.id}`")
    return ExitCode.OK


def _release(perdure: Perdure, pin_id: str, as_json: bool) -> int:
    from perdure.errors import did_you_mean

    known = [pin.id for pin in perdure.runtime.store.list_pins()]
    if not perdure.runtime.store.unpin(pin_id):
        raise UsageError(
            f"no backup {pin_id!r}{did_you_mean(pin_id, known)}",
            "`perdure db backup --list` lists them",
        )
    if as_json:
        _print_json({"released": pin_id})
    else:
        say(f"backup {pin_id} is released: the next gc may remove what only it needs")
    return ExitCode.OK


def _list_backups(perdure: Perdure, as_json: bool) -> int:
    pins = perdure.runtime.store.list_pins()
    if as_json:
        _print_json(pins)
        return ExitCode.OK
    for pin in pins:
        there = "" if Path(pin.note).exists() else "  (the file is not there)"
        print(f"{pin.id}  {pin.at:%Y-%m-%d %H:%M} UTC  {pin.note}{there}")
    if not pins:
        say("no backup keeps blobs from gc")
    return ExitCode.OK


def _print_json(report: Any) -> None:
    print(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
