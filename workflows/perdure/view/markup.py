"""HTML and SVG as elements: whatever is text is escaped here, and nowhere else.

Names of steps, values, log lines and tracebacks are other people's: none of them may become
markup. So pages are made of elements, never of strings put together, and only this module writes
a ``<``. Names of elements and attributes are ours; those that could run something are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeAlias, Union

_VOID = frozenset({"meta", "br", "hr", "img", "input", "link"})
_RAW = frozenset({"script", "style"})
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*")
_FIGURE = re.compile(r"data:image/png;base64,[A-Za-z0-9+/=]*")
_LINK = re.compile(r"#[^\s]*")
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"}
_SPECIAL = re.compile("[&<>\"']")

Attribute: TypeAlias = str | float | bool | None
Content: TypeAlias = Union["Element", str, Iterable["Content"], None]


class Asset(str):
    """A style sheet or a program of our own, which goes into a page as it is."""

    __slots__ = ()


class Element:
    """One element: its name, its attributes, and what is in it. Immutable once made."""

    __slots__ = ("attributes", "content", "tag")

    def __init__(self, tag: str, attributes: dict[str, Attribute], content: Content) -> None:
        self.tag = tag
        self.attributes = attributes
        self.content = content

    def __str__(self) -> str:
        parts: list[str] = []
        _write(self, parts)
        return "".join(parts)


def element(tag: str, *content: Content, **attributes: Attribute) -> Element:
    """Return an element.

    Args:
        tag: its name.
        *content: elements, text, or iterables of them; None is nothing.
        **attributes: a name that Python keeps for itself ends in ``_`` (``class_``), ``_`` inside
            of one is ``-`` (``data_step``); False and None leave the attribute out, True gives it
            no value.

    Raises:
        ValueError: it could run something, or load something from elsewhere.
    """
    named = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
    _check_name(tag)
    for name, value in named.items():
        _check_name(name)
        _check_attribute(name, value)
    if tag in _RAW and not all(isinstance(each, Asset) for each in content):
        raise ValueError(f"<{tag}> takes our own assets only")
    return Element(tag, named, content)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"no name of an element or an attribute: {name!r}")


def _check_attribute(name: str, value: Attribute) -> None:
    if name.startswith("on") or name in ("style", "srcdoc", "action", "formaction"):
        raise ValueError(f"an attribute {name!r} could run something")
    if name == "href" and not _LINK.fullmatch(str(value)):
        raise ValueError(f"a link leads to a place in the page, not to {value!r}")
    if name == "src" and not _FIGURE.fullmatch(str(value)):
        raise ValueError(f"a figure is in the page itself, not at {value!r:.40}")


def escape(text: str) -> str:
    """Return ``text`` as markup shows it; what cannot be seen, but for line breaks, is marked."""
    if not text.isprintable():
        text = "".join(each if each.isprintable() or each in "\n\t" else "�" for each in text)
    return _SPECIAL.sub(lambda found: _ESCAPES[found[0]], text)


def _write(content: Content, parts: list[str]) -> None:
    if content is None:
        return
    if isinstance(content, str):
        parts.append(escape(content))
    elif isinstance(content, Element):
        _write_element(content, parts)
    else:
        for each in content:
            _write(each, parts)


def _write_element(node: Element, parts: list[str]) -> None:
    tag = node.tag
    parts.append(f"<{tag}")
    for name, value in node.attributes.items():
        if value is None or value is False:
            continue
        parts.append(f" {name}" if value is True else f' {name}="{_attribute(value)}"')
    parts.append(">")
    if tag in _VOID:
        return
    if tag in _RAW:
        assert isinstance(node.content, tuple)
        parts.extend(map(str, node.content))  # element() has seen to it: assets
    else:
        _write(node.content, parts)
    parts.append(f"</{tag}>")


def _attribute(value: str | float) -> str:
    return escape(value) if isinstance(value, str) else f"{value:.6g}"
