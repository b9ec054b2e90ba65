"""How long a duration may be, on every floor."""

from __future__ import annotations

from datetime import timedelta

LONGEST = timedelta(days=36_500)
"""Counted from now, forward or back, it ends at a time that there is; a longer one may not."""
