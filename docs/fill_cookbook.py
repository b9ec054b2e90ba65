"""Writes into ``cookbook.md`` what each error class says of itself.

Run it as ``python docs/fill_cookbook.py`` after a docstring has changed. The recipes on the page
are written by hand and executed by the tests; what an error means, why it is likely and what to
type stand in one place, the docstring of its class.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import perdure
import perdure_scheduler
import perdure_storage
from perdure.errors import PerdureError

PAGE = Path(__file__).resolve().parent / "cookbook.md"
INNER = {
    "PerdureError": "the root: never raised itself",
    "RowRefused": "becomes the error of the step whose row it was",
    "TriggerError": "no verb takes a trigger yet",
    "FactMissing": "becomes what the ledger says of what arrived",
    "TriggerChanged": "whoever is refused reads the trigger again and goes on",
    "TriggerBusy": "whoever brings something brings it again",
    "TriggerNotFound": "no verb takes the name of a trigger yet",
    "BlobsCondemned": "whoever is refused puts its values again and goes on",
}
"""Classes that no user meets, and why."""

_ENTRY = re.compile(
    r"(?P<open><!-- (?P<name>\w+) says of itself -->\n).*?(?P<close><!-- so far -->)", re.DOTALL
)
_SECTION = re.compile(r"^(?P<name>Likely|Type):\n(?P<text>(?:    .*\n?)+)", re.MULTILINE)


def error_classes() -> dict[str, type[PerdureError]]:
    """Return the classes of errors that users meet, by name."""
    for package in (perdure, perdure_scheduler, perdure_storage):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if ".migrations" not in module.name and not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    found = {cls.__name__: cls for cls in _below(PerdureError) if not cls.__name__.startswith("_")}
    return {name: cls for name, cls in found.items() if name not in INNER}


def _below(cls: type[PerdureError]) -> Iterator[type[PerdureError]]:
    yield cls
    for each in cls.__subclasses__():
        if each.__module__.startswith(("perdure.", "perdure_scheduler.", "perdure_storage.")):
            yield from _below(each)


def filled(text: str) -> str:
    """Return the page with each entry as its class says it now.

    Raises:
        KeyError: the page has an entry of a class that there is not.
    """
    classes = error_classes()
    return _ENTRY.sub(lambda at: at["open"] + entry(classes[at["name"]]) + at["close"], text)


def entries(text: str) -> list[str]:
    """Return the names of the classes that the page has entries for."""
    return [match["name"] for match in _ENTRY.finditer(text)]


def entry(cls: type[PerdureError]) -> str:
    """Return what a class says of itself, as Markdown."""
    doc = inspect.getdoc(cls) or ""
    sections = {match["name"]: _flat(match["text"]) for match in _SECTION.finditer(doc)}
    meaning = _flat(doc.split("\n\n")[0])
    return (
        f"\n**Means:** {meaning}\n\n"
        f"**Likely:** {sections['Likely']}\n\n"
        f"**Type:** {sections['Type']}\n\n"
    )


def _flat(text: str) -> str:
    return " ".join(text.split()).replace("``", "`")


if __name__ == "__main__":
    sys.stdout.write(f"{PAGE}\n")
    PAGE.write_text(filled(PAGE.read_text()))
