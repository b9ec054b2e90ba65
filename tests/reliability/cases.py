"""The faults of a release run: which tests cause them, and how a round of them is made another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
    """Tests that do something to perdure, of some size, under a seed.

    Attributes:
        name: how it is chosen on the command line.
        fault: what is done, as the table says it.
        tests: what pytest is given to choose them.
        settings: the environment of a round, by its seed.
        options: further words for pytest, by its seed.
        counts: which of the figures that the tests tell is the number of trials, where that of
            the tests is not.
        each: how many trials a test is, of what hypothesis draws.
        is_long: whether it is done only where it is named.
    """

    name: str
    fault: str
    tests: Sequence[str]
    settings: Callable[[int], Mapping[str, str]] = field(default=lambda seed: {})
    options: Callable[[int], Sequence[str]] = field(default=lambda seed: ())
    counts: str = ""
    each: int = 1
    is_long: bool = False


_DRAWN = 15
"""How many programs, or files, a test draws in a round."""

_WORLDS = 2_000


def _settings(**values: int) -> Callable[[int], Mapping[str, str]]:
    return lambda seed: {name: str(value) for name, value in values.items()}


def _named(name: str) -> Callable[[int], Mapping[str, str]]:
    return lambda seed: {name: str(seed)}


def _drawn(seed: int) -> Sequence[str]:
    return (f"--hypothesis-seed={seed}",)


CASES = (
    Case(
        "storm",
        "SIGKILL to random ones of two coordinators and their workers, random graphs; SQLite",
        ["tests/crash/test_storm.py", "-k", "sqlite"],
        lambda seed: {"PERDURE_STORM_SEED": str(seed), "PERDURE_STORM_KILLS": "250"},
        counts="kills",
    ),
    Case(
        "storm-postgres",
        "SIGKILL to random ones of two coordinators and their workers, random graphs; PostgreSQL",
        ["tests/crash/test_storm.py", "-k", "postgres"],
        lambda seed: {"PERDURE_STORM_SEED": str(seed), "PERDURE_STORM_KILLS": "250"},
        counts="kills",
    ),
    Case(
        "simulation",
        "simulation: seeded worlds of dying, freezing coordinators, failing and lying workers",
        ["tests/crash/test_simulation.py", "-k", "holds"],
        lambda seed: {
            "PERDURE_SIMULATION_FIRST": str(_WORLDS * seed),
            "PERDURE_SIMULATION_SEEDS": str(_WORLDS),
        },
        counts="worlds",
    ),
    Case(
        "programs",
        "programs by chance of every construct, killed, mended, edited, values lost",
        ["tests/crash/test_programs.py"],
        _settings(PERDURE_PROGRAMS=_DRAWN),
        _drawn,
        each=_DRAWN,
    ),
    Case(
        "actors",
        "programs of tasks and actors by chance, killed, instances and snapshots lost",
        ["tests/crash/test_actor_programs.py"],
        _settings(PERDURE_PROGRAMS=_DRAWN),
        _drawn,
        each=_DRAWN,
    ),
    Case(
        "points",
        "SIGKILL at each named crash point, passes 1 and 2; SQLite, some on PostgreSQL",
        ["tests/crash/test_crash_points.py"],
        _settings(PERDURE_CRASH_HITS=2),
    ),
    Case(
        "postgres",
        "SIGKILL at each crash point, to forks, edits, gc, starts, sleepers, owners; PostgreSQL",
        [
            *("tests/crash/test_crash_points.py", "tests/crash/test_derived.py"),
            *("tests/crash/test_edit_and_resume.py", "tests/crash/test_gc.py"),
            *("tests/crash/test_hooks.py", "tests/crash/test_listening.py"),
            *("tests/crash/test_schedules.py", "tests/crash/test_sleepers.py"),
            *("tests/crash/test_coordinator_only.py", "-k", "not postgres"),
        ],
        lambda seed: {"PERDURE_TEST_CRASH_STORE": "postgres"},
    ),
    Case(
        "random-times",
        "SIGKILL at random times to a chain, a fan-out, a random graph; SQLite and PostgreSQL",
        ["tests/crash/test_equal_everywhere.py", "-k", "kills"],
        _named("PERDURE_KILL_SEED"),
    ),
    Case(
        "anywhere",
        "death before, and after, every store, blob and executor call of a coordinator",
        ["tests/crash/test_kill_anywhere.py"],
        counts="deaths",
    ),
    Case(
        "values",
        "blobs cut short, flipped, swapped, missing, away; disks full; memory past its limit",
        [f"tests/crash/test_{name}.py" for name in ("values", "disk_full", "out_of_memory")],
    ),
    Case(
        "gc",
        "gc killed before, and after, each of its calls, beside live runs",
        ["tests/crash/test_gc.py", "tests/crash/test_refused_commits.py"],
        counts="deaths",
    ),
    Case(
        "starts",
        "schedules, triggers, webhooks and files whose server is killed",
        [f"tests/crash/test_{name}.py" for name in ("schedules", "hearing", "hooks", "listening")],
    ),
    Case(
        "owners",
        "only the coordinator killed, stopped past its lease, robbed of its run; sleepers",
        ["tests/crash/test_coordinator_only.py", "tests/crash/test_sleepers.py"],
        _settings(PERDURE_TEST_PENDING=2_000),
    ),
    Case(
        "hosts",
        "hosts of a PostgreSQL store dead, stopped, cut off; it restarted, frozen, dropped",
        ["tests/crash/test_team.py"],
        lambda seed: {
            "PERDURE_TEST_TAKEOVERS": "5",
            "PERDURE_TEST_STOPS": "5",
            "PERDURE_TEST_DROPS": "100",
            "PERDURE_TEST_DROPS_SEED": str(seed),
        },
    ),
    Case(
        "ray",
        "SIGKILL at each crash point on Ray, to nodes, workers, actors, coordinator and head",
        [
            *("tests/crash/test_crash_points.py", "tests/ray/test_node_loss.py"),
            *("tests/ray/test_coordinator_loss.py", "-k", "on_ray or loss"),
        ],
        lambda seed: {
            "PERDURE_RAY_POINTS": "all",
            "PERDURE_RAY_KILLS": "10",
            "PERDURE_RAY_SEED": str(seed),
        },
    ),
    Case(
        "storm-ray",
        "SIGKILL to random coordinators, their workers and mailboxes on Ray, and a node; SQLite",
        ["tests/crash/test_storm.py", "-k", "on_ray"],
        lambda seed: {"PERDURE_STORM_SEED": str(seed), "PERDURE_STORM_KILLS": "50"},
        counts="kills",
    ),
    Case(
        "anywhere-ray",
        "death before, and after, store, blob and executor calls of a coordinator of steps on Ray",
        ["tests/crash/test_kill_anywhere.py", "-k", "call and not on_ray"],
        lambda seed: {"PERDURE_TEST_EXECUTOR": "ray", "PERDURE_KILL_STRIDE": str(30 + seed % 20)},
        counts="deaths",
    ),
    Case(
        "programs-ray",
        "programs by chance of every construct on Ray, killed, mended, edited, values lost",
        ["tests/crash/test_programs.py", "-k", "not on_ray"],
        lambda seed: {"PERDURE_TEST_EXECUTOR": "ray", "PERDURE_PROGRAMS": str(_DRAWN)},
        _drawn,
        each=_DRAWN,
    ),
    Case(
        "actors-ray",
        "programs of tasks and actors by chance on Ray, killed",
        ["tests/crash/test_actor_programs.py", "-k", "on_ray"],
        lambda seed: {"PERDURE_PROGRAMS": "1", "PERDURE_RAY_PROGRAMS": "5"},
        _drawn,
        each=5,
    ),
    Case(
        "values-ray",
        "blobs cut short, flipped, swapped, missing, away, of steps on Ray",
        ["tests/crash/test_values.py"],
        lambda seed: {"PERDURE_TEST_EXECUTOR": "ray"},
    ),
    Case(
        "times-ray",
        "SIGKILL at random times to a chain, a fan-out, a random graph on Ray",
        ["tests/crash/test_equal_everywhere.py", "-k", "random_times and sqlite"],
        lambda seed: {
            "PERDURE_TEST_EXECUTOR": "ray",
            "PERDURE_KILL_SEED": str(seed),
            "PERDURE_SHAPE_END_S": "300",
        },
    ),
    Case(
        "writers",
        "eight processes that write into one SQLite store at once, for a minute",
        ["tests/crash/test_writers.py", "-k", "locked"],
        _settings(PERDURE_TEST_WRITING_S=60),
        counts="commits",
    ),
    Case(
        "copies",
        "the files of a SQLite store as they are at random instants, under three writers",
        ["tests/crash/test_writers.py", "-k", "instant"],
        lambda seed: {"PERDURE_TEST_COPIES": "100", "PERDURE_TEST_COPIES_SEED": str(seed)},
        counts="copies",
    ),
    Case(
        "migrations",
        "stores of each older schema upgraded, after an upgrade that died; ten at once; under load",
        ["tests/migration"],
    ),
    Case(
        "files",
        "files of runs damaged and forged at random",
        ["tests/contract/test_transfers.py", "-k", "damaged or forged"],
        _settings(PERDURE_TEST_DAMAGES=_DRAWN),
        _drawn,
        each=_DRAWN,
    ),
    Case(
        "suite",
        "all tests, for --hostile",
        [
            *("tests/unit", "tests/contract", "tests/migration", "tests/compat"),
            *("tests/crash", "tests/acceptance", "tests/ray"),
        ],
        is_long=True,
    ),
)

UNFIT: Mapping[str, Sequence[str]] = {
    # A transaction that is undone leaves a gap in PostgreSQL's numbers, and is noted, and counted,
    # twice.
    "retry": [
        "tests/contract/test_differential.py::test_memory_and_postgres_answer_alike",
        "tests/contract/test_many_intakes.py::test_everything_arrives_once_whoever_brings_it[postgres",
        "tests/contract/test_postgres_store.py::test_commits_are_on_the_disk_though_the_server_would_not_wait_for_it",
        "tests/contract/test_postgres_store.py::test_connection_that_drops_between_rows_is_told_of_once",
        "tests/contract/test_run_stores.py::TestPostgresStore::test_a_message_after_an_import_has_a_number_of_its_own",
        "tests/contract/test_run_stores.py::TestPostgresStore::test_whole_run_is_what_was_imported",
        "tests/contract/test_transfers.py::test_run_is_the_same_on_postgres_and_back",
    ],
    # These count blobs, ask for a value in its row, or remove every blob, of the plan too.
    "spill": [
        "tests/acceptance/test_bad_places.py::test_lost_values_of_a_finished_run_are_rebuilt_by_resume_and_by_the_same_id",
        "tests/acceptance/test_benchmarks.py::test_benchmark_of_saves_says_that_only_what_changed_is_written",
        "tests/acceptance/test_docs.py::test_page_does_what_it_says_in_a_fresh_folder[docs/cookbook.md]",
        "tests/acceptance/test_docs.py::test_page_does_what_it_says_in_a_fresh_folder[docs/howto/backup-and-gc.md]",
        "tests/acceptance/test_docs.py::test_page_does_what_it_says_in_a_fresh_folder[docs/howto/move-runs.md]",
        "tests/acceptance/test_metrics.py::test_runs_steps_attempts_and_commits_are_counted",
        "tests/contract/test_directories.py::test_a_change_in_the_same_tick_of_the_clock_is_not_overlooked",
        "tests/contract/test_directories.py::test_files_that_were_restored_are_not_read_again",
        "tests/contract/test_directories.py::test_only_the_file_that_changed_is_written",
        "tests/contract/test_executors.py::TestInlineExecutor::test_call_ends_as_input_lost_when_a_value_is_damaged",
        "tests/contract/test_executors.py::TestProcessExecutor::test_call_ends_as_input_lost_when_a_value_is_damaged",
        "tests/contract/test_values.py::test_limit_of_the_row_is_exact",
        "tests/contract/test_values.py::test_small_value_is_in_the_row",
        "tests/ray/test_executor.py::TestRayExecutor::test_call_ends_as_input_lost_when_a_value_is_damaged",
    ],
    # Steps of these ask for more than one CPU.
    "narrow": [
        "tests/acceptance/test_docs.py::test_page_does_what_it_says_in_a_fresh_folder[docs/coming-from-ray.md]",
    ],
}
"""Tests that ask for the very thing that a hostile mode changes."""
