"""What people type: examples of each verb, for its ``--help`` and for the documents."""

from __future__ import annotations

Example = tuple[str, str]
"""A command and what it does."""

EXAMPLES: dict[str, tuple[Example, ...]] = {
    "run": (
        ("perdure run pipeline.py", "the only workflow of a file"),
        ("perdure run --id iris-1 pipeline.py:iris --k 5", "by name, with an id and a parameter"),
        ("perdure run package.module:iris --xs 1 --xs 2 --no-shuffle", "a list and a flag"),
        ("perdure run --reuse last pipeline.py", "take over what has not changed"),
        ("perdure run --detach pipeline.py", "leave it to `perdure up`"),
        ("perdure run --queue gpu --detach pipeline.py", "in its turn"),
        ("perdure run pipeline.py --help", "the workflow's own parameters"),
    ),
    "resume": (
        ("perdure resume iris-1", "go on after a kill, a Ctrl-C, a cancel or a pause"),
        ("perdure resume iris-1 --code current", "after you have mended your code"),
        ("perdure resume -", "the last run"),
    ),
    "rerun": (
        ("perdure rerun iris-1", "all of it again, as a new run, with today's code"),
        ("perdure rerun iris-1 --new-id iris-2 --input k=4", "another id, another parameter"),
    ),
    "fork": (
        ("perdure fork iris-1", "a new run: only what your edits reach runs"),
        ("perdure fork iris-1 --from train", "that step and all that follows from it"),
        ("perdure fork iris-1 --force failed --on-change reuse", "only what failed"),
        ("perdure fork iris-1 --force 'parse[a.csv]' --force 'fit[*]'", "items of maps"),
        ("perdure fork iris-1 --override train=0.5 --input k=4", "a value in place of a step"),
    ),
    "spin": (
        ("perdure spin iris-1 train", "that step alone, with what it took; nothing is kept"),
        ("perdure spin iris-1 'parse[3]'", "one item of a map"),
    ),
    "up": (
        ("perdure up", "drive what `--detach` recorded and what others left behind"),
        ("perdure up --workers 4", "with four CPUs"),
        ("perdure up package.flows", "and the schedules and triggers that this module declares"),
        ("perdure up flow.py --port 8080", "and its workflows over HTTP at another port"),
    ),
    "queue ls": (
        ("perdure queue ls", "limits, how many run and wait, and since when"),
        ("perdure queue ls --json", "for a program"),
    ),
    "queue show": (("perdure queue show gpu", "who has its slots, and who waits, by key"),),
    "queue set": (
        ("perdure queue set gpu --limit 2", "two of its runs at a time, on all hosts together"),
        ("perdure queue set api --rate 100/1m", "100 runs begin in any minute"),
        ("perdure queue set gpu --limit 4 --limit-per-key 1", "one at a time of each key"),
        ("perdure queue set gpu --limit none", "any number"),
    ),
    "queue rm": (("perdure queue rm gpu", "its limits; its runs go on without them"),),
    "schedule ls": (
        ("perdure schedule ls", "when each is due next, and how its last run went"),
        ("perdure schedule ls --paused --json", "those that are paused, for a program"),
    ),
    "schedule show": (("perdure schedule show nightly", "policies, next times, last ticks"),),
    "schedule ticks": (
        ("perdure schedule ticks nightly --limit 10", "what became of its last times, and why"),
    ),
    "schedule next": (
        ("perdure schedule next nightly -n 3", "its next three times"),
        ("perdure schedule next nightly --at 2026-03-28", "from that day on"),
    ),
    "schedule test": (
        (
            "perdure schedule test '0 2 * * mon-fri' --tz Europe/Berlin --at 2026-03-27",
            "over the night on which the clocks go forward",
        ),
        ("perdure schedule test 'last business day at 18:00' -n 12", "a year of month's ends"),
        ("perdure schedule test --at 2026-12-24 -n 20", "all that is due from that day on"),
    ),
    "schedule register": (
        ("perdure schedule register package.flows", "what that module declares"),
        ("perdure schedule register flows.py", "what a file declares"),
    ),
    "schedule pause": (
        ("perdure schedule pause nightly --reason 'the source moves'", "until it is resumed"),
    ),
    "schedule resume": (("perdure schedule resume nightly", "from now on"),),
    "schedule trigger": (
        ("perdure schedule trigger nightly", "a run now; it does not move the next tick"),
        ("perdure schedule trigger nightly --day 2026-03-01", "the runs of that day, now"),
    ),
    "schedule backfill": (
        ("perdure schedule backfill nightly --from 2026-01-01 --dry-run", "what it would make"),
        (
            "perdure schedule backfill nightly --from 2026-01-01 --to 2026-01-31 --max-active 2",
            "a month, two runs at a time",
        ),
        (
            "perdure schedule backfill nightly --from 2026-01-01 --reprocess failed",
            "another run for each that failed",
        ),
    ),
    "schedule rm": (
        ("perdure schedule rm nightly", "asks first"),
        ("perdure schedule rm nightly --yes", "where nobody can answer"),
    ),
    "trigger ls": (
        ("perdure trigger ls", "what each waits for, and what became of its last arrival"),
        ("perdure trigger ls --paused --json", "those that are paused, for a program"),
    ),
    "trigger show": (("perdure trigger show landed", "filter, inputs, last arrivals"),),
    "trigger arrivals": (
        ("perdure trigger arrivals landed --limit 10", "what became of the last ones, and why"),
        ("perdure trigger arrivals landed --decision filtered", "what did not pass where="),
    ),
    "trigger test": (
        ("perdure trigger test landed", "what would become of the files that are there now"),
        ("perdure trigger test pushed --facts @delivery.json", "of facts in a file"),
    ),
    "trigger register": (
        ("perdure trigger register package.flows", "what that module declares"),
        ("perdure trigger register flows.py", "what a file declares"),
    ),
    "trigger pause": (
        ("perdure trigger pause landed --reason 'the disk moves'", "until it is resumed"),
    ),
    "trigger resume": (
        ("perdure trigger resume landed", "with what arrived meanwhile"),
        ("perdure trigger resume landed --skip", "without it"),
    ),
    "trigger fire": (
        ('perdure trigger fire landed --facts \'{"path": "in/a.csv"}\'', "as if it had landed"),
        ("perdure trigger fire pushed --facts @delivery.json --key 17", "at most once"),
    ),
    "trigger rm": (
        ("perdure trigger rm landed", "asks first"),
        ("perdure trigger rm landed --yes", "where nobody can answer"),
    ),
    "doctor": (
        ("perdure doctor", "what is wrong here, and how to mend it"),
        ("perdure doctor --store /data/perdure.db --json", "another store, for a program"),
    ),
    "ls": (
        ("perdure ls", "all runs, newest first"),
        ("perdure ls --status failed --since 2d", "what failed since the day before yesterday"),
        ("perdure ls --tag team=a --json", "for a program"),
    ),
    "top": (
        ("perdure top", "what runs now, and who drives it"),
        ("perdure top --once", "one look, as in a script"),
        ("perdure top --json", "for a program"),
    ),
    "show": (
        ("perdure show iris-1", "a run and its steps"),
        ("perdure show iris-1 train", "the attempts of one step"),
        ("perdure show - --json", "the last run, for a program"),
    ),
    "logs": (
        ("perdure logs iris-1", "what all steps printed"),
        ("perdure logs iris-1 train -f", "one step, while it goes on"),
    ),
    "report": (
        ("perdure report iris-1", "into iris-1.html, to be opened in a browser"),
        ("perdure report - -o run.html", "the last run"),
        ("perdure report iris-1 -o -", "to the standard output"),
    ),
    "why": (
        ("perdure why iris-1 train", "why that step ran, was taken over or waits"),
        ("perdure why iris-1 parse --json", "of a map, for a program: which items failed"),
    ),
    "explain": (
        ("perdure explain pipeline.py --reuse last", "what that run would take over"),
        ("perdure explain pipeline.py --reuse last --k 5", "with a parameter of the workflow"),
        ("perdure explain iris-1", "what a resume would run"),
        ("perdure explain iris-1 --from train", "what a fork would run, and why"),
        ("perdure explain iris-1 --force failed --on-change reuse", "which items it would redo"),
        ("perdure explain iris-1 --verb rerun --json", "for a program"),
    ),
    "plan": (("perdure plan iris-1 --verb fork", "the same as `perdure explain`"),),
    "diff": (
        ("perdure diff iris-1 iris-2", "parameters, code, steps and values"),
        ("perdure diff iris-1 -", "with the last run"),
        ("perdure diff iris-1 iris-1", "steps that were computed twice: before and after"),
    ),
    "cat": (
        ("perdure cat iris-1", "the result of the run"),
        ("perdure cat iris-1 load", "the value of one step: its shape, its first rows"),
    ),
    "get": (
        ("perdure get iris-1 -o labels.json", "the result of the run, as JSON"),
        ("perdure get iris-1 load -o rows.parquet", "a table; .csv and .arrow too"),
        ("perdure get iris-1 report -o -", "to the standard output"),
    ),
    "cancel": (("perdure cancel iris-1", "its processes end; `perdure resume iris-1` goes on"),),
    "pause": (("perdure pause iris-1", "start nothing more; `perdure resume iris-1` goes on"),),
    "signal": (
        ("perdure signal iris-1 approve --value true", "for its `wait_signal('approve')`"),
        ("perdure signal iris-1 order --value '{\"n\": 3}' --dedup-key 17", "once, however often"),
    ),
    "emit": (
        ("perdure emit landed --payload '[1, 2]'", "for every `wait_event('landed')`"),
        ("perdure emit landed --match file=a.csv", "for those that wait for that file"),
    ),
    "delete": (
        ("perdure delete iris-1", "asks first"),
        ("perdure delete --yes iris-1", "where nobody can answer"),
    ),
    "demo": (
        ("perdure demo", "in perdure-demo/, which stays for you to play with"),
        ("perdure demo --folder /tmp/elsewhere", "in another folder"),
    ),
    "export": (
        ("perdure export iris-1 -o iris-1.perdure", "all of it, in one file"),
        ("perdure export - -o last.perdure --force", "the last run, over a file that is there"),
    ),
    "import": (
        ("perdure import iris-1.perdure", "into the store of this folder"),
        ("perdure import --trust iris-1.perdure", "with pickled values: you know who made it"),
        ("perdure import iris-1.perdure --as iris-of-anna", "under another id"),
    ),
    "gc": (
        ("perdure gc", "remove what nothing refers to"),
        ("perdure gc --keep 30d --keep-last 100 --dry-run", "what such a policy would delete"),
        ("perdure gc --keep 7d --tag env=test --yes", "without asking, as in a cron job"),
    ),
    "db upgrade": (
        ("perdure db upgrade", "after `pip install -U perdure`"),
        ("perdure db upgrade --check", "look only"),
        ("perdure db upgrade --sql", "for who runs the SQL by hand"),
    ),
    "db check": (
        ("perdure db check", "database, signatures, and whether each blob is there"),
        ("perdure db check --deep", "read every blob too"),
        ("perdure db check --deep --repair", "mend what can be mended here"),
    ),
    "db rotate-key": (
        ("perdure db rotate-key", "runs may go on meanwhile"),
        ("PERDURE_KEY=OLD,NEW perdure db rotate-key", "where keys are not in a file"),
    ),
    "db backup": (
        ("perdure db backup /backups/perdure.db", "copy the database, runs may go on"),
        ("perdure db backup --list", "the backups that keep blobs from gc"),
        ("perdure db backup --release ID", "let gc have those blobs again"),
    ),
    "config show": (
        ("perdure config show", "the settings in force here"),
        ("perdure config show --origin", "and where each of them comes from"),
    ),
}


def epilog(verb: str) -> str | None:
    """Return the examples of a verb as the end of its help, or None where there are none."""
    examples = EXAMPLES.get(verb, ())
    lines = [
        f"  {_plain(command)}\n    [dim]{_plain(meaning)}[/dim]" for command, meaning in examples
    ]
    return "\n".join(["[bold]Examples[/bold]", *lines]) if lines else None


def _plain(text: str) -> str:
    """Escape what Rich would take for markup; Rich itself is imported for help only."""
    return text.replace("[", "\\[")
