"""What every executor must do, as a test class: subclass it and provide ``make_executor``.

class TestMyExecutor(ExecutorContract):
def make_executor(self) -> Executor:
return MyExecutor()
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perdure.calls import (
    CallContext,
    CallId,
    Outcome,
    Saving,
    StepCall,
    Told,
    input_key,
    step_key,
)
from perdure.executors import contract_steps as steps
from perdure.executors.protocol import Executor
from perdure.fingerprint import plain_digest
from perdure.plan import (
    Arg,
    Attr,
    Const,
    DictArg,
    FromInput,
    FromSecret,
    FromStep,
    Function,
    Item,
    ListArg,
)
from perdure_storage.blobs import open_blobs
from perdure_storage.codecs import Codecs
from perdure_storage.errors import ValueDamaged
from perdure_storage.logs import open_logs
from perdure_storage.records import Cause, Place, Refusal, RunId, StepId, StoredValue
from perdure_storage.values import Values

LARGE_BYTES = 100_000
_PATIENCE_S = 60.0


class Bench:
    """One executor with one run open, and stores to look into. Made by the ``bench`` fixture."""

    run_id = "contract/run"

    def __init__(self, executor: Executor, folder: Path) -> None:
        self.executor = executor
        self._url = str(folder)
        blobs = open_blobs(self._url, "store", bind=True)
        self.values = Values(Codecs(code_digest=plain_digest), blobs, blobs.spool(self.run_id))
        self.logs = open_logs(self._url, "store")
        self._constants: list[StoredValue] = []
        self._functions: dict[str, Function] = {}
        self._numbers = iter(range(1, 1_000_000))

    def constant(self, value: Any) -> Const:
        """Add a constant to the plan; before ``open``."""
        self._constants.append(self.values.store(value))
        return Const(len(self._constants) - 1)

    def function(self, function: Callable[..., Any], **changes: Any) -> str:
        """Add a function to the plan by reference; before ``open``."""
        name = function.__qualname__ + "".join(changes)
        self._functions[name] = msgspec.structs.replace(
            Function(
                id=name,
                module=function.__module__,
                qualname=function.__qualname__,
                code=plain_digest(function),
                counts_as=plain_digest(function),
                is_async=inspect.iscoroutinefunction(function),
            ),
            **changes,
        )
        return name

    def open(self, bundle: bytes | None = None) -> None:
        """Open the run with what has been added, and with recorded sources if they are given."""
        digest = None if bundle is None else self.values.blobs.put([bundle])
        self.executor.open_run(
            CallContext(
                run_id=self.run_id,
                blobs_url=self._url,
                store_id="store",
                functions=self._functions,
                constants=dict(enumerate(self._constants)),
                bundle=digest,
                bundle_size=len(bundle or b""),
            )
        )

    def call(self, function: str, *args: Arg, **options: Any) -> StepCall:
        """Return a call of a step of its own."""
        number = next(self._numbers)
        at = CallId(self.run_id, f"step{number}", 1, 1)
        return StepCall(id=at, function=function, args=args, **options)

    def run(self, *calls: StepCall) -> list[Outcome]:
        """Submit calls and return their outcomes in the order of the calls."""
        self.executor.submit(calls)
        return self.outcomes(*calls)

    def outcomes(self, *calls: StepCall) -> list[Outcome]:
        """Wait for the outcomes of submitted calls; fails if one comes twice."""
        found: dict[CallId, Outcome] = {}
        while len(found) < len(calls):
            outcomes = self.executor.poll(_PATIENCE_S)
            assert outcomes, "no outcome came"
            for outcome in outcomes:
                assert outcome.id not in found, "two outcomes for one call"
                found[outcome.id] = outcome
        return [found[call.id] for call in calls]

    def run_one(self, function: Callable[..., Any], *args: Any, **options: Any) -> Outcome:
        """Open a run of one function with constant arguments, and run one call of it."""
        constants = [self.constant(arg) for arg in args]
        name = self.function(function)
        self.open()
        return self.run(self.call(name, *constants, **options))[0]

    def value(self, outcome: Outcome) -> Any:
        """Return the decoded value of an outcome that succeeded."""
        assert outcome.cause is Cause.SUCCEEDED, outcome.error
        assert outcome.value is not None
        return self.values.load(outcome.value)

    def output(self, call: CallId) -> str:
        """Return what an attempt printed."""
        return self.logs.read(
            RunId(call.run_id), StepId(call.step_id), call.generation, call.attempt
        ).decode()


class DeskOfTest:
    """Remembers what it was asked, and answers as it was told to."""

    def __init__(self, refusal: Refusal | None = None) -> None:
        self._refusal = refusal
        self.kept: list[Saving] = []
        self.told: list[Told] = []
        self.threads: set[int] = set()

    def keep(self, saving: Saving) -> Refusal | None:
        """Remember a save."""
        self.threads.add(threading.get_ident())
        self.kept.append(saving)
        return self._refusal

    def tell(self, told: Told) -> None:
        """Remember how far a step is."""
        self.threads.add(threading.get_ident())
        self.told.append(told)

    def look(self, call: CallId) -> bool:
        """Nobody asks."""
        return False


class ExecutorContract:
    """The law of ``Executor``, case by case."""

    def make_executor(self) -> Executor:
        """Return a new executor; it is closed after the test."""
        raise NotImplementedError

    @pytest.fixture
    def bench(self, tmp_path: Path) -> Iterator[Bench]:
        """Give a bench with a new executor."""
        executor = self.make_executor()
        yield Bench(executor, tmp_path / "blobs")
        executor.close()

    # --- arguments ------------------------------------------------------------------------------
    def test_call_gets_constants_steps_and_inputs(self, bench: Bench) -> None:
        one = bench.constant(1)
        name = bench.function(steps.pack)
        bench.open()
        values = {
            step_key("a"): bench.values.store({"k": [10, 20]}),
            input_key("x"): bench.values.store(3 + 4j),
        }

        call = bench.call(
            name,
            one,
            FromStep("a", (Item("k"), Item(1))),
            kwargs={"x": FromInput("x", (Attr("imag"),)), "a": FromStep("a")},
            values=values,
        )
        [outcome] = bench.run(call)

        assert bench.value(outcome) == ((1, 20), {"x": 4.0, "a": {"k": [10, 20]}})

    def test_call_gets_containers_with_values_in_them(self, bench: Bench) -> None:
        key, name = bench.constant("k"), bench.function(steps.pack)
        bench.open()
        values = {step_key("a"): bench.values.store(7)}

        nested = ListArg((DictArg((key,), (FromStep("a"),)),), "tuple")
        [outcome] = bench.run(bench.call(name, nested, values=values))

        assert bench.value(outcome) == ((({"k": 7},),), {})

    def test_call_gets_one_object_for_an_input_named_twice(self, bench: Bench) -> None:
        name = bench.function(steps.is_same)
        bench.open()
        values = {step_key("a"): bench.values.store([1])}

        [outcome] = bench.run(bench.call(name, FromStep("a"), FromStep("a"), values=values))

        assert bench.value(outcome) is True

    def test_call_gets_copies_of_its_own_of_inputs_and_constants(self, bench: Bench) -> None:
        items, name = bench.constant([]), bench.function(steps.grow)
        bench.open()
        values = {step_key("a"): bench.values.store([])}

        first, second = bench.run(bench.call(name, items), bench.call(name, items))
        third, fourth = bench.run(
            bench.call(name, FromStep("a"), values=values),
            bench.call(name, FromStep("a"), values=values),
        )

        assert [bench.value(each) for each in (first, second, third, fourth)] == [[0]] * 4

    @pytest.mark.parametrize("function", [steps.grow, steps.grow_later])
    def test_calls_that_come_together_get_copies_of_their_own_of_a_large_input(
        self, bench: Bench, function: Callable[..., Any]
    ) -> None:
        name = bench.function(function)
        bench.open()
        values = {step_key("a"): bench.values.store(list(range(1000)))}

        outcomes = bench.run(
            *(bench.call(name, FromStep("a"), values=values, is_brief=True) for _ in range(20))
        )

        assert [bench.value(each) for each in outcomes] == [list(range(1001))] * 20

    def test_call_reads_a_secret_from_the_environment(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("CONTRACT_TOKEN", "hush-hush")
        executor = self.make_executor()
        bench = Bench(executor, tmp_path)
        name = bench.function(steps.pack)
        bench.open()

        [outcome] = bench.run(bench.call(name, FromSecret("CONTRACT_TOKEN")))

        assert bench.value(outcome) == (("hush-hush",), {})
        executor.close()

    def test_call_ends_as_setup_error_when_a_secret_is_missing(self, bench: Bench) -> None:
        name = bench.function(steps.pack)
        bench.open()

        [outcome] = bench.run(bench.call(name, FromSecret("CONTRACT_NO_SUCH")))

        assert outcome.cause is Cause.SETUP_ERROR
        assert outcome.error is not None
        assert "CONTRACT_NO_SUCH" in outcome.error.message

    def test_call_ends_as_setup_error_when_its_code_imports_what_is_not_installed(
        self, bench: Bench
    ) -> None:
        name = bench.function(steps.need)
        package, nothing = bench.constant("no_such_package"), bench.constant("")
        bench.open()

        [missing] = bench.run(bench.call(name, package))
        [other] = bench.run(bench.call(name, nothing))

        assert missing.cause is Cause.SETUP_ERROR
        assert missing.error is not None
        assert missing.error.message == "No module named 'no_such_package'"
        assert other.cause is Cause.USER_ERROR

    def test_call_ends_as_user_error_when_a_projection_does_not_exist(self, bench: Bench) -> None:
        name = bench.function(steps.pack)
        bench.open()
        values = {step_key("a"): bench.values.store({"k": 1})}

        [outcome] = bench.run(bench.call(name, FromStep("a", (Item("z"),)), values=values))

        assert outcome.cause is Cause.USER_ERROR
        assert outcome.error is not None
        assert "a['z']" in outcome.error.traceback
        assert not outcome.retryable

    # --- inputs that cannot be read -------------------------------------------------------------
    def test_call_ends_as_input_lost_when_a_value_was_not_kept(self, bench: Bench) -> None:
        name = bench.function(steps.length)
        bench.open()
        stored = bench.values.store(b"x")
        gone = msgspec.structs.replace(stored, place=Place.NONE, data=None)

        [outcome] = bench.run(bench.call(name, FromStep("a"), values={step_key("a"): gone}))

        assert outcome.cause is Cause.INPUT_LOST
        assert outcome.culprit == step_key("a")

    def test_call_ends_as_input_lost_when_a_value_is_damaged(self, bench: Bench) -> None:
        name = bench.function(steps.length)
        bench.open()
        stored = bench.values.store(b"xyz")
        other = msgspec.structs.replace(stored, data=b"xyy")

        [outcome] = bench.run(bench.call(name, FromInput("p"), values={input_key("p"): other}))

        assert outcome.cause is Cause.INPUT_LOST
        assert outcome.culprit == input_key("p")

    # --- results --------------------------------------------------------------------------------
    def test_result_comes_with_the_digests_of_the_projections_asked_for(self, bench: Bench) -> None:
        items, name = bench.constant(["a", "b"]), bench.function(steps.pack)
        bench.open()

        parts = ((Item(0), Item(0)), (Item("no such"),))
        [outcome] = bench.run(bench.call(name, items, parts=parts))

        digest = bench.values.store(["a", "b"]).value_digest
        assert outcome.value is not None
        assert outcome.value.parts == {"[0][0]": digest}

    def test_result_with_a_file_name_that_is_not_utf8_comes_back(self, bench: Bench) -> None:
        outcome = bench.run_one(steps.pack, {"\udcff": ["a\udcff"]})

        assert bench.value(outcome) == (({"\udcff": ["a\udcff"]},), {})

    def test_large_result_is_in_the_blob_store(self, bench: Bench) -> None:
        outcome = bench.run_one(steps.make_bytes, LARGE_BYTES)

        assert outcome.value is not None
        assert outcome.value.place is Place.BLOB
        assert bench.value(outcome) == bytes(LARGE_BYTES)

    def test_large_result_without_checkpoint_is_readable_until_the_run_closes(
        self, bench: Bench
    ) -> None:
        size = bench.constant(LARGE_BYTES)
        make, length = bench.function(steps.make_bytes), bench.function(steps.length)
        bench.open()

        [made] = bench.run(bench.call(make, size, checkpoint=False))
        assert made.value is not None
        values = {step_key("a"): made.value}
        [outcome] = bench.run(bench.call(length, FromStep("a"), values=values))
        bench.executor.close_run(bench.run_id)
        bench.open()
        [late] = bench.run(bench.call(length, FromStep("a"), values=values))

        assert made.value.place is Place.SPOOL
        assert bench.value(outcome) == LARGE_BYTES
        assert late.cause is Cause.INPUT_LOST

    def test_what_a_dead_coordinator_left_in_the_spool_is_gone_when_the_run_is_opened_again(
        self, bench: Bench, tmp_path: Path
    ) -> None:
        left_behind = bench.values.store(bytes(LARGE_BYTES), checkpoint=False)

        bench.open()

        assert left_behind.place is Place.SPOOL
        with pytest.raises(ValueDamaged):
            bench.values.load(left_behind)
        assert not [path for path in tmp_path.rglob("*") if _is_large(path)]

    def test_run_is_opened_when_its_blob_root_is_out_of_reach(
        self, bench: Bench, tmp_path: Path
    ) -> None:
        name, one = bench.function(steps.add), bench.constant(1)
        (tmp_path / "blobs").rename(tmp_path / "elsewhere")

        bench.open()
        [outcome] = bench.run(bench.call(name, one))

        assert bench.value(outcome) == 2

    def test_result_that_has_no_encoding_is_a_user_error_with_the_path_to_it(
        self, bench: Bench
    ) -> None:
        outcome = bench.run_one(steps.make_lock)

        assert outcome.cause is Cause.USER_ERROR
        assert outcome.error is not None
        assert outcome.error.type == "perdure_storage.errors.NotSerializable"
        assert "lock" in outcome.error.message
        assert not outcome.retryable

    def test_result_of_the_wrong_length_is_a_user_error_when_outputs_are_declared(
        self, bench: Bench
    ) -> None:
        outcome = bench.run_one(steps.pack, outputs=3)

        assert outcome.cause is Cause.USER_ERROR
        assert outcome.error is not None
        assert "outputs=3" in outcome.error.message

    # --- forks ----------------------------------------------------------------------------------
    # Python warns of forks in processes with threads, and the coordinator may have some.
    @pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
    @pytest.mark.parametrize(
        ("function", "status"),
        [(steps.fork_and_return, 0), (steps.fork_and_raise, 1), (steps.fork_and_wait, None)],
    )
    def test_child_that_a_step_forks_does_not_answer_for_it(
        self, bench: Bench, function: Callable[..., Any], status: int | None
    ) -> None:
        name, add = bench.function(function), bench.function(steps.add)
        one = bench.constant(1)
        bench.open()

        [outcome] = bench.run(bench.call(name))
        [after] = bench.run(bench.call(add, one))

        who, child_status = bench.value(outcome)
        assert who == "parent"
        assert status in (None, child_status)
        assert bench.value(after) == 2

    # --- errors ---------------------------------------------------------------------------------
    def test_error_is_told_from_the_users_first_frame_on(self, bench: Bench) -> None:
        outcome = bench.run_one(steps.fail, "no luck")

        assert outcome.cause is Cause.USER_ERROR
        assert outcome.retryable
        assert outcome.error is not None
        assert outcome.error.type == "builtins.ValueError"
        assert outcome.error.message == "no luck"
        first = outcome.error.traceback.splitlines()[1]
        assert "contract_steps.py" in first

    def test_error_can_be_raised_again(self, bench: Bench) -> None:
        outcome = bench.run_one(steps.fail, "no luck")

        assert outcome.error is not None
        assert outcome.error.pickled is not None
        again = bench.values.codecs.unpickle(outcome.error.pickled)
        assert (type(again), again.args) == (ValueError, ("no luck",))

    def test_error_about_a_file_name_that_is_not_utf8_is_told(self, bench: Bench) -> None:
        outcome = bench.run_one(steps.fail, "cannot parse: \udcff")

        assert outcome.cause is Cause.USER_ERROR
        assert outcome.error is not None
        assert outcome.error.message == "cannot parse: \\udcff"

    def test_exit_of_a_step_is_an_error_of_the_step(self, bench: Bench) -> None:
        outcome = bench.run_one(steps.leave)

        assert outcome.cause is Cause.USER_ERROR
        assert outcome.error is not None
        assert outcome.error.type == "builtins.SystemExit"
        assert not outcome.retryable

    @pytest.mark.parametrize(
        ("admitted", "expected"),
        [
            (ValueError, True),
            ((KeyError, OSError), False),
            (steps.is_unlucky, True),
            (steps.is_confused, False),
        ],
    )
    def test_error_is_retryable_when_retry_on_admits_it(
        self, bench: Bench, admitted: Any, expected: bool
    ) -> None:
        index, name = bench.constant(admitted).index, bench.function(steps.fail)
        bench.open()

        [outcome] = bench.run(bench.call(name, retry_on=index))

        assert outcome.retryable is expected

    def test_function_of_another_code_than_recorded_is_refused(self, bench: Bench) -> None:
        name = bench.function(steps.add, code="v1:of yesterday")
        bench.open()

        [outcome] = bench.run(bench.call(name))

        assert outcome.cause is Cause.SETUP_ERROR
        assert outcome.error is not None
        assert outcome.error.type == "perdure.errors.CodeChanged"

    def test_function_that_cannot_be_imported_is_a_setup_error(self, bench: Bench) -> None:
        name = bench.function(steps.add, module="perdure.no_such_module")
        bench.open()

        [outcome] = bench.run(bench.call(name))

        assert outcome.cause is Cause.SETUP_ERROR
        assert outcome.error is not None
        assert "no_such_module" in outcome.error.message

    def test_function_travels_by_value(self, bench: Bench) -> None:
        two = bench.constant(2)
        factor = 21
        stored = bench.values.store(lambda number: number * factor)
        name = bench.function(steps.add, value=stored, module="__main__", code="v1:any")
        bench.open()

        [outcome] = bench.run(bench.call(name, two))

        assert bench.value(outcome) == 42

    # --- around the call ------------------------------------------------------------------------
    def test_step_knows_itself(self, bench: Bench) -> None:
        name = bench.function(steps.identify)
        bench.open()
        at = CallId(bench.run_id, "train", 2, 3)

        [outcome] = bench.run(StepCall(id=at, function=name, idempotency_key="key"))

        assert bench.value(outcome) == (bench.run_id, "train", 2, 3, "key", False)

    def test_what_a_step_saves_and_tells_comes_to_the_desk_in_the_polling_thread(
        self, bench: Bench
    ) -> None:
        desk = DeskOfTest()
        bench.executor.attend(desk)

        outcome = bench.run_one(steps.saves, 3)

        assert bench.value(outcome) == 3
        assert [bench.values.load(each.value) for each in desk.kept] == [30, 31, 32]
        assert [each.at for each in desk.kept] == [0, 1, 2]
        assert desk.told[-1].progress.done == 2
        assert desk.threads == {threading.get_ident()}

    def test_what_a_coroutine_saves_comes_to_the_desk_too(self, bench: Bench) -> None:
        desk = DeskOfTest()
        bench.executor.attend(desk)

        outcome = bench.run_one(steps.saves_later, 3)

        assert bench.value(outcome) == 3
        assert [each.at for each in desk.kept] == [0, 1, 2]

    def test_save_that_the_desk_refuses_is_an_error_in_the_step(self, bench: Bench) -> None:
        bench.executor.attend(DeskOfTest(Refusal(kind="stale", message="another attempt runs")))

        outcome = bench.run_one(steps.saves, 3)

        assert outcome.cause is Cause.USER_ERROR
        assert outcome.error is not None
        assert outcome.error.type == "perdure_storage.errors.RunConflict"
        assert "another attempt runs" in outcome.error.message

    def test_store_that_does_not_answer_a_save_is_no_fault_of_the_step(self, bench: Bench) -> None:
        bench.executor.attend(DeskOfTest(Refusal(kind="unavailable", message="locked")))

        assert bench.run_one(steps.saves, 3).cause is Cause.INPUT_UNAVAILABLE

    def test_without_a_desk_nothing_is_kept(self, bench: Bench) -> None:
        assert bench.run_one(steps.saves, 3).cause is Cause.USER_ERROR

    def test_outcome_says_who_ran_it_and_when(self, bench: Bench) -> None:
        outcome = bench.run_one(steps.add, 1)

        assert "/" in outcome.worker
        assert outcome.started_at is not None
        assert outcome.finished_at is not None
        assert outcome.started_at <= outcome.finished_at

    def test_output_is_kept_by_attempt(self, bench: Bench) -> None:
        texts = [bench.constant(text) for text in ("one", "two")]
        name = bench.function(steps.speak)
        bench.open()

        calls = [bench.call(name, text) for text in texts]
        bench.run(*calls)

        for call, text in zip(calls, ("one", "two")):
            lines = bench.output(call.id).splitlines()
            assert f"out: {text}" in lines
            assert f"err: {text}" in lines
            assert any(line.endswith(f"log: {text}") for line in lines)
            assert len(lines) == 3

    def test_output_of_a_silent_attempt_is_nothing_at_all(
        self, bench: Bench, tmp_path: Path
    ) -> None:
        outcome = bench.run_one(steps.add, 1)

        assert bench.output(outcome.id) == ""
        assert not list(tmp_path.rglob("*.log"))

    def test_output_has_no_secrets_in_it(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("CONTRACT_TOKEN", "hush-hush")
        executor = self.make_executor()
        bench = Bench(executor, tmp_path)
        name = bench.function(steps.speak)
        bench.open()

        call = bench.call(name, FromSecret("CONTRACT_TOKEN"))
        bench.run(call)

        assert "hush" not in bench.output(call.id)
        assert "out: ***" in bench.output(call.id)
        executor.close()

    # --- async ----------------------------------------------------------------------------------
    def test_coroutines_run_together(self, bench: Bench) -> None:
        numbers = [bench.constant(number) for number in range(20)]
        of, name = bench.constant(20), bench.function(steps.meet)
        bench.open()

        calls = [bench.call(name, number, of) for number in numbers]
        outcomes = bench.run(*calls)

        assert [bench.value(outcome) for outcome in outcomes] == list(range(20))
        assert bench.output(calls[7].id) == "here is 7\n"

    def test_coroutine_that_fails_is_told_as_a_function_is(self, bench: Bench) -> None:
        outcome = bench.run_one(steps.fail_later)

        assert outcome.cause is Cause.USER_ERROR
        assert outcome.error is not None
        assert outcome.error.message == "no luck later"
        assert "contract_steps.py" in outcome.error.traceback.splitlines()[1]

    def test_coroutine_knows_itself(self, bench: Bench) -> None:
        name = bench.function(steps.identify_later)
        bench.open()

        calls = [bench.call(name) for _ in range(5)]
        outcomes = bench.run(*calls)

        assert [bench.value(outcome)[1] for outcome in outcomes] == [c.id.step_id for c in calls]

    # --- polling --------------------------------------------------------------------------------
    def test_poll_returns_at_once_when_told_not_to_wait(self, bench: Bench) -> None:
        assert bench.executor.poll(0) == []

    def test_poll_returns_empty_when_its_time_is_up(self, bench: Bench) -> None:
        assert bench.executor.poll(0.01) == []

    def test_poll_ends_when_woken_from_another_thread(self, bench: Bench) -> None:
        thread = threading.Timer(0.05, bench.executor.wake)
        thread.start()

        outcomes = bench.executor.poll(_PATIENCE_S)

        assert outcomes == []
        thread.join()

    def test_poll_ends_at_once_when_woken_before(self, bench: Bench) -> None:
        bench.executor.wake()

        assert bench.executor.poll(_PATIENCE_S) == []

    def test_every_call_of_a_thousand_gets_its_outcome(self, bench: Bench) -> None:
        one, name = bench.constant(1), bench.function(steps.add)
        bench.open()

        outcomes = bench.run(*(bench.call(name, one) for _ in range(1000)))

        assert {outcome.cause for outcome in outcomes} == {Cause.SUCCEEDED}

    # --- kills and ends -------------------------------------------------------------------------
    def test_kill_ends_calls_that_wait_for_their_turn(self, bench: Bench) -> None:
        one, name = bench.constant(1), bench.function(steps.add)
        bench.open()
        calls = [bench.call(name, one) for _ in range(500)]

        bench.executor.submit(calls)
        bench.executor.kill([calls[-1].id], grace_s=5, cause=Cause.CANCELLED)
        outcomes = bench.outcomes(*calls)

        assert outcomes[-1].cause is Cause.CANCELLED
        assert {outcome.cause for outcome in outcomes[:-1]} == {Cause.SUCCEEDED}

    def test_every_call_of_a_run_that_is_handed_over_runs_or_comes_back(self, bench: Bench) -> None:
        one, name = bench.constant(1), bench.function(steps.add)
        bench.open()
        calls = [bench.call(name, one, is_brief=number % 2 == 0) for number in range(500)]

        bench.executor.submit(calls)
        bench.executor.hand_over([call.id for call in calls])
        outcomes = bench.outcomes(*calls)

        assert {outcome.cause for outcome in outcomes} <= {Cause.ABANDONED, Cause.SUCCEEDED}
        assert bench.run_one(steps.add, 1).cause is Cause.SUCCEEDED

    def test_kill_of_an_unknown_call_is_ignored(self, bench: Bench) -> None:
        bench.executor.kill([CallId("r", "s", 1, 1)], grace_s=0, cause=Cause.CANCELLED)

        assert bench.executor.poll(0) == []

    def test_two_runs_are_open_at_once(self, bench: Bench, tmp_path: Path) -> None:
        one, name = bench.constant(1), bench.function(steps.add)
        bench.open()
        other = Bench(bench.executor, tmp_path / "other")
        other.run_id = "contract/other"
        two, other_name = other.constant(2), other.function(steps.add)
        other.open()

        first, second = bench.run(bench.call(name, one), other.call(other_name, two))

        assert (bench.value(first), bench.value(second)) == (2, 3)

    def test_close_ends_calls_that_were_given_to_a_worker_and_have_not_begun(
        self, bench: Bench
    ) -> None:
        size, name = bench.constant(LARGE_BYTES), bench.function(steps.make_bytes)
        bench.open()
        bench.run(bench.call(name, size, is_brief=True))

        bench.executor.submit([bench.call(name, size, is_brief=True) for _ in range(50)])
        bench.executor.close()

        assert bench.executor.workers() == ()

    def test_close_is_idempotent(self, bench: Bench) -> None:
        bench.run_one(steps.add, 1)

        bench.executor.close()
        bench.executor.close()

        assert bench.executor.workers() == ()


def _is_large(path: Path) -> bool:
    return path.is_file() and path.stat().st_size >= LARGE_BYTES
