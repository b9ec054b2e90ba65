"""Every verb of the command line, good and bad, in real processes over one prepared store.

A verb that is added without a good and a bad case here, without examples or without ``--json``
fails a test.
"""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import dropwhile
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import typer
from tests.crash.ledger import wait_until

from perdure.cli import main
from perdure.cli.app import app
from perdure.cli.examples import EXAMPLES
from perdure.cli.session import Session

W = dedent(
    '''
    from dataclasses import dataclass
    from datetime import timedelta
    from perdure import Event, Files, Schedule, Trigger, event, task, workflow

    @task
    def double(n: int) -> int:
        print("doubling", n)
        return 2 * n

    @workflow
    def doubles(k: int = 3) -> int:
        return double.bind(k)

    weekly = Schedule("weekly", doubles, cron="0 9 * * mon", tz="Europe/Berlin")
    said = Trigger("said", doubles, on=Event("go"), inputs={"k": event.payload})

    @dataclass
    class Rates:
        low: float = 0.1
        names: list[str] | None = None

    @workflow
    def triples(
        n_max: int,
        name: str,
        rates: Rates = Rates(),
        pause: timedelta = timedelta(minutes=5),
        fast: bool = True,
        xs: tuple[int, ...] = (),
    ) -> int:
        """Treble it."""
        return double.bind(n_max)
    '''
)
PREPARE = dedent(
    """
    import perdure
    from perdure import Event, Files, Queue, event
    from perdure.queueing import register
    from perdure.target import load_target

    doubles = load_target("w.py:doubles")
    with perdure.open(executor="inline") as store:
        doubles.run(run_id="one")
        store.export_run("one", "one.perdure")
        for run_id in ("cancelled", "deleted"):
            doubles.submit(run_id=run_id)
            store.cancel(run_id)
        for run_id in ("to-cancel", "to-pause"):
            doubles.submit(run_id=run_id)
        for name in ("nightly", "to-keep", "to-pause", "to-remove"):
            store.schedule(name, doubles, cron="0 2 * * *", tz="Europe/Berlin")
        store.get_schedule("to-pause").pause("the source moves")
        for name in ("narrow", "to-remove"):
            register(store.runtime.store, Queue(name, limit=1), store.runtime.clock.now())
        for name in ("landed", "moved", "moving", "to-go"):
            inputs = {"k": event.size}
            on = Files("*.py", existing="skip")
            store.trigger(name, doubles, on=on, where=event.size > 9, inputs=inputs)
        store.trigger("asked", doubles, on=Event("asked"))
        store.get_trigger("moved").pause("the disk moves")
        store.get_trigger("landed").fire({"size": 3}, key="small.py")
    """
)


@dataclass(frozen=True)
class Case:
    """A command line, what must be in its output, and how it ends."""

    words: str
    said: str
    code: int = 0


GOOD = {
    "run": Case("run --id new --executor inline w.py:doubles --k 4", "8"),
    "resume": Case("resume --executor inline cancelled", "6"),
    "rerun": Case("rerun one --new-id again --input k=5", "10"),
    "fork": Case("fork one --new-id forked --override double=7", "7"),
    "spin": Case("spin one double", "6"),
    "explain": Case("explain one --from double", "the fork runs again from here"),
    "plan": Case("plan w.py:doubles --reuse one", "taken over from one"),
    "diff": Case("diff one one", "no step was computed again"),
    "queue ls": Case("queue ls", "1 at a time"),
    "queue show": Case("queue show narrow", "limits   1 at a time"),
    "queue set": Case("queue set wide --rate 10/1m", "queue wide: 10 begin in 1 min"),
    "queue rm": Case("queue rm to-remove", "queue to-remove is removed"),
    "schedule ls": Case("schedule ls", "paused: the source moves"),
    "schedule show": Case("schedule show nightly", "queue(max=1)"),
    "schedule ticks": Case("schedule ticks nightly", "no tick of nightly has come yet"),
    "schedule next": Case("schedule next nig --at 2026-03-28 -n 2", "03:00 CEST (01:00 UTC)"),
    "schedule test": Case(
        "schedule test '30 2 * * *' --tz Europe/Berlin --at 2026-03-29 -n 1", "did not exist"
    ),
    "schedule register": Case("schedule register w.py", "new       weekly: next Mon"),
    "schedule pause": Case("schedule pause to-pa --reason x", "to-pause: paused since"),
    "schedule resume": Case("schedule resume to-pause", "to-pause: next"),
    "schedule trigger": Case("schedule trigger nightly", "run nightly-manual-2"),
    "schedule backfill": Case(
        "schedule backfill nightly --from 2026-03-28 --to 2026-03-29 --reprocess failed",
        "run nightly-20260329T010000Z is made: it had no run",
    ),
    "schedule rm": Case("schedule rm to-remove --yes", "to-remove is removed"),
    "trigger ls": Case("trigger ls", "paused: the disk moves"),
    "trigger show": Case("trigger show landed", "existing=skip"),
    "trigger arrivals": Case("trigger arrivals landed --decision filtered", "it is 3"),
    "trigger test": Case("trigger test landed", "baseline"),
    "trigger register": Case("trigger register w.py", "said: waits for event go"),
    "trigger pause": Case("trigger pause land --reason x", "landed: paused since"),
    "trigger resume": Case("trigger resume moved --skip", "moved: waits for files"),
    "trigger fire": Case("trigger fire asked --key 17", "fired: "),
    "trigger rm": Case("trigger rm to-go --yes", "to-go is removed"),
    "ls": Case("ls --status succeeded", "one"),
    "top": Case("top --once", "to-cancel"),
    "show": Case("show one", "double"),
    "logs": Case("logs one double", "doubling 3"),
    "report": Case("report one", "to one.html"),
    "why": Case("why one double", "double"),
    "cat": Case("cat one", "6"),
    "get": Case("get one -o result.json", "result.json"),
    "cancel": Case("cancel to-cancel", "CANCELLED"),
    "pause": Case("pause to-pause", "PAUSED"),
    "signal": Case("signal to-pause go --value 1", "signal 'go' sent"),
    "emit": Case("emit landed --payload 1 --match n=1", "event 'landed' sent"),
    "delete": Case("delete --yes deleted", "deleted"),
    "export": Case("export one -o again.perdure", "wrote run one to again.perdure"),
    "import": Case("import one.perdure --trust", "there already"),
    "gc": Case("gc", "gone: 0 runs"),
    "db upgrade": Case("db upgrade", "up to date"),
    "db check": Case("db check", "all is well"),
    "db backup": Case("db backup copy.db", "copy.db"),
    "db rotate-key": Case("db rotate-key", "signs in place of"),
    "config show": Case("config show --origin", "from: default"),
    "doctor": Case("doctor", "ok"),
}
BAD = {
    "run": Case("run nowhere.py", "there is no file nowhere.py", 2),
    "resume": Case("resume nowhere", "no run 'nowhere'", 2),
    "rerun": Case("rerun one --input kk=4", "no parameter 'kk'; did you mean 'k'", 2),
    "fork": Case("fork one --from dobule", "did you mean 'double'", 2),
    "spin": Case("spin one dobule", "did you mean 'double'", 2),
    "explain": Case("explain one --verb frok", "did you mean 'fork'", 2),
    "plan": Case("plan one --id two", "--id says nothing about an ID", 2),
    "diff": Case("diff one oen", "Did you mean 'one'", 2),
    "up": Case("up --workers 0", "workers", 2),
    "demo": Case("demo --flder x", "did you mean '--folder'", 2),
    "queue ls": Case("queue ls --jsn", "did you mean '--json'", 2),
    "queue show": Case("queue show narow", "did you mean 'narrow'", 2),
    "queue set": Case("queue set narrow --limit two", "write a whole number", 2),
    "queue rm": Case("queue rm nrrow", "did you mean 'narrow'", 2),
    "schedule ls": Case("schedule ls --pausd", "did you mean '--paused'", 2),
    "schedule show": Case("schedule show nghtly", "did you mean 'nightly'", 2),
    "schedule ticks": Case("schedule ticks nightly --limit 0", "--limit 0 is less than 1", 2),
    "schedule next": Case("schedule next nightly --at noon", "--at='noon' is no time", 2),
    "schedule test": Case("schedule test '0 2 * *'", "write five", 2),
    "schedule register": Case("schedule register ww.py", "did you mean 'w.py'", 2),
    "schedule pause": Case("schedule pause to-", "several schedules begin with 'to-'", 2),
    "schedule resume": Case("schedule resume weakly", "next: perdure schedule ls", 2),
    "schedule trigger": Case("schedule trigger nightly --day 2026-02-30", "is no time", 2),
    "schedule backfill": Case(
        "schedule backfill nightly --from 2026-01-01 --reprocess faild", "did you mean 'failed'", 2
    ),
    "schedule rm": Case("schedule rm nightly", "--yes", 2),
    "trigger ls": Case("trigger ls --pausd", "did you mean '--paused'", 2),
    "trigger show": Case("trigger show landd", "did you mean 'landed'", 2),
    "trigger arrivals": Case("trigger arrivals landed --decision fird", "'fired'", 2),
    "trigger test": Case("trigger test asked", "waits for no files that could be listed", 2),
    "trigger register": Case("trigger register ww.py", "did you mean 'w.py'", 2),
    "trigger pause": Case("trigger pause mov", "several triggers begin with 'mov'", 2),
    "trigger resume": Case("trigger resume wekly", "next: perdure trigger ls", 2),
    "trigger fire": Case("trigger fire landed --facts size=3", "write JSON: --facts", 2),
    "trigger rm": Case("trigger rm landed", "--yes", 2),
    "ls": Case("ls --status DONE", "SUCCEEDED", 2),
    "top": Case("top --every never", "invalid value for '--every'", 2),
    "show": Case("show nowhere", "no run 'nowhere'", 2),
    "logs": Case("logs one dobule", "did you mean 'double'", 2),
    "report": Case("report one -o w.py", "--force overwrites it", 2),
    "why": Case("why one dobule", "did you mean 'double'", 2),
    "cat": Case("cat one dobule", "did you mean 'double'", 2),
    "get": Case("get one -o nowhere/x.json", "mkdir -p nowhere", 2),
    "cancel": Case("cancel one", "SUCCEEDED", 2),
    "pause": Case("pause one", "SUCCEEDED", 2),
    "signal": Case("signal one go", "SUCCEEDED", 2),
    "emit": Case("emit landed --payload text", "--payload '\"text\"'", 2),
    "delete": Case("delete one", "--yes", 2),
    "export": Case("export one -o one.perdure", "--force overwrites it", 2),
    "import": Case("import w.py", "no exported run", 2),
    "gc": Case("gc --keep yesterday", "yesterday", 2),
    "db upgrade": Case("db upgrade --check --sql", "choose one", 2),
    "db check": Case("db check --store nowhere.db", "there is no store", 2),
    "db backup": Case("db backup", "--release ID", 2),
    "db rotate-key": Case("db rotate-key --store nowhere.db", "there is no store", 2),
    "config show": Case("config show --store mysql://h/d", "expected a path", 2),
    "doctor": Case("doctor --jsn", "did you mean '--json'", 2),
}
ELSEWHERE = {
    "up": "test_up_drives_what_was_submitted_and_stops_when_told",
    "demo": "test_demo",
}
"""Verbs that go on or take long: the tests of their good cases."""

WITHOUT_JSON = {"demo"}
"""A show for people; nothing else is without ``--json``."""


def verbs(group: Any = None, before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every verb by its whole name, with Typer's command."""
    for name, command in (group or typer.main.get_command(app)).commands.items():
        if hasattr(command, "commands"):
            yield from verbs(command, f"{before}{name} ")
        else:
            yield before + name, command


VERBS = dict(verbs())


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, command_line_in: Any) -> Any:
    """A folder with a store of runs in every state that the cases need."""
    command_line = command_line_in(tmp_path_factory.mktemp("verbs"))
    command_line.write("w.py", W)
    command_line.write("prepare.py", PREPARE)
    command_line.write("notes.ipynb", "{}")
    subprocess.run([sys.executable, "prepare.py"], cwd=command_line.folder, check=True)
    return command_line


def test_each_verb_has_a_good_and_a_bad_case_and_no_case_is_of_a_verb_that_is_not() -> None:
    assert set(GOOD) | set(ELSEWHERE) == set(VERBS)
    assert set(BAD) == set(VERBS)
    assert not set(GOOD) & set(ELSEWHERE)
    sources = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    for name in ELSEWHERE.values():
        assert f"def {name}" in sources


@pytest.mark.parametrize("verb", GOOD)
def test_verb_does_what_it_says(prepared: Any, verb: str) -> None:
    case = GOOD[verb]

    ended = prepared(*shlex.split(case.words))

    assert ended.code == case.code, ended.err
    assert case.said in ended.out + ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("verb", BAD)
def test_verb_refuses_what_makes_no_sense(prepared: Any, verb: str) -> None:
    case = BAD[verb]

    ended = prepared(*shlex.split(case.words))

    assert ended.code == case.code, ended.err
    assert case.said in ended.err
    assert "Traceback" not in ended.err
    assert ended.out == ""


TOO_LARGE = {
    "run --detach --delay 99999999d w.py:doubles": "delay='99999999d': a duration is 36500d",
    "run --detach --deadline 99999999d w.py:doubles": "a duration is 36500d at most",
    f"run --detach --priority {10**20} w.py:doubles": "no store holds so large a number",
    f"ls --limit {10**20}": "--limit 100000000000000000000 is more than 1000000000",
    "ls --since 99999999d": "a duration is 36500d at most",
    f"top --once --limit {10**20}": "is more than 1000000000",
    "gc --keep 99999999d": "a duration is 36500d at most",
    "gc --grace 99999999d": "a duration is 36500d at most",
    "queue set wide --rate 10/99999999d": "a duration is 36500d at most",
    f"queue set wide --rate {'9' * 5000}/1m": "write how many within which time",
    f"queue set wide --limit {'9' * 5000}": "write a whole number",
    f"schedule ticks nightly --limit {10**20}": "is more than 1000000000",
    f"schedule next nightly --count {10**20}": "is more than 1000000000",
    f"schedule backfill nightly --from 2026-01-01 --max-active {10**20}": "is more than 1000000000",
    "schedule test 99999999d": "a duration is 36500d at most",
    f"trigger arrivals landed --limit {10**20}": "is more than 1000000000",
}


@pytest.mark.parametrize("words", TOO_LARGE, ids=lambda words: words[:60])
def test_number_or_time_that_is_too_large_is_refused_in_words(prepared: Any, words: str) -> None:
    ended = prepared(*shlex.split(words))

    assert (ended.code, ended.out) == (2, "")
    assert TOO_LARGE[words] in ended.err


READS = (
    "ls", "top", "show one", "show one double", "logs one", "report one", "why one double",
    "cat one", "cat one double", "explain one", "plan one --verb rerun", "diff one one",
    "spin one double",
    "config show", "db check", "db upgrade", "db upgrade --check", "db backup --list",
    "queue ls", "queue show narrow", "queue set wide --limit 2",
    "gc --dry-run", "doctor", "schedule ls", "schedule show nightly", "schedule ticks nightly",
    "schedule next nightly", "schedule test @daily", "schedule test", "schedule register w.py",
    "schedule pause nightly", "schedule resume nightly", "schedule trigger nightly",
    "schedule backfill nightly --from 2026-01-01 --to 2026-01-02 --dry-run",
    "trigger ls", "trigger show landed", "trigger arrivals landed", "trigger test landed",
    "trigger register w.py", "trigger pause landed", "trigger resume landed",
    "trigger fire landed --facts {}",
)  # fmt: skip


@pytest.mark.parametrize("words", READS)
def test_verb_answers_in_json(
    words: str, prepared: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(prepared.folder)

    code = main([*words.split(), "--json"])

    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert is_json(printed.out)


def is_json(text: str) -> bool:
    """Say whether it is one JSON value, or one a line."""
    try:
        json.loads(text)
    except ValueError:
        return all(json.loads(line) is not None for line in text.splitlines())
    return True


@pytest.mark.parametrize("verb", VERBS)
def test_verb_knows_json(verb: str) -> None:
    options = {name for parameter in VERBS[verb].params for name in parameter.opts}

    assert ("--json" in options) is (verb not in WITHOUT_JSON)


# --- help ----------------------------------------------------------------------------------------
def test_each_verb_has_examples_and_no_examples_are_of_a_verb_that_is_not() -> None:
    assert set(EXAMPLES) == set(VERBS)


@pytest.mark.parametrize(
    "command", [command for examples in EXAMPLES.values() for command, _ in examples]
)
def test_example_is_a_command_line_that_is_understood(command: str) -> None:
    program, *words = dropwhile(lambda word: re.match("[A-Z_]+=", word), shlex.split(command))
    typed = " ".join(words)
    name = max((verb for verb in VERBS if typed.startswith(verb)), key=len)

    context = VERBS[name].make_context(name, words[name.count(" ") + 1 :], obj=Session())

    assert program == "perdure"
    context.close()


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_teaches_by_examples_on_a_narrow_terminal(
    verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")

    code = main([*verb.split(), "--help"])

    out = capsys.readouterr().out
    assert code == 0
    assert f"perdure {verb}" in out
    assert "Examples" in out
    assert "<bool>" not in out
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 40


@pytest.mark.parametrize("words", [["-h"], ["show", "-h"], ["db", "check", "-h"]], ids=" ".join)
def test_short_form_of_help_is_understood_everywhere(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0

    short = capsys.readouterr().out
    assert main([*words[:-1], "--help"]) == 0
    assert capsys.readouterr().out == short


def test_help_lists_each_verb_in_a_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0

    out = capsys.readouterr().out
    for panel in ("Run", "Look", "Ask", "Keep", "Help"):
        assert f"─ {panel} ─" in out
    for verb in {name.split()[0] for name in VERBS}:
        assert f"│ {verb} " in out
    assert "Commands" not in out


def test_help_of_a_workflow_says_how_its_parameters_are_typed(
    prepared: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(prepared.folder)

    assert main(["run", "w.py:triples", "--help"]) == 0

    lines = {" ".join(line.split()) for line in capsys.readouterr().out.splitlines()}
    assert lines >= {
        "Treble it.",
        "--n-max int (required)",
        "--rates.low float",
        "--rates.names list[str] | None",
        "--pause timedelta (default: 300s)",
        "--fast / --no-fast bool (default: True)",
        "--xs ... tuple[int, ...] (default: ())",
    }


# --- without a verb, and with one that is none ---------------------------------------------------
def test_perdure_alone_says_where_to_begin_and_what_is_here(prepared: Any) -> None:
    ended = prepared()

    assert ended.code == 0
    for command in ("perdure demo", "perdure run FILE.py", "perdure ls", "perdure show "):
        assert command in ended.out
    assert ".perdure/perdure.db" in ended.out


def test_perdure_alone_makes_no_store(tmp_path: Path, command_line_in: Any) -> None:
    ended = command_line_in(tmp_path)()

    assert ended.code == 0
    assert "the first run makes it" in ended.out
    assert list(tmp_path.iterdir()) == []


def test_perdure_alone_over_a_damaged_store_leads_to_the_doctor(
    tmp_path: Path, command_line_in: Any
) -> None:
    (tmp_path / "x.db").write_bytes(b"this is no database" * 100)

    ended = command_line_in(tmp_path)(PERDURE_STORE="x.db")

    assert ended.code == 0
    assert "x.db" in ended.out
    assert "perdure doctor" in ended.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("rsume one", "there is no verb 'rsume'; did you mean 'resume'?"),
        ("w.py", "perdure run w.py"),
        ("show --jsn one", "did you mean '--json'?"),
        ("--json ls", "options stand after the verb"),
        ("run --k 3 w.py", "parameters of a workflow stand after its name"),
        ("run w.py:doubles --store x.db", "it stands before the target"),
        ("config shw", "there is no verb 'config shw'; did you mean 'config show'?"),
        ("show", "missing argument 'ID'"),
        ("run --workers abc w.py:doubles", "error: --workers 'abc' is not a whole number\n"),
        ("ls --limit 2.5", "error: --limit '2.5' is not a whole number\n"),
        ("ls --limit 0", "error: --limit 0 is less than 1\n"),
        ("spin one dobule", "'dobule'; did you mean 'double'? All of them: `"),
        ("logs one dobule", "'dobule'; did you mean 'double'? All of them: `"),
        ("spin one xyz", "'xyz'. All of them: `"),
        ("run .", ". is a folder: name a file in it, such as prepare.py, w.py"),
        ("run a-b", "there is no file a-b"),
        ("run notes.ipynb", "name a FILE.py"),
        ("run ww", "did you mean 'w.py'?"),
        ("run w.py:dubles", "did you mean 'doubles'?"),
        ("run w.py:doubles --kk 3", "did you mean '--k'?"),
        ("explain w.py:doubles --kk 3", "did you mean '--k'?"),
        ("explain w.py:triples", "triples needs --n-max (int), --name (str)"),
        ("explain one --k 4", "--input k=VALUE"),
        ("explain one --jsn", "did you mean '--json'?"),
        ("explain --jsn one", "did you mean '--json'?"),
        ("explain one double", "unexpected word 'double'"),
        ("explain w.py:doubles --store none.db --reuse one", "there is no store"),
        ("run w.py:triples", "triples needs --n-max (int), --name (str)"),
        ("run w.py:triples --name x", "perdure run w.py:triples --help"),
        ("run --store ' ' w.py:doubles", "names no file"),
        ("run --store sqlite:// w.py:doubles", "names no file"),
        ("run --store :memory: w.py:doubles", "would be gone with its process"),
        ("ls --store .", "is a folder"),
        ("show to-", "to-cancel"),
        ("show oen", "Did you mean 'one'?"),
    ],
)
def test_mistake_is_answered_with_what_was_probably_meant(
    words: str, said: str, prepared: Any, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(prepared.folder)

    code = main(shlex.split(words))

    printed = capsys.readouterr()
    assert code == 2, printed.err
    assert said in printed.err
    assert printed.out == ""


# --- settings ------------------------------------------------------------------------------------
def test_config_show_tells_where_each_setting_comes_from(
    tmp_path: Path, command_line_in: Any
) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.perdure]\nworkers = 2\n")
    command_line = command_line_in(tmp_path)

    ended = command_line("config", "show", "--json", PERDURE_EXECUTOR="inline", PERDURE_KEY="ab12")

    settings = {each["name"]: each for each in json.loads(ended.out)}
    assert (settings["workers"]["value"], settings["executor"]["value"]) == (2, "inline")
    assert settings["workers"]["origin"] == str(tmp_path / "pyproject.toml")
    assert settings["executor"]["origin"] == "environment"
    assert settings["store"]["origin"] == "default"
    assert "ab12" not in ended.out
    assert not (tmp_path / ".perdure").exists()


def test_config_show_hides_a_password(tmp_path: Path, command_line_in: Any) -> None:
    ended = command_line_in(tmp_path)(
        "config", "show", "--store", "postgresql://me:hidden@host/d", PERDURE_BLOBS="/x"
    )

    assert ended.code == 0
    assert "postgresql://me:***@host/d" in ended.out
    assert "hidden" not in ended.out


def test_config_show_tells_of_what_ray_prepares_without_the_variables_values(
    tmp_path: Path, command_line_in: Any
) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[tool.perdure.ray_runtime_env]\nworking_dir = "."\nenv_vars = { TOKEN = "hidden" }\n'
    )
    command_line = command_line_in(tmp_path)

    ended = command_line("config", "show", PERDURE_RAY_ADDRESS="head:6379")

    assert ended.code == 0
    assert 'working_dir="."' in ended.out
    assert "TOKEN" in ended.out
    assert " head:6379" in ended.out
    assert "hidden" not in ended.out
    assert "hidden" not in command_line("config", "show", "--json").out


def test_variable_that_is_no_setting_is_told_of_once(prepared: Any) -> None:
    ended = prepared("ls", PERDURE_STOR="x.db")

    assert ended.code == 0
    assert ended.err.count("did you mean 'PERDURE_STORE'") == 1


def test_wrong_setting_in_a_file_stops_a_command_with_file_and_key(
    tmp_path: Path, command_line_in: Any
) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.perdure]\nworkers = '2'\n")

    ended = command_line_in(tmp_path)("ls")

    assert ended.code == 2
    assert "pyproject.toml" in ended.err
    assert "workers" in ended.err


@pytest.mark.parametrize(
    ("words", "becomes"),
    [
        ("plan w.py:doubles --reuse one --k 3", "reused"),
        ("plan w.py:doubles --k=4 --reuse one", "1 run"),
        ("plan w.py:doubles --reuse one --input k=4", "1 run"),
    ],
)
def test_plan_of_a_target_takes_parameters_as_run_does(
    words: str,
    becomes: str,
    prepared: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(prepared.folder)

    code = main(shlex.split(words))

    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert becomes in printed.out.splitlines()[0]


def test_plan_before_anything_has_run_says_that_all_would_and_makes_no_store(
    tmp_path: Path, command_line_in: Any
) -> None:
    command_line = command_line_in(tmp_path)
    command_line.write("w.py", W)

    ended = command_line("plan", "w.py:doubles", "--reuse", "last", "--k", "4")

    assert ended.code == 0, ended.err
    assert "1 step: 1 run" in ended.out
    assert not list(tmp_path.rglob("*.db"))
    assert not (tmp_path / ".perdure").exists()


def test_fresh_store_keeps_itself_out_of_a_repository(prepared: Any) -> None:
    assert (prepared.folder / ".perdure" / ".gitignore").read_text() == "*\n"


def test_folder_that_somebody_made_for_the_store_is_kept_out_of_a_repository_too(
    tmp_path: Path, command_line_in: Any
) -> None:
    (tmp_path / ".perdure").mkdir()
    command_line = command_line_in(tmp_path)
    command_line.write("w.py", W)

    assert command_line("run", "--detach", "w.py:doubles").code == 3

    assert (tmp_path / ".perdure" / ".gitignore").read_text() == "*\n"


def test_ctrl_c_while_something_is_asked_ends_with_130(prepared: Any) -> None:
    shell = f"{sys.executable} -m perdure delete one"
    parent, child = pty.openpty()
    process = subprocess.Popen(
        shlex.split(shell), cwd=prepared.folder, stdin=child, stdout=child, stderr=child
    )
    asked = b""
    while b"?" not in asked:
        asked += os.read(parent, 1000)

    def is_over() -> bool:
        # One that comes just before the line is read can be lost in readline: press it again.
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=1)
        return process.returncode is not None

    wait_until(is_over, 30, "Ctrl-C does not end it")
    assert process.returncode == 130
    os.close(child)
    os.close(parent)
