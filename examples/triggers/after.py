"""A report after each load that succeeded, and one for a pair of feeds that belong together.

    perdure up examples/triggers/after.py
    perdure run examples/triggers/after.py:load --day 2026-03-01    # in another terminal

    perdure trigger arrivals report-after-load
    perdure show -                                  # the report, and what made it

`load` knows nothing of the report: whoever runs it, by hand, by a schedule or from a program, has
it made. Two events within an hour make one `valuation`, in whichever order they come:

    perdure emit prices --payload 12.5
    perdure emit rates --payload 0.8
"""

from datetime import date

import perdure
from perdure import Event, RunFinished, Trigger, all_of, event, task, workflow


@task
def read(day: date) -> list[int]:
    """Read what was sold that day; here it is made up, so that nothing is needed."""
    return [day.day * n for n in range(1, 5)]


@workflow
def load(day: date) -> list[int]:
    """Load one day."""
    return read.bind(day)


@task
def summarise(loading: str) -> str:
    """Sum up what a run has loaded."""
    sold = perdure.get_run(loading).result()
    return f"{sum(sold)} sold in {len(sold)} shops, by {loading}"


@workflow
def report(loading: str) -> str:
    """Report on one load."""
    return summarise.bind(loading)


@task
def value(price: float, rate: float) -> float:
    """Return what the stock is worth in euros."""
    return price * rate


@workflow
def valuation(price: float, rate: float) -> float:
    """Value the stock by the newest price and rate."""
    return value.bind(price, rate)


report_after_load = Trigger(
    "report-after-load",
    report,
    on=RunFinished(load, states="SUCCEEDED"),
    inputs={"loading": event.run_id},
)
both = Trigger(
    "both",
    valuation,
    on=all_of(prices=Event("prices"), rates=Event("rates"), within="1h"),
    inputs={"price": event.prices.payload, "rate": event.rates.payload},
)
