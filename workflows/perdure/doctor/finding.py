"""What one check found, as data."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Verdict(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line of ``perdure doctor``.

    Attributes:
        check: what was looked at: ``"disk"``, ``"key"``.
        verdict: how bad it is.
        said: what was found, and where.
        remedy: what to do or to type; "" if nothing is to be done.
    """

    check: str
    verdict: Verdict
    said: str
    remedy: str = ""


def ok(check: str, said: str) -> Finding:
    """Return that all is well."""
    return Finding(check=check, verdict=Verdict.OK, said=said)


def warning(check: str, said: str, remedy: str) -> Finding:
    """Return that something may go wrong, or waits for somebody."""
    return Finding(check=check, verdict=Verdict.WARNING, said=said, remedy=remedy)


def problem(check: str, said: str, remedy: str = "") -> Finding:
    """Return that something is wrong; ``remedy`` may be in what is said."""
    return Finding(check=check, verdict=Verdict.PROBLEM, said=said, remedy=remedy)
