"""A program that sets OpenTelemetry up, in whichever process imports it; spans go into a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

import perdure
from perdure import task, workflow

PLACE = "SPANS_GO_HERE"


class IntoFile(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with Path(os.environ[PLACE]).open("a") as file:
            for span in spans:
                file.write(span.to_json(indent=None) + "\n")
        return SpanExportResult.SUCCESS


if PLACE in os.environ:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(IntoFile()))
    trace.set_tracer_provider(provider)
tracer = trace.get_tracer("the users own")


@task
def measured(x: int) -> int:
    with tracer.start_as_current_span("inside the step"):
        return x + 1


@task(retries=1)
def refused(x: int) -> int:
    if not Path(os.environ[PLACE]).with_suffix(".mended").exists():
        raise ValueError("not yet")
    return x


@workflow
def traced(x: int = 1) -> int:
    return refused.bind(measured.bind(x))


def main(executor: str) -> None:
    """Fail, be mended, and go on, within a span of the program's."""
    with (
        perdure.open("perdure.db", executor=executor) as store,
        tracer.start_as_current_span("the program"),
    ):
        try:
            store.run(traced, run_id="r")
        except perdure.RunFailed:
            Path(os.environ[PLACE]).with_suffix(".mended").touch()
        assert store.resume("r").result() == 2


if __name__ == "__main__":
    from tests.acceptance import traced_steps  # so that workers find its tasks by import

    traced_steps.main(sys.argv[1])
