from __future__ import annotations

import io
import logging
import sys

import pytest

from perdure.calls import CallId
from perdure.eager import EagerDesk
from perdure.worker.context import Context, StopSignal, running
from perdure.worker.output import (
    SEGMENT_BYTES,
    AttemptLog,
    AttemptOutput,
    DivertedStream,
    StepLogHandler,
    StepStream,
    captured_streams,
)
from perdure.worker.secrets import Redactor
from perdure_storage.records import RunId, StepId

AT = CallId("run", "step", 1, 2)


class KeptLogs:
    """A log store in memory."""

    def __init__(self) -> None:
        self.segments: list[bytes] = []

    def append(
        self, run_id: RunId, step_id: StepId, generation: int, attempt: int, data: bytes
    ) -> None:
        assert (run_id, step_id, generation, attempt) == ("run", "step", 1, 2)
        self.segments.append(data)

    def read(
        self, run_id: RunId, step_id: StepId, generation: int, attempt: int, *, offset: int = 0
    ) -> bytes:
        return b"".join(self.segments)[offset:]

    def delete(self, run_id: RunId) -> None:
        self.segments.clear()


class BrokenLogs(KeptLogs):
    """A log store whose disk is full."""

    def append(
        self, run_id: RunId, step_id: StepId, generation: int, attempt: int, data: bytes
    ) -> None:
        raise OSError("disk full")


def context_of(output: AttemptOutput) -> Context:
    return Context(
        "run",
        "step",
        1,
        2,
        "key",
        StopSignal(),
        output,
        EagerDesk().saves(CallId("run", "step", 1, 2)),
    )


def test_log_masks_a_secret_that_comes_in_pieces() -> None:
    logs = KeptLogs()
    log = AttemptLog(AT, logs, Redactor(["hush-hush"]))

    for piece in (b"it is hus", b"h-hu", b"sh, really"):
        log.append(piece)
    log.append(b"", last=True)

    assert b"".join(logs.segments) == b"it is ***, really"


def test_log_that_cannot_be_kept_costs_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    log = AttemptLog(AT, BrokenLogs(), Redactor())

    with caplog.at_level(logging.WARNING):
        log.append(b"one")
        log.append(b"two")

    assert [record.message for record in caplog.records] == [
        "the output of step cannot be kept: disk full"
    ]


def test_output_appends_nothing_when_nothing_was_printed() -> None:
    logs = KeptLogs()

    AttemptOutput(AT, logs, Redactor()).close()

    assert logs.segments == []


def test_output_appends_a_segment_when_it_is_large() -> None:
    logs = KeptLogs()
    output = AttemptOutput(AT, logs, Redactor())

    output.write("x" * SEGMENT_BYTES)

    assert len(logs.segments) == 1


def test_output_takes_text_that_has_no_utf8() -> None:
    logs = KeptLogs()
    output = AttemptOutput(AT, logs, Redactor())

    output.write("\udc80")
    output.close()

    assert logs.segments == [b"\\udc80"]


def test_stream_gives_steps_words_to_the_step_and_to_the_stream_below() -> None:
    logs, below = KeptLogs(), io.StringIO()
    output = AttemptOutput(AT, logs, Redactor())
    stream = StepStream(below)

    stream.write("before ")
    token = running.set(context_of(output))
    stream.write("within ")
    running.reset(token)
    stream.write("after")
    output.close()

    assert below.getvalue() == "before within after"
    assert logs.segments == [b"within "]


def test_diverted_stream_keeps_steps_words_from_the_stream_below() -> None:
    logs, below = KeptLogs(), io.StringIO()
    output = AttemptOutput(AT, logs, Redactor())

    token = running.set(context_of(output))
    DivertedStream(below).write("within")
    running.reset(token)
    output.close()

    assert below.getvalue() == ""
    assert logs.segments == [b"within"]


@pytest.mark.parametrize("has_handler_on_the_stream", [False, True])
def test_log_records_are_captured_once(has_handler_on_the_stream: bool) -> None:
    logs = KeptLogs()
    output = AttemptOutput(AT, logs, Redactor())
    root = logging.getLogger()

    with captured_streams(StepLogHandler()):
        handler = logging.StreamHandler(sys.stderr) if has_handler_on_the_stream else None
        if handler is not None:
            root.addHandler(handler)
        token = running.set(context_of(output))
        logging.getLogger("unit").warning("careful")
        running.reset(token)
        if handler is not None:
            root.removeHandler(handler)
    output.close()

    assert b"".join(logs.segments).count(b"careful") == 1


def test_streams_and_handlers_are_as_before_after_capturing() -> None:
    before = (sys.stdout, sys.stderr, list(logging.getLogger().handlers))

    with captured_streams(StepLogHandler()):
        assert sys.stdout is not before[0]

    assert (sys.stdout, sys.stderr, list(logging.getLogger().handlers)) == before
