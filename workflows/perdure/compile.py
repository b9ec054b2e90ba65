"""From a definition to a plan: arguments bound, constants encoded, functions named by code."""

from __future__ import annotations

import inspect
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from typing import Any

import msgspec
from blake3 import blake3

from perdure.arguments import ArgumentWriter, Constants, encode
from perdure.bundle import make_bundle
from perdure.chunks import is_chunk
from perdure.errors import DefinitionError, NotSerializable, did_you_mean
from perdure.fingerprint import CodeDigest, code_digest, plain_digest, version_digest
from perdure.foreign import undecorated
from perdure.graph.dag import Dag, Step, make_dag, place_of
from perdure.graph.node import ActorUse, Handle, Node, TaskSpec, describe, use_of_actor
from perdure.interactive import cell_of
from perdure.plan import (
    ActorStep,
    Arg,
    Function,
    Mapped,
    Parameter,
    Plan,
    StepOptions,
    StepPlan,
    encode_plan,
    given_digest,
    is_built_in,
    needs_of,
    own_digest,
    passed_digest,
    step_code,
)
from perdure.secret import SecretRef
from perdure.sources import is_local_name
from perdure.target import load_target, origin_of
from perdure.task import Task, default_name
from perdure.turns import Place as Turn
from perdure.turns import Turns
from perdure.workflow import Workflow
from perdure_storage.hashing import integrity_digest
from perdure_storage.records import Digest, Place, PlanRecord, StoredValue
from perdure_storage.shapes import is_main
from perdure_storage.values import Values

__all__ = ["Prepared", "compile_dag", "load_target", "prepare"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A graph together with the values of its inputs, checked.

    Attributes:
        dag: the graph; static parameters are in it.
        inputs: values of all other parameters, defaults filled in.
        name: the workflow's name.
        origin: target that makes it again, or None.
    """

    dag: Dag
    inputs: dict[str, Any]
    name: str
    origin: str | None = None


def prepare(definition: Any, given: Mapping[Any, Any] | Sequence[Any]) -> Prepared:
    """Bind arguments to a workflow or to the inputs of nodes.

    Args:
        definition: a workflow, a node, containers of nodes, or a ``Dag``.
        given: values by parameter name; for ``Input()`` placeholders also by position.

    Raises:
        DefinitionError: a parameter is unknown, missing or of the wrong type, or the graph makes
            no sense.
    """
    if isinstance(definition, Workflow):
        return _prepare_workflow(definition, _by_text(given))
    if isinstance(definition, Task):
        name = definition.spec.name
        raise DefinitionError(f"{name} is a task: run a node of it, {name}.bind(...)")
    dag = definition if isinstance(definition, Dag) else _free_dag(definition)
    inputs = _by_text(given)
    _check_names(dag, inputs)
    return Prepared(dag=dag, inputs=inputs, name=dag.name)


def _prepare_workflow(workflow: Workflow[Any, Any], given: dict[str, Any]) -> Prepared:
    values = workflow.schema.complete(given)
    static = {field.name for field in workflow.schema.fields if field.static}
    inputs = {name: value for name, value in values.items() if name not in static}
    for name, value in inputs.items():
        _refuse_placeholder(name, value, workflow.name)
        workflow.schema.check(name, value)
    dag = workflow.dag(**{name: values[name] for name in static})
    return Prepared(dag=dag, inputs=inputs, name=workflow.name, origin=origin_of(workflow))


def _refuse_placeholder(name: str, value: Any, workflow: str) -> None:
    if type(value) is Node:
        raise DefinitionError(
            f"{workflow}: {name!r} is given {describe(value)}, which does not exist yet: run its "
            "value, or bind both into one workflow"
        )
    if type(value) is SecretRef:
        raise DefinitionError(
            f"{workflow}: {name!r} is given a Secret: inputs are stored, so name the secret where "
            f"a step takes it, `f.bind(perdure.Secret({value.name!r}))`"
        )


def _free_dag(definition: Any) -> Dag:
    dag = make_dag(definition)
    if not dag.steps:
        raise DefinitionError(
            f"there is no step in {definition!r:.200}: run a workflow, a node (`f.bind(...)`), or "
            "a list, tuple or dict of nodes"
        )
    return dag


def _by_text(given: Mapping[Any, Any] | Sequence[Any]) -> dict[str, Any]:
    pairs = given.items() if isinstance(given, Mapping) else enumerate(given)
    return {str(name): value for name, value in pairs}


def _check_names(dag: Dag, inputs: dict[str, Any]) -> None:
    for name, value in inputs.items():
        if name not in dag.inputs:
            listed = ", ".join(dag.inputs) or "none"
            raise DefinitionError(
                f"{dag.name}: no input {name!r}{did_you_mean(name, dag.inputs)} (inputs: {listed})"
            )
        _refuse_placeholder(name, value, dag.name)
    for name in dag.inputs:
        if name not in inputs:
            raise DefinitionError(
                f"{dag.name}: input {name!r} is missing: inputs={{{name!r}: ...}}"
            )


def compile_dag(dag: Dag, values: Values, *, origin: str | None = None) -> Plan:
    """Return the graph as data; constants and functions that travel are stored through ``values``.

    Args:
        dag: the graph.
        values: where constants, functions and the bundle of sources go.
        origin: target that makes the graph again.

    Raises:
        NotSerializable: a constant or a closure has no encoding; carries the path to the culprit.
        DefinitionError: a node hides where no worker would find it.
    """
    return _Compiler(dag, values).plan(origin)


def compile_growth(dag: Dag, values: Values, turns: Mapping[str, str]) -> Plan:
    """Return a graph that a running step gave as data; its sources are in the run's bundle.

    Args:
        dag: the graph.
        values: where constants and functions go.
        turns: what came before the step in the orders of the actors that it was given.

    Raises:
        NotSerializable: a constant or a closure has no encoding; carries the path to the culprit.
        DefinitionError: an actor is called that the step was not given.
    """
    return _Compiler(dag, values, turns=turns, is_growth=True).graph()


def plan_record(plan: Plan, inputs: Mapping[str, StoredValue]) -> PlanRecord:
    """Return the plan as the store keeps it, with the blobs that it names."""
    body = encode_plan(plan)
    stored = [*plan.constants, *inputs.values()]
    stored += [f.value for f in plan.functions.values() if f.value is not None]
    blobs = {value.integrity for value in stored if value.place is Place.BLOB}
    if plan.bundle is not None:
        blobs.add(Digest(plan.bundle))
    return PlanRecord(
        digest=integrity_digest([body]),
        body=body,
        blobs=tuple(sorted(blobs)),
        needs=needs_of(plan),
    )


_NO_TURN = Turn((), ())


class _Compiler:
    """One compilation. Mutable, used once."""

    def __init__(
        self,
        dag: Dag,
        values: Values,
        *,
        turns: Mapping[str, str] | None = None,
        is_growth: bool = False,
    ) -> None:
        has_branches = any(step.call.spec.branches for step in dag.steps)
        self._turns = Turns(turns or {}, has_branches=has_branches)
        self._dag = dag
        self._values = values
        self._constants = Constants(values)
        self._writer = ArgumentWriter(self._constants, dag.ids, is_growth=is_growth)
        self._functions: dict[str, Function] = {}
        self._function_ids: dict[int, tuple[str, str]] = {}
        self._specs: list[TaskSpec] = []
        self._classes: dict[type, TaskSpec] = {}
        self._options: dict[bytes, int] = {}
        self._option_table: list[StepOptions] = []
        self._option_ids: dict[int, int] = {}
        self._mapped: dict[str, Mapped] = {}
        self._modules: set[str] = set()

    def plan(self, origin: str | None) -> Plan:
        """Return the plan of a run, with the sources that it reached."""
        plan = self.graph()
        bundle, size = self._bundle()
        return msgspec.structs.replace(
            plan, origin=origin, bundle=bundle, bundle_size=size, made_with=_made_with()
        )

    def graph(self) -> Plan:
        """Return the graph as data."""
        steps = self._turns.marked([self._step(step) for step in self._dag.steps])
        self._writer.handles.clear()
        output = self._writer.write(self._dag.output, "the result", [])
        if self._writer.handles:
            raise DefinitionError(
                "an actor is no result: return what one of its methods gives, `stats.mean.bind()`"
            )
        parameters = tuple(self._parameter(each) for each in self._dag.parameters)
        return Plan(
            workflow=self._dag.name,
            steps=steps,
            output=output,
            functions=self._functions,
            constants=self._constants.stored,
            options=tuple(self._option_table),
            mapped=self._mapped,
            parameters=parameters,
        )

    def _step(self, step: Step) -> StepPlan:
        spec = step.call.spec
        function, code = self._function(spec)
        self._writer.handles.clear()
        mapped = _mapped(step)
        try:
            args, kwargs, text = self._arguments(step)
            actor, turn = self._turn(step, mapped, dict(self._writer.handles))
        except (NotSerializable, DefinitionError) as error:
            found = self._functions[function]
            if not is_built_in(found):
                error.add_note(f"  in a call of {found.qualname}, {found.where}")
            raise
        if mapped is not None:
            self._mapped[step.id] = Mapped(
                function=self._function(mapped.spec)[0],
                options=self._option_index(mapped.spec.options),
            )
        given = given_digest(text)
        passed = passed_digest((*args, *kwargs.values()), self._constants.digest)
        own = step_code(code, passed)
        return StepPlan(
            id=step.id,
            name=step.name,
            function=function,
            given=given,
            own=own_digest(own, spec.options.outputs, spec.options.catch, given),
            passed=passed,
            scope=step.scope,
            args=tuple(args),
            kwargs=kwargs,
            after=tuple(dict.fromkeys((*step.after, *turn.after))),
            actor=actor,
            turns=turn.turns,
            options=self._option(spec),
            branches=spec.branches,
            item=step.item,
            width=step.width,
        )

    def _turn(
        self, step: Step, mapped: Task[Any, Any] | None, handles: dict[str, Handle]
    ) -> tuple[ActorStep | None, Turn]:
        """Return what a step is to an actor, and its place in the orders of its actors."""
        use = step.call.spec.actor
        if use is None and not handles:
            return None, _NO_TURN
        if use is None:
            reads = mapped is not None and _reads(mapped.spec.actor)
            ordered = [n for n, each in handles.items() if use_of_actor(each).state == "durable"]
            return None, self._turns.enter(step.id, ordered, writes=not reads)
        if len(handles) != (use.role != "new"):
            raise DefinitionError(
                f"{step.id}: the handle of an actor is for tasks, not for the constructor or a "
                "method of an actor: let a task that is given both return the calls"
            )
        actor = next(iter(handles), step.id)
        cls, _ = self._function(self._class_spec(use.cls))
        made = ActorStep(
            actor=actor,
            cls=cls,
            method=use.method,
            role=use.role,
            state=use.state,
            snapshot=use.snapshot,
            nondeterminism=use.nondeterminism,
            pool=use.pool,
            name=step.name,
        )
        if use.role == "new":
            self._turns.begin(actor)
            return made, _NO_TURN
        if use.state == "rebuild":
            return made, _NO_TURN
        return made, self._turns.enter(step.id, handles, writes=use.role == "write")

    def _class_spec(self, cls: type) -> TaskSpec:
        """Return an actor's class as it travels with the calls of its methods."""
        if cls not in self._classes:
            spec = TaskSpec(function=cls, name=default_name(cls), actor=ActorUse(cls=cls))
            self._classes[cls] = spec
        return self._classes[cls]

    def _arguments(self, step: Step) -> tuple[list[Arg], dict[str, Arg], list[str]]:
        """Write the arguments of a step, and the text over which they are compared."""
        text: list[str] = []
        where = f"{step.id}.bind"
        args: list[Arg] = []
        for index, template in enumerate(step.call.args):
            text.append(f"#{index}")
            args.append(self._writer.write(template, place_of(step, index), text))
        kwargs: dict[str, Arg] = {}
        for name in sorted(step.call.kwargs):
            text.append(f"{name}=")
            kwargs[name] = self._writer.write(step.call.kwargs[name], f"{where}({name})", text)
        return args, kwargs, text

    def _parameter(self, parameter: Parameter) -> Parameter:
        if not parameter.static:
            return parameter
        value = self._dag.statics[parameter.name]
        constant = self._constants.add(value, f"parameter {parameter.name!r}")
        return msgspec.structs.replace(parameter, value=constant.index)

    def _option(self, spec: TaskSpec) -> int:
        index = self._option_ids.get(id(spec))
        if index is None:
            options = spec.options
            if spec.retry_on is not None:
                constant = self._constants.add(spec.retry_on, f"retry_on of {spec.name!r}")
                options = msgspec.structs.replace(options, retry_on=constant.index)
            if spec.stop_when is not None:
                constant = self._constants.add(spec.stop_when, f"stop_when of {spec.name!r}")
                options = msgspec.structs.replace(options, stop_when=constant.index)
            index = self._option_ids[id(spec)] = self._option_index(options)
        return index

    def _option_index(self, options: StepOptions) -> int:
        key = msgspec.json.encode(options, order="deterministic")
        if key not in self._options:
            self._options[key] = len(self._option_table)
            self._option_table.append(options)
        return self._options[key]

    def _function(self, spec: TaskSpec) -> tuple[str, str]:
        """Return the id of a task's function and the digest by which its code counts."""
        known = self._function_ids.get(id(spec))
        if known is None:
            self._specs.append(spec)  # an id must not be given out again meanwhile
            found = code_digest(spec.function)
            self._modules.update(found.modules)
            version = spec.version
            counted = found.digest if version is None else version_digest(spec.name, version)
            function = self._travelling(spec, found, counted)
            self._functions[function.id] = function
            known = self._function_ids[id(spec)] = function.id, counted
        return known

    def _travelling(self, spec: TaskSpec, found: CodeDigest, counted: str) -> Function:
        function = spec.function
        module, qualname = function_name(function)
        value: StoredValue | None = None
        code = counted if spec.version is not None else found.stable
        referred = importable(module, qualname, function)
        if referred is None and spec.actor is not None and spec.actor.method:
            pass  # it travels with its class
        elif referred is None:
            stored = encode(self._values, function, spec.name)
            # It says where in memory the function lies: the same graph would be another one.
            value = msgspec.structs.replace(stored, preview="")
        else:  # the worker digests what it imports, which may declare a version of its own
            code = plain_digest(referred)
        identity = blake3(f"{code} {counted} {value and value.integrity}".encode()).hexdigest(8)
        source = getattr(_placed(function), "__code__", None)
        file = getattr(source, "co_filename", "")
        cell = cell_of(file)
        return Function(
            id=f"{module}:{qualname}@{identity}",
            module=module,
            qualname=qualname,
            code=code,
            counts_as=counted,
            value=value,
            file=file,
            line=getattr(source, "co_firstlineno", 0),
            cell=cell,
            cells={**found.cells, file: cell} if cell else found.cells,
            is_async=spec.is_async,
            manifest=found.manifest,
            not_followed=found.not_followed,
            texts=found.texts if value is not None else {},
        )

    def _bundle(self) -> tuple[str | None, int]:
        modules = self._modules | {
            cls.__module__ for cls in self._constants.classes if is_local_name(cls.__module__)
        }
        data = make_bundle(modules)
        if data is None:
            return None, 0
        return self._values.blobs.put([data]), len(data)


def _mapped(step: Step) -> Task[Any, Any] | None:
    """Return the task that a step calls for each item, if it is a map or a chunk of one."""
    calls_each = step.call.spec.maps or is_chunk(step.call.spec)
    mapped = step.call.args[0] if calls_each else None
    return mapped if isinstance(mapped, Task) else None


def _reads(use: ActorUse | None) -> bool:
    return use is not None and use.role == "read"


def _placed(function: Callable[..., Any]) -> Any:
    """Return what has a place in a file: of a class a function of its body."""
    if not isinstance(function, type):
        return function
    members = [each for each in vars(function).values() if inspect.isfunction(each)]
    return vars(function).get("__init__") or next(iter(members), None)


@lru_cache(maxsize=1)
def _made_with() -> dict[str, str]:
    return {
        "Python": platform.python_version(),
        "perdure": metadata.version("perdure"),
        "on": f"{platform.system()} {platform.machine()}",
    }


def function_name(function: Callable[..., Any]) -> tuple[str, str]:
    """Return the module and qualified name of a function, or of a callable object's class."""
    module = getattr(function, "__module__", None) or type(function).__module__
    return module, getattr(function, "__qualname__", None) or type(function).__qualname__


def importable(module: str, qualname: str, function: Callable[..., Any]) -> Any:
    """Return what a fresh interpreter would import under this name, if it is ``function``.

    Returns:
        The task or function at that name; None if the function has to travel by value: of a
        script, a notebook, a function body, a lambda, or a module that cannot be found again.
    """
    if is_main(module) or "<" in qualname or not _is_findable(module):
        return None
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(undecorated(found), part, None)
    plain = found.function if isinstance(found, Task) else undecorated(found)
    return found if plain is function else None


def _is_findable(module: str) -> bool:
    loaded = sys.modules.get(module)
    return loaded is not None and _finds(module, getattr(loaded, "__file__", None))


@lru_cache(maxsize=4096)
def _finds(module: str, filename: str | None) -> bool:
    """Say whether the import system finds this very module, whatever is loaded already.

    Tests and tools put modules into ``sys.modules`` that nobody else can import.
    """
    parent, _, _ = module.rpartition(".")
    path = getattr(sys.modules.get(parent), "__path__", None) if parent else None
    if parent and path is None:
        return False
    for finder in sys.meta_path:
        find_spec = getattr(finder, "find_spec", None)
        spec = find_spec(module, path, None) if find_spec else None
        if spec is not None:
            return filename is None or spec.origin == filename
    return False
