"""Options of runs: told from inputs, and refused when they make no sense."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from perdure.errors import DefinitionError
from perdure.submission import Wishes, check_run_id, make_run_id


def wishes(**options: Any) -> Wishes:
    return Wishes.from_options(options, find_last=lambda workflow: ())


def test_whatever_is_no_option_is_an_input() -> None:
    made = wishes(k=3, run_id="x", inputs={"priority": 4})

    assert made.given == {"k": 3, "priority": 4}
    assert made.run_id == "x"


def test_input_given_twice_is_refused() -> None:
    with pytest.raises(DefinitionError, match="k given twice"):
        wishes(k=3, inputs={"k": 4})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"durability": "groups"}, "did you mean 'group'"),
        ({"on_change": "ignore"}, "Known: 'recompute', 'reuse', 'fail'"),
        ({"on_failure": "continue"}, "Known: 'stop', 'finish'"),
        ({"if_exists": "skip"}, "Known: 'resume', 'fail'"),
        ({"executor": "dask"}, "Known: 'processes', 'inline', 'ray'"),
        ({"tags": {"a": 1}}, "tags are text"),
        ({"metadata": {"a": object()}}, "metadata= is to be JSON"),
        ({"priority": 10**20}, "priority=1000.*no store holds so large a number"),
        ({"priority": -(2**63)}, "no store holds so large a number"),
    ],
)
def test_impossible_option_is_refused_with_the_ones_there_are(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DefinitionError, match=message):
        wishes(**options)


@pytest.mark.parametrize("run_id", ["a", "iris/2026/1", "Ünï côdé", "x" * 200, "x-", "a b"])
def test_readable_id_is_taken(run_id: str) -> None:
    check_run_id(run_id)


@pytest.mark.parametrize(
    "run_id", ["", "x" * 201, "a\tb", "a\u200bb\u0000", "-", "-x", "--all", "a ", 7]
)
def test_id_that_cannot_be_typed_is_refused(run_id: object) -> None:
    with pytest.raises(DefinitionError):
        check_run_id(run_id)


def test_made_ids_are_readable_and_sort_by_time() -> None:
    early = make_run_id("my flow", datetime(2026, 1, 1, tzinfo=UTC))
    late = make_run_id("my flow", datetime(2026, 1, 2, tzinfo=UTC))

    assert early.startswith("my-flow-20260101-000000-")
    assert early < late
