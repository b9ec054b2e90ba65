"""How long a coordinator's word holds: by whose clock, and on which boot.

On SQLite all coordinators share one machine, so its monotonic clock decides, which no
administrator moves; it starts anew with each boot, so a lease of another boot is over. On
PostgreSQL they share only the database, so its clock decides. Tests hand in a clock of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

from perdure_storage.clock import Clock


def microseconds(seconds: float) -> int:
    """Return whole microseconds: what a lease is counted in."""
    return round(seconds * 1_000_000)


LEASE_FACTS = frozenset({"this_boot", "lease_now_us"})
"""Parameters of statements that judge leases; given by ``LeaseTerms.facts``."""


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """By what a store judges leases.

    Attributes:
        clock: whose monotonic time counts; None for the database's own.
        boot_id: this boot.
        ends_with_boot: whether a lease of another boot is over.
    """

    clock: Clock | None
    boot_id: str
    ends_with_boot: bool

    def facts(self) -> dict[str, object]:
        """Return what statements that judge leases have to be told now."""
        facts: dict[str, object] = {"this_boot": self.boot_id}
        if self.clock is not None:
            facts["lease_now_us"] = microseconds(self.clock.monotonic())
        return facts
