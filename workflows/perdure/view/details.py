"""One step in full; nothing is decoded for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from perdure import story
from perdure.plan import (
    Arg,
    Const,
    DictArg,
    FromInput,
    FromSecret,
    FromStep,
    ItemsOf,
    ListArg,
    ObjectArg,
    Plan,
    RefTo,
    StepPlan,
    path_text,
)
from perdure.view.model import (
    AskedView,
    DetailView,
    GenerationView,
    InputView,
)
from perdure.view.runs import read_preview, view_attempts, view_error
from perdure_storage.shapes import readable

if TYPE_CHECKING:
    from perdure.runs import Step
    from perdure_storage.records import StoredValue


def view_detail(step: Step, siblings: story.Siblings) -> DetailView:
    """Return a step as it stood when it was asked for.

    Args:
        step: the step.
        siblings: all steps of its run.
    """
    run, row = step.run, step.row
    function = step.graph.functions[step.plan.function]
    attempts = view_attempts(step, siblings)
    peaks = [each.peak_memory_bytes for each in attempts if each.peak_memory_bytes is not None]
    return DetailView(
        run=run.id,
        id=step.id,
        status=str(step.status),
        generation=step.generation,
        task=readable(f"{function.module}.{function.qualname}"),
        where=function.where,
        why=story.why(step, siblings),
        duration_s=step.duration.total_seconds() if step.duration is not None else None,
        asked=_asked(step.graph, step.plan),
        peak_memory_bytes=max(peaks, default=None),
        code=row.code if row is not None else "",
        fingerprint=row.fingerprint if row is not None else "",
        inputs=_inputs(step, siblings),
        preview=step.preview,
        generations=_generations(step) if step.generation > 1 else [],
        attempts=attempts,
        error=view_error(step.error),
    )


def _generations(step: Step) -> list[GenerationView]:
    return [
        GenerationView(
            generation=life.number,
            status=str(life.status),
            current=life.is_current,
            reason=life.reason,
            preview=life.preview,
        )
        for life in step.generations
    ]


def _asked(plan: Plan, step: StepPlan) -> AskedView:
    options = plan.options[step.options]
    return AskedView(
        cpus=options.cpus,
        gpus=options.gpus,
        memory_bytes=options.memory_bytes,
        resources=options.resources,
        timeout_s=options.timeout_s,
        retries=options.retries,
    )


# --- what it takes ------------------------------------------------------------------------------
def _inputs(step: Step, siblings: story.Siblings) -> list[InputView]:
    call = step.plan
    named = [(f"[{at}]", arg) for at, arg in enumerate(call.args)] + list(call.kwargs.items())
    leaves = [leaf for name, arg in named for leaf in _leaves(name, arg)]
    given = step.run.record.inputs if any(isinstance(leaf, FromInput) for _, leaf in leaves) else {}
    return [_input(step, siblings, given, name, leaf) for name, leaf in leaves]


def _leaves(name: str, arg: Arg) -> Iterator[tuple[str, Arg]]:
    match arg:
        case ListArg(items):
            for at, item in enumerate(items):
                yield from _leaves(f"{name}[{at}]", item)
        case DictArg(_, values):
            for at, item in enumerate(values):
                yield from _leaves(f"{name}{{{at}}}", item)
        case ObjectArg(_, fields):
            for field, item in fields.items():
                yield from _leaves(f"{name}.{field}", item)
        case _:
            yield name, arg


def _input(
    step: Step,
    siblings: story.Siblings,
    given: Mapping[str, StoredValue],
    name: str,
    leaf: Arg,
) -> InputView:
    match leaf:
        case FromStep(upstream, path):
            of, value = f"step {upstream}", siblings.values.get(upstream)
        case ItemsOf(upstream):
            of, value, path = f"items of {upstream}", siblings.values.get(upstream), ()
        case RefTo(upstream, path):
            of, value = f"a reference to {upstream}", None
        case FromInput(parameter, path):
            of, value = f"parameter {parameter}", given.get(parameter)
        case FromSecret(secret):
            return InputView(name=name, of=f"secret {secret}")
        case Const(index):
            of, value, path = "constant", step.graph.constants[index], ()
        case _:
            raise TypeError(f"no leaf: {leaf!r}")
    preview = read_preview(value.preview) if value is not None else None
    return InputView(name=name, of=of, part=path_text(path), preview=preview)
