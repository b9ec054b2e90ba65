"""Which finished runs a policy keeps."""

from __future__ import annotations

from datetime import timedelta

import pytest

from perdure.errors import DefinitionError
from perdure.retention import Policy, all_runs, parse_policy
from perdure_storage.contract_samples import NOW, a_run, created
from perdure_storage.lifecycle import RunStatus
from perdure_storage.memory import MemoryRunStore
from perdure_storage.records import RunQuery

DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("policy", "age_days", "rank", "keeps"),
    [
        (Policy(keep=30 * DAY), 29, 500, True),
        (Policy(keep=30 * DAY), 31, 0, False),
        (Policy(keep_last=2), 400, 1, True),
        (Policy(keep_last=2), 0, 2, False),
        (Policy(keep_last=0), 0, 0, False),
        (Policy(keep=30 * DAY, keep_last=2), 400, 1, True),
        (Policy(keep=30 * DAY, keep_last=2), 1, 9, True),
        (Policy(keep=30 * DAY, keep_last=2), 31, 2, False),
    ],
)
def test_a_finished_run_is_kept_if_either_rule_keeps_it(
    policy: Policy, age_days: int, rank: int, keeps: bool
) -> None:
    run = a_run(status=RunStatus.SUCCEEDED, finished_at=NOW - age_days * DAY)

    assert policy.keeps(run, rank, NOW) is keeps


def test_the_age_of_a_run_counts_from_its_end() -> None:
    run = a_run(created_at=NOW - 90 * DAY, finished_at=NOW - DAY)

    assert Policy(keep=2 * DAY).keeps(run, 9, NOW)


def test_a_policy_is_read_from_units_that_people_write() -> None:
    assert parse_policy("30d", 100, {"team": "a"}) == Policy(
        keep=30 * DAY, keep_last=100, tags={"team": "a"}
    )
    assert not parse_policy(None, None, None).lets_go


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("a month", None, None), "not a duration"),
        (("-1d", None, None), "not a duration"),
        ((None, -1, None), "0 or more"),
        ((None, None, {"team": "a"}), "--keep"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(given: tuple[object, ...], said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        parse_policy(*given)  # type: ignore[arg-type]


def test_all_runs_goes_through_every_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.retention._PAGE", 2)
    store = MemoryRunStore()
    for number in range(4):
        created(store, f"run-{number}", created_at=NOW + number * DAY)

    found = [run.id for run in all_runs(store, RunQuery())]

    assert found == ["run-3", "run-2", "run-1", "run-0"]
