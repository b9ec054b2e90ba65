"""What runs, steps and workflows look like in a notebook: elements, read from rows alone.

A picture of a run keeps its shape while the run goes on: what changes has its place from the
beginning, so that nothing below it jumps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import cache
from importlib.resources import files

from perdure import words
from perdure.explaining import Explanation
from perdure.graph.dag import Dag
from perdure.interactive import with_cells
from perdure.notebook.graphs import view_dag
from perdure.runs import Run, Step
from perdure.story import Siblings
from perdure.view.drawing import draw_graph, standing_text, status_class
from perdure.view.graph import DRAWN_UP_TO, view_graph
from perdure.view.markup import Asset, Content, Element, element
from perdure.view.model import ErrorView, GraphView, RunView, StepView
from perdure.view.overview import draw_overview
from perdure.view.rows import draw_attempts, error_line
from perdure.view.runs import view_attempts, view_run, view_runs, view_step
from perdure.view.summary import draw_progress
from perdure.view.values import draw_value
from perdure.workflow import Workflow
from perdure_storage.errors import PerdureError
from perdure_storage.lifecycle import RunStatus

NODES_UP_TO = 300
"""More nodes than that make a picture that no cell has room for: they are squares there."""
_LISTED = 40
_NOW = 4
_TAIL_BYTES = 2048
_FAILURES = 2
_FAILED = ("FAILED", "caught")
_RUNNING = ("RUNNING", "READY", "WAITING")


@cache
def _style() -> Asset:
    """Return the style of pages, and what is different in a notebook, whose theme is its own."""
    sheets = (
        files("perdure.view").joinpath("assets", "view.css"),
        files("perdure.notebook").joinpath("notebook.css"),
    )
    return Asset("".join(sheet.read_text() for sheet in sheets))


def framed(*content: Content) -> Element:
    """Return content with the style that it needs, whatever page it ends up in."""
    return element("div", element("style", _style()), content, class_="perdure cell")


# --- runs ---------------------------------------------------------------------------------------
def draw_run(run: Run) -> Element:
    """Return the picture of a run as its store has it now."""
    siblings = Siblings(run)
    view = view_run(run, siblings)
    now = run.runtime.clock.now()
    return framed(
        _head(view, now),
        draw_progress(view.steps),
        _graph(view_graph(siblings.steps)),
        element("div", _now(run, view, siblings.steps, now), class_="now"),
        _listing(view.steps),
        element("p", view.next, class_="next") if view.next else None,
        element("p", f"no plan yet: {view.unplanned}", class_="next") if view.unplanned else None,
    )


def _head(view: RunView, now: datetime) -> Element:
    return element(
        "header",
        _pill(view.status),
        element("b", view.workflow),
        element("code", view.id, class_="run-id"),
        element("span", _took(view, now), class_="run-id"),
    )


def _pill(status: str) -> Element:
    return element("span", status.lower(), class_=_pill_class(status))


def _pill_class(status: str) -> str:
    return f"pill {status_class(status)}"


def _took(view: RunView, now: datetime) -> str:
    """Return for how long a run has been driven; in whole seconds while that goes on."""
    if view.started_at is None:
        return ""
    if view.finished_at is not None:
        return words.duration((view.finished_at - view.started_at).total_seconds())
    return f"{(now - view.started_at).total_seconds():.0f} s" if view.driver is not None else ""


def _standing_class(standing: str) -> str:
    return f"standing {status_class(standing)}"


def _graph(graph: GraphView) -> Element:
    number = graph.left_out or len(graph.nodes)
    if number > DRAWN_UP_TO:
        return element("p", f"a graph of {number:,} nodes", class_="more")
    if number > NODES_UP_TO:
        return element("div", draw_overview(graph, {}), class_="canvas all")
    return element("div", draw_graph(graph, {}), class_="canvas")


def _now(run: Run, view: RunView, steps: Sequence[Step], now: datetime) -> Iterator[Content]:
    """Yield what is to be known first: what failed, what goes on, and else what took longest."""
    if view.error is not None:
        yield _error(view.error)
        return
    failed = [each for each in view.steps if each.standing in _FAILED]
    running = _in_flight(steps, view.steps)
    if failed or running:
        rows = [_went_wrong(each) for each in failed[:_FAILURES]]
        rows += [_going(run, step, each, now) for step, each in running[: _NOW - len(rows)]]
        yield element("table", element("tbody", rows))
    if view.status == RunStatus.SUCCEEDED:
        yield element("p", f"result {_result(run, view.steps)}", class_="result")
        slowest = sorted(view.steps, key=lambda each: -(each.duration_s or 0.0))
        ran = [each for each in slowest if each.standing == "SUCCEEDED" and each.duration_s]
        told = ", ".join(f"{each.id} {words.duration(each.duration_s)}" for each in ran[:_NOW])
        yield element("p", f"slowest {told}" if told else "nothing ran", class_="more")


def _in_flight(steps: Sequence[Step], views: Sequence[StepView]) -> list[tuple[Step, StepView]]:
    """Return what runs, then what waits; a map is told by what runs of it."""
    pairs = [
        (step, view)
        for step, view in zip(steps, views)
        if view.standing in _RUNNING and (view.standing != "WAITING" or view.reason)
    ]
    return sorted(pairs, key=lambda pair: _RUNNING.index(pair[1].standing))


def _went_wrong(view: StepView) -> Element:
    told = error_line(view.error) if view.error else view.reason
    return element(
        "tr",
        element("td", view.id),
        element("td", standing_text(view.standing), class_=_standing_class(view.standing)),
        element("td", words.duration(view.duration_s), class_="number"),
        element("td", words.one_line(told, 90), class_="told"),
    )


def _going(run: Run, step: Step, view: StepView, now: datetime) -> Element:
    began = step.attempts[-1].started_at if step.attempts else None
    since = (now - began).total_seconds() if began and view.standing == "RUNNING" else None
    told = _last_line(run, step) if step.attempts and not view.reason else ""
    return element(
        "tr",
        element("td", view.id),
        element("td", standing_text(view.standing), class_=_standing_class(view.standing)),
        element("td", "" if since is None else f"{since:.0f} s", class_="number"),
        element("td", element("code", told) if told else view.reason, class_="told"),
    )


def _last_line(run: Run, step: Step) -> str:
    """Return the last line that a step's attempt has printed."""
    last = step.attempts[-1]
    try:
        tail = run.runtime.logs.read(
            last.run_id, last.step_id, last.generation, last.attempt, offset=-_TAIL_BYTES
        )
    except PerdureError:  # logs are a help, not a truth
        return ""
    lines = [each for each in tail.decode(errors="replace").splitlines() if each.strip()]
    return words.one_line(words.printable(lines[-1]), 80) if lines else ""


def _error(error: ErrorView) -> Element:
    """Return an error in a line; its traceback is folded, for a cell that waited shows it below."""
    where = f"step {error.step}: " if error.step else ""
    told = element("p", words.beginning(f"{where}{error_line(error)}"), class_="message")
    lines = with_cells(error.traceback.rstrip())
    folded = element("details", element("summary", "traceback"), element("pre", lines))
    return element("div", told, folded if lines else None, class_="error")


def _result(run: Run, steps: Iterable[StepView]) -> str:
    """Return what a run's result looked like when it was stored, if it is one step's value."""
    step_id = getattr(run.plan.output, "step", None)
    return next((words.shown(each.preview) for each in steps if each.id == step_id), "")


def _listing(steps: Sequence[StepView]) -> Element:
    """Return the steps, folded: where each stands, and why it ran or did not."""
    shown = steps[:_LISTED]
    rows = [
        (
            each.id,
            element("span", standing_text(each.standing), class_=_standing_class(each.standing)),
            words.duration(each.duration_s),
            words.shown(each.preview, 40),
            each.reason,
        )
        for each in shown
    ]
    left = len(steps) - len(shown)
    return element(
        "details",
        element("summary", _reuse(steps)),
        table(("STEP", "STATUS", "TOOK", "VALUE", "WHY"), rows),
        element("p", f"and {words.count_of(left, 'more step')}", class_="more") if left else None,
    )


def _reuse(steps: Sequence[StepView]) -> str:
    """Return what was taken over, and why the rest ran."""
    reused = sum(each.standing == "reused" for each in steps)
    if not reused:
        return words.count_of(len(steps), "step")
    why = [f"{each.id}: {each.reason}" for each in steps if each.reason and _ran(each)]
    return "; ".join([f"reused {reused:,} of {len(steps):,}", *why[:2]])


def _ran(step: StepView) -> bool:
    return step.attempts > 0 and step.standing != "reused" and "upstream" not in step.reason


# --- other things -------------------------------------------------------------------------------
def draw_runs(runs: Sequence[Run]) -> Element:
    """Return a table of runs."""
    views = view_runs(runs)
    now = runs[0].runtime.clock.now() if runs else None
    rows = [
        (
            element("code", view.id),
            view.workflow,
            _pill(view.status),
            words.age(view.created_at, now) if now else "",
            _took(view, view.created_at),
            element(
                "span", words.one_line(view.error.message, 80) if view.error else "", class_="told"
            ),
        )
        for view in views
    ]
    return framed(
        table(("ID", "WORKFLOW", "STATUS", "CREATED", "TOOK", "ERROR"), rows)
        if rows
        else element("p", "no runs", class_="more")
    )


def draw_step(step: Step) -> Element:
    """Return where a step stands, why, its value, its attempts, and what it printed."""
    siblings = Siblings(step.run)
    view = view_step(step, siblings)
    printed = "\n".join(map(words.printable, step.logs()[-_TAIL_BYTES:].splitlines()))
    return framed(
        element(
            "header",
            element("span", standing_text(view.standing), class_=_pill_class(view.standing)),
            element("b", step.id),
            element("code", step.run.id, class_="run-id"),
            element("span", words.duration(view.duration_s), class_="run-id"),
        ),
        element("p", step.why().partition("\n")[0], class_="more"),
        _error(view.error) if view.error else draw_value(view.preview),
        draw_attempts(view_attempts(step, siblings)) if step.attempts else None,
        element("pre", printed, class_="log") if printed else None,
    )


def draw_workflow(workflow: Workflow[..., object]) -> Element:
    """Return a workflow's parameters, and its graph if that can be made from its defaults."""
    rows = [
        (each.name, each.annotation or "any value", each.default or "")
        for each in (field.planned() for field in workflow.schema.fields)
    ]
    told = (workflow.__doc__ or "").strip().splitlines()
    return framed(
        element("header", element("b", workflow.name), "workflow"),
        element("p", told[0], class_="more") if told else None,
        table(("PARAMETER", "TYPE", "DEFAULT"), rows) if rows else None,
        _graph_of(workflow),
    )


def _graph_of(workflow: Workflow[..., object]) -> Element:
    """Return a workflow's graph, or why there is none: its body is traced, as before each run."""
    fields = workflow.schema.fields
    if missing := [each.name for each in fields if each.static and each.required]:
        given = ", ".join(f"{name}=..." for name in missing)
        return element("p", f"{workflow.name}.dag({given}) shows its graph", class_="more")
    try:
        return _graph(view_dag(workflow.dag()))
    except Exception as error:  # noqa: BLE001 - of the user, whose run would raise it as well
        said = words.one_line(f"{type(error).__name__}: {error}", 200)
        return element("p", f"its graph cannot be made: {said}", class_="more")


def draw_dag(dag: Dag) -> Element:
    """Return the picture of a graph that has not run."""
    return framed(element("header", element("b", dag.name)), _graph(view_dag(dag)))


def draw_text(text: str) -> Element:
    """Return text whose columns are aligned."""
    return framed(element("pre", text, class_="aligned"))


def draw_explanation(explanation: Explanation) -> Element:
    """Return what a verb would do, as a table."""
    rows = [(each.id, each.verdict.value, each.reason) for each in explanation.steps[:_LISTED]]
    left = len(explanation.steps) - len(rows)
    return framed(
        element("p", explanation.title),
        table(("STEP", "WOULD", "WHY"), rows),
        element("p", f"and {words.count_of(left, 'more step')}", class_="more") if left else None,
    )


def table(header: Sequence[str], rows: Iterable[Sequence[Content]]) -> Element:
    """Return a table, which scrolls where the page is too narrow for it."""
    heads = element("thead", element("tr", (element("th", name) for name in header)))
    body = element("tbody", (element("tr", (element("td", each) for each in row)) for row in rows))
    return element("div", element("table", heads, body), class_="table")
