"""What a class consists of, as far as its author wrote it: for the digest of its code.

Read from the live class, not from its source: a class may be of a notebook, made by a call, or
patched. Generated methods and bookkeeping are left out, fields and their defaults are not.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import types
from typing import Any

_CLASS_SKIPPED = frozenset(
    {
        "__doc__", "__module__", "__qualname__", "__dict__", "__weakref__", "__firstlineno__",
        "__static_attributes__", "__parameters__", "__orig_bases__", "__abstractmethods__",
        "_abc_impl", "__annotations__", "__annotate__", "__annotate_func__",
        "__annotations_cache__", "__dataclass_fields__", "__dataclass_params__", "__match_args__",
        "__hash__", "__subclasshook__", "__protocol_attrs__", "_is_protocol",
        "_is_runtime_protocol", "__non_callable_proto_members__", "__signature__",
        "__class_getitem__", "__slotnames__", "__perdure_actor__",
    }
)  # fmt: skip
_ENUM_OWN = frozenset(
    {
        "_member_names_", "_member_map_", "_value2member_map_", "_unhashable_values_",
        "_unhashable_values_map_", "_hashable_values_", "_member_type_", "_value_repr_",
        "_use_args_", "_generate_next_value_", "_new_member_", "__new__", "__reduce_ex__",
        "_flag_mask_", "_all_bits_", "_boundary_", "_singles_mask_", "_inverted_", "_missing_",
        "__format__", "__str__", "__repr__", "_order_", "_ignore_",
    }
)  # fmt: skip


def class_members(cls: type) -> dict[str, Any]:
    """Return what a class body defined: no generated methods, no bookkeeping."""
    if issubclass(cls, enum.Enum):
        members: dict[str, Any] = {name: member.value for name, member in cls.__members__.items()}
        return {**_written(cls, _ENUM_OWN | members.keys()), **members}
    if dataclasses.is_dataclass(cls):
        return {**_written(cls, frozenset()), **_dataclass_members(cls)}
    if hasattr(cls, "__struct_fields__"):
        return {**_functions_only(cls), **_struct_members(cls)}
    if hasattr(cls, "__pydantic_fields__"):
        return {**_functions_only(cls), **_model_members(cls)}
    return _written(cls, frozenset())


def _written(cls: type, skipped: frozenset[str] | set[str]) -> dict[str, Any]:
    return {
        name: repr(value) if name == "__attrs_attrs__" else value
        for name, value in vars(cls).items()
        if name not in _CLASS_SKIPPED
        and name not in skipped
        and not isinstance(value, types.MemberDescriptorType | types.GetSetDescriptorType)
        and type(value).__name__ != "_tuplegetter"  # a named tuple's field
        and not _is_generated(value, name)
    }


def _functions_only(cls: type) -> dict[str, Any]:
    kinds = (types.FunctionType, staticmethod, classmethod, property)
    return {
        name: value
        for name, value in _written(cls, frozenset()).items()
        if isinstance(value, kinds) and not name.startswith(("__pydantic", "__struct", "model_"))
    }


def _dataclass_members(cls: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"__dataclass_params__": repr(cls.__dataclass_params__)}
    for each in dataclasses.fields(cls):
        if each.default is not dataclasses.MISSING:
            found[f"{each.name} ="] = each.default
        if each.default_factory is not dataclasses.MISSING:
            found[f"{each.name} = factory"] = each.default_factory
        flags = (each.init, each.repr, each.compare, each.kw_only)
        found[f"{each.name} flags"] = repr(flags)
    return found


def _struct_members(cls: Any) -> dict[str, Any]:
    """Return what a msgspec Struct's fields and settings are."""
    config = cls.__struct_config__
    found: dict[str, Any] = {
        f"config {name}": getattr(config, name) for name in dir(config) if not name.startswith("_")
    }
    found["fields"] = cls.__struct_fields__
    defaults = cls.__struct_defaults__
    for name, value in zip(cls.__struct_fields__[-len(defaults) :] if defaults else (), defaults):
        found[f"{name} ="] = getattr(value, "factory", value)
    return found


def _model_members(cls: Any) -> dict[str, Any]:
    """Return what a pydantic model's fields are."""
    found: dict[str, Any] = {"config": repr(sorted(cls.model_config.items()))}
    for name, info in cls.__pydantic_fields__.items():
        found[f"{name} :"] = f"{class_text(info.annotation)} {info.metadata!r} {info.alias}"
        if not info.is_required():
            found[f"{name} ="] = info.default_factory or info.default
    return found


def class_annotations(cls: type) -> str:
    """Return the annotations of a class body, in order."""
    try:
        annotations = inspect.get_annotations(cls)
    except Exception:  # noqa: BLE001 (foreign code: annotations may be evaluated lazily)
        annotations = {}
    return repr([(name, class_text(value)) for name, value in annotations.items()])


def class_text(value: Any) -> str:
    """Return an annotation as text that is the same in every process."""
    if isinstance(value, type) and not hasattr(value, "__origin__"):
        return value.__qualname__
    return str(value)


def _is_generated(value: Any, name: str) -> bool:
    """Say whether a method was made by a decorator (dataclass, attrs), not written."""
    if not isinstance(value, types.FunctionType):
        return False
    function = inspect.unwrap(value)  # a data class wraps the __repr__ that it makes
    filename = function.__code__.co_filename
    return filename.startswith("<attrs") or (filename == "<string>" and name.startswith("__"))
