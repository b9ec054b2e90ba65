"""What ``perdure up`` does: drive runs, make those that are due, plan them, listen for triggers.

And forget old ticks, of which schedules make more than anybody reads.
"""

from __future__ import annotations

import threading

from perdure.driving import Driving
from perdure.listening_child import ListeningChild
from perdure.planning import Planner, PlanningChild
from perdure.retention import ledger_of
from perdure.runtime import Runtime
from perdure_scheduler.dispatcher import Dispatcher


def serve(runtime: Runtime, stop: threading.Event, hurry: threading.Event) -> None:
    """Serve a store until ``stop`` is set. Any number of processes may serve one store.

    Then nothing is begun any more, and what runs may end, as long as ``Settings.drain`` says or
    until ``hurry`` is set; runs go to whoever else serves.
    """
    drain_s = runtime.settings.drain.total_seconds()
    dispatcher = Dispatcher(runtime.store, runtime.values, runtime.clock)
    planner = Planner(PlanningChild(runtime.settings), runtime.clock, runtime.store.note_unplanned)
    served = Driving(
        lambda on_change: runtime.coordinator(
            serves=True,
            plan_for=planner.plan_for,
            on_change=on_change,
            on_news=dispatcher.wake,  # one look at the store for both
        )
    )
    listening = ListeningChild(runtime)

    def hasten() -> None:
        # Who drives may be waiting for a store that is away, and then hears of nothing else.
        stop.wait()
        served.hasten(0.0 if hurry.is_set() else drain_s)

    beside = [
        threading.Thread(target=dispatcher.serve, args=(stop,), name="perdure-dispatcher"),
        threading.Thread(target=ledger_of(runtime).serve, args=(stop,), name="perdure-ledger"),
        threading.Thread(target=listening.serve, args=(stop,), name="perdure-listening"),
        threading.Thread(target=hasten, name="perdure-hasten"),
    ]
    for thread in beside:
        thread.start()
    try:
        served.serve(stop)
        served.leave(drain_s, hurry)
    finally:
        stop.set()
        dispatcher.wake()
        served.stop()
        for thread in beside:
            thread.join()
        planner.close()
