"""One SQL statement as text: what a store's methods hand to the driver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Statement:
    """Compiled SQL, and the names of its parameters in the order in which the driver wants them.

    Attributes:
        constants: parameters that the statement brings itself.
        judges_leases: whether it has to be told what ``LeaseTerms.facts`` say.
    """

    sql: str
    names: tuple[str, ...]
    constants: Mapping[str, Any]
    judges_leases: bool

    def arguments(self, given: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return the driver's positional arguments."""
        constants = self.constants
        return tuple([given[n] if n in given else constants[n] for n in self.names])
