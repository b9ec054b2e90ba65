"""Constants and argument templates as a plan has them; and the digest of a step's own part."""

from __future__ import annotations

from typing import Any

from perdure.errors import DefinitionError
from perdure.fingerprint import is_code
from perdure.graph.arguments import Entries, Fields, Items, find_path, resolve
from perdure.graph.node import (
    Call,
    Handle,
    Inputs,
    Mention,
    Node,
    describe,
    input_name,
    path_of,
    place_of_actor,
    source_of,
)
from perdure.plan import (
    Arg,
    Attr,
    Const,
    DictArg,
    FromInput,
    FromSecret,
    FromStep,
    Item,
    ItemsOf,
    ListArg,
    ObjectArg,
    Path,
    RefTo,
)
from perdure.reference import StepRef
from perdure.secret import SecretRef
from perdure_storage.errors import NotSerializable
from perdure_storage.records import StoredValue
from perdure_storage.values import Values

_ATOMS = (str, int, bool, type(None))


class Constants:
    """The constants of one plan, each object encoded once. Mutable, used for one compilation."""

    def __init__(self, values: Values) -> None:
        self._values = values
        self._stored: list[StoredValue] = []
        self._by_key: dict[Any, Const] = {}
        self._by_bytes: dict[tuple[str, str], Const] = {}
        self._alive: list[Any] = []  # an id must not be given out again meanwhile
        self.classes: set[type] = set()

    @property
    def stored(self) -> tuple[StoredValue, ...]:
        """Return what was encoded so far, by index."""
        return tuple(self._stored)

    def digest(self, constant: Const) -> str:
        """Return a constant's value digest."""
        return self._stored[constant.index].value_digest

    def add(self, value: Any, where: str) -> Const:
        """Encode a constant, unless this object, or an equal encoding, is there already.

        Raises:
            NotSerializable: it has no encoding; the message leads to the culprit.
        """
        key = (type(value), value) if type(value) in _ATOMS else id(value)
        known = self._by_key.get(key)
        if known is None:
            known = self._by_key[key] = self._encoded(value, where)
            self._alive.append(value)
            self.classes.add(value if isinstance(value, type) else type(value))
        return known

    def _encoded(self, value: Any, where: str) -> Const:
        stored = encode(self._values, value, where)
        # Equal bytes are one constant, unless the digests tell the values apart.
        key = (f"{stored.codec} {stored.integrity}", stored.value_digest)
        known = self._by_bytes.get(key)
        if known is None:
            known = self._by_bytes[key] = Const(len(self._stored))
            self._stored.append(stored)
        return known


def encode(values: Values, value: Any, where: str) -> StoredValue:
    """Store a constant or a function that travels by value.

    Raises:
        NotSerializable: it has no encoding; the message leads to the culprit.
        DefinitionError: a node hides in it.
    """
    try:
        return values.store(value, name=where)
    except NotSerializable as error:
        hidden = find_path(value, lambda item: type(item) is Node)
        if hidden is not None:
            raise DefinitionError(
                f"{where}{hidden}: a node is in a place where no worker will find it: pass it as "
                "an argument of its own"
            ) from None
        if not values.codecs.allow_pickle:
            raise  # it says what such a store takes
        raise NotSerializable(
            f"{error}. Make it inside the task from what it is made of (a path, a URL, a seed), or "
            "give its class __getstate__ and __setstate__ that leave this part out",
            path=error.path,
        ) from error


class ArgumentWriter:
    """Turns templates into a plan's arguments, and says in text what does not come from upstream.

    The text is what a step's own digest is made of: constants by value digest, structure, and
    where an upstream value or code comes in, but not from which step, and not which code.

    Attributes:
        handles: the actors that were met, by the step of the constructor; taken by who asks.
    """

    def __init__(
        self, constants: Constants, ids: dict[Call, str], *, is_growth: bool = False
    ) -> None:
        self._constants = constants
        self._ids = ids
        self._is_growth = is_growth
        self.handles: dict[str, Handle] = {}

    def write(self, template: Any, where: str, text: list[str]) -> Arg:
        """Return the argument, and append what it says about itself to ``text``.

        Raises:
            NotSerializable: a constant in it has no encoding.
        """
        kind = type(template)
        if kind is Node:
            return self._node(template, where, text)
        if kind is SecretRef:
            text.append(f"secret:{template.name}")
            return FromSecret(template.name)
        if kind is StepRef:
            return self._reference(template, where, text)
        if kind is Mention:
            return self._mention(template, where, text)
        if kind is Items:
            text.append(f"{template.kind}[")
            items = tuple(
                self.write(item, f"{where}[{index}]", text)
                for index, item in enumerate(template.items)
            )
            text.append("]")
            return ListArg(items, template.kind)
        if kind is Entries:
            return self._entries(template, where, text)
        if kind is Fields:
            return self._fields(template, where, text)
        if isinstance(template, Handle):
            return self._handle(template, where, text)
        constant = self._constants.add(template, where)
        if is_code(template):
            text.append("code")
            return Const(constant.index, is_code=True)
        text.append(self._constants.digest(constant))
        return constant

    def _entries(self, template: Entries, where: str, text: list[str]) -> Arg:
        text.append("dict[")
        keys: list[Const] = []
        values: list[Arg] = []
        for key, value in zip(template.keys, template.values):
            keys.append(self._constants.add(key, f"{where} (a key)"))
            text.append(self._constants.digest(keys[-1]))
            values.append(self.write(value, f"{where}[{key!r}]", text))
        text.append("]")
        return DictArg(tuple(keys), tuple(values))

    def _fields(self, template: Fields, where: str, text: list[str]) -> Arg:
        cls = self._constants.add(template.cls, f"{where} (its class)")
        text.append(f"object[{self._constants.digest(cls)}")
        fields = {}
        for name, value in template.fields.items():
            text.append(name)
            fields[name] = self.write(value, f"{where}.{name}", text)
        text.append("]")
        return ObjectArg(cls, fields)

    def _node(self, node: Node, where: str, text: list[str]) -> Arg:
        target = resolve(node)
        if type(target) is not Node:
            return self.write(target, where, text)
        source, path = source_of(target), path_of(target)
        if isinstance(source, Inputs):
            text.append("input")
            return FromInput(input_name(path), path[1:])
        assert isinstance(source, Call)
        text.append("step")
        return FromStep(self._ids[source], _positive(path, source.spec.options.outputs))

    def _handle(self, handle: Handle, where: str, text: list[str]) -> FromStep:
        at = place_of_actor(handle)
        if isinstance(at, StepRef):
            arg = self._reference(at, where, text)
        else:
            call = source_of(at)
            assert isinstance(call, Call)
            text.append("step")
            arg = FromStep(self._ids[call])
        self.handles[arg.step] = handle
        return arg

    def _reference(self, ref: StepRef, where: str, text: list[str]) -> FromStep:
        """Return the value of a step of the run that this graph will be part of."""
        if not self._is_growth:
            raise DefinitionError(
                f"{where}: a reference to step {ref} means something in its own run only: bind it "
                "in a step's function, and return the node"
            )
        text.append("step")
        return FromStep(ref.step_id, tuple(Item(key) for key in ref.path))

    def _mention(self, mention: Mention, where: str, text: list[str]) -> Arg:
        if isinstance(mention.node, StepRef):
            value = self._reference(mention.node, where, [])
            text.append("ref")
            return RefTo(value.step, tuple(part for part in value.path if isinstance(part, Item)))
        target = resolve(mention.node)
        source = source_of(target) if type(target) is Node else None
        if mention.items and not (isinstance(source, Call) and not path_of(target)):
            return self.write(target, where, text)
        if not isinstance(source, Call):
            raise DefinitionError(
                f"{where}: {describe(mention.node)} is no step, so there is nothing to wait for"
            )
        step = self._ids[source]
        if mention.items:
            text.append("items")
            return ItemsOf(step)
        path = _positive(path_of(target), source.spec.options.outputs)
        keys = tuple(part for part in path if isinstance(part, Item))
        if len(keys) < len(path):
            raise DefinitionError(
                f"{where}: {describe(mention.node)} is an attribute of a value: "
                "take the step itself"
            )
        text.append("ref")
        return RefTo(step, keys)


def _positive(path: Path, outputs: int) -> Path:
    """Return a path whose index into several outputs counts from the front."""
    first: Item | Attr | None = path[0] if path else None
    if outputs > 1 and isinstance(first, Item) and isinstance(first.key, int) and first.key < 0:
        return (Item(first.key + outputs), *path[1:])
    return path
