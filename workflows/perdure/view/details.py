"""One step in full; nothing is decoded for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec

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
    AttemptView,
    ErrorView,
    Preview,
    read_preview,
    view_attempt,
    view_error,
)
from perdure_storage.shapes import readable

if TYPE_CHECKING:
    from perdure.runs import Step
    from perdure_storage.records import StoredValue


class InputView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One value that a step takes.

    Attributes:
        name: the argument, ``[0]`` or ``rows``, with the place inside it.
        of: where it comes from: ``step load``, ``parameter k``, ``constant``, ``secret TOKEN``.
        part: which part of that value is taken, ``["rows"]``; empty if all of it.
        preview: what that value looked like when it was stored.
    """

    name: str
    of: str
    part: str = ""
    preview: Preview | None = None


class AskedView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one attempt may hold, and how failure is met."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory_bytes: int | None = None
    resources: dict[str, float] = {}
    timeout_s: float | None = None
    retries: int = 0


class GenerationView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One life of a step's result; ``current`` is the one that counts."""

    generation: int
    status: str
    current: bool
    reason: str = ""
    preview: Preview | None = None


class DetailView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step.

    Attributes:
        task: its function, ``module.name``, and ``where`` that was written.
        asked: what it asks for; ``peak_memory_bytes`` is what it held at most, over all attempts.
        generations: every life of its result, if there were several.
        fingerprint: equal ones mean equal results; ``code`` is the digest of the code it ran.
    """

    run: str
    id: str
    status: str
    generation: int
    task: str
    where: str = ""
    why: str = ""
    duration_s: float | None = None
    asked: AskedView = AskedView()
    peak_memory_bytes: int | None = None
    code: str = ""
    fingerprint: str = ""
    inputs: list[InputView] = []
    preview: Preview | None = None
    generations: list[GenerationView] = []
    attempts: list[AttemptView] = []
    error: ErrorView | None = None


def view_detail(step: Step, siblings: story.Siblings) -> DetailView:
    """Return a step as it stood when it was asked for.

    Args:
        step: the step.
        siblings: all steps of its run.
    """
    run, row = step.run, step.row
    function = step.graph.functions[step.plan.function]
    attempts = [view_attempt(attempt) for attempt in step.attempts]
    peaks = [each.peak_memory_bytes for each in attempts if each.peak_memory_bytes is not None]
    return DetailView(
        run=run.id,
        id=step.id,
        status=str(step.status),
        generation=step.generation,
        task=readable(f"{function.module}.{function.qualname}"),
        where=f"{function.file}:{function.line}" if function.file else "",
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
