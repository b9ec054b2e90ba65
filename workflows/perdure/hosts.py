"""Which hosts take runs on, and why a run waits for one that has more."""

from __future__ import annotations

from collections.abc import Mapping

from perdure.engine.ownership import is_seen_dead
from perdure.words import amount
from perdure_storage.guards import fits
from perdure_storage.lifecycle import RunStatus
from perdure_storage.protocols import RunStore
from perdure_storage.records import Owner, RunRecord


def serving_hosts(store: RunStore) -> list[Owner]:
    """Return who takes runs on now."""
    known = store.coordinators()
    return [owner for owner, alive in known if alive and owner.serves and not is_seen_dead(owner)]


def waits_for_host(store: RunStore, record: RunRecord) -> str:
    """Return why a run waits for a host that has more than those that are up; "" if it does not.

    Without any host it waits for one all the same, but not for that reason.
    """
    if record.status is not RunStatus.QUEUED or record.plan_digest is None:
        return ""
    if why := _left_by(store, record):
        return why
    needs = _needs_of(store, record)
    hosts = serving_hosts(store) if needs else []
    offers = [dict(host.offer) for host in hosts]
    if not hosts or any(fits(needs, offer) for offer in offers):
        return ""
    lacking = [name for name in needs if not any(_has(name, needs, offer) for offer in offers)]
    asked = ", ".join(amount(name, needs[name]) for name in lacking or needs)
    have = "; ".join(_offered(host, lacking or list(needs)) for host in hosts)
    return f"waits for a host with {asked}: {have}"


def _left_by(store: RunStore, record: RunRecord) -> str:
    """Return what was lacking where a run was left to another host, if that came last."""
    for event in store.list_events(record.id, after=record.seq - 1):
        if event.kind == "handed-back" and "lacks" in event.detail:
            who = event.detail.get("place", "one")
            return f"waits for another host: {who} cannot run it: {event.detail['why']}"
    return ""


def _needs_of(store: RunStore, record: RunRecord) -> dict[str, float]:
    """Return the most that a run's plan, or a graph that a step gave, needs of each thing."""
    plans = [store.get_plan(record.plan_digest)]
    plans += [expansion.plan for expansion in store.list_expansions(record.id)]
    needs: dict[str, float] = {}
    for name, amount_ in (pair for plan in plans for pair in plan.needs.items()):
        needs[name] = max(amount_, needs.get(name, 0.0))
    return needs


def _has(name: str, needs: Mapping[str, float], offer: Mapping[str, float]) -> bool:
    return fits({name: needs[name]}, offer)


def _offered(host: Owner, names: list[str]) -> str:
    offer = dict(host.offer)
    had = ", ".join(amount(name, offer.get(name, 0.0)) for name in names)
    return f"{host.place} has {had}"
