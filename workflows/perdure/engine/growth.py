"""Graphs that grow while a run goes on: a step gives a graph, and another step answers for it.

The step that gave it waits; when the one that answers has committed, it has that value. All of a
graph is upstream of the step that answers, so nothing of it is left to be done by then. Should
that step give a graph in turn, it drops out, and the first one waits for the last link: a chain of
any length holds the state of one link.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from itertools import chain

import msgspec

from perdure.calls import Growth
from perdure.engine.actors import is_unkept, remember_lost
from perdure.engine.advance import hold, pend, reopen
from perdure.engine.branching import find_conditional, settle_selects
from perdure.engine.commands import Extend
from perdure.engine.items import match_by_items
from perdure.engine.matching import Matching, is_whole, match_name, match_rows
from perdure.engine.needs import STOPPED, end_unneeded
from perdure.engine.state import RunState, StepState, add_steps, starts_chain
from perdure.engine.takeover import hold_back, keep_edited
from perdure.fingerprint import fingerprints
from perdure.graph.growth import link_of
from perdure.plan import (
    FromStep,
    ItemsOf,
    Plan,
    decode_plan,
    own_digest,
    rebase,
    step_code,
    upstream,
)
from perdure.reference import StepRef
from perdure_storage.lifecycle import StepStatus
from perdure_storage.records import (
    ExpansionRecord,
    Place,
    StepId,
    StepKey,
    StepRecord,
    StoredValue,
)


class Graft(msgspec.Struct, frozen=True):
    """A graph that became part of a run.

    Attributes:
        root: the step that waits for its value.
        own, donated: which older rows of the run, and of the one it was made from, hold.
        losers: rows by which that one ended children of a map as it had enough without them.
        extend: what executors have to know of it.
    """

    root: StepState
    own: Matching
    donated: Matching
    losers: tuple[StepRecord, ...]
    extend: Extend


def source_of(run: RunState, step: StepState) -> str:
    """Return what a graph was made from: the step as it is, and what it consumed.

    Of a map whose items it took, which life of it that was: its value comes later.
    """
    lives = (run.steps[opened].generation for opened in step.opens)
    consumed = (
        f"items:{run.fingerprints[ref.step]}" if isinstance(ref, ItemsOf) else digest
        for ref, digest in zip(step.refs, step.inputs, strict=True)
    )
    text = "\0".join((run.fingerprints[step.id], *consumed, *map(str, lives)))
    return blake2b(text.encode(), digest_size=16).hexdigest()


def root_of(step: StepState) -> StepState:
    """Return who waits for the graph that a step gives: the first one of its chain."""
    return step if step.answers is None or starts_chain(step) else step.answers


def expand(run: RunState, step: StepState, growth: Growth) -> ExpansionRecord:
    """Return the row of a graph that a step gave: under the first step of its chain."""
    root = root_of(step)
    number = link_of(step.id)[1] if root is not step else 0
    return ExpansionRecord(
        run_id=run.id,
        step_id=StepId(root.id),
        generation=root.generation,
        link=number,
        kind=growth.kind,
        count=growth.count,
        source=source_of(run, root),
        plan=growth.plan,
    )


def plan_of(expansion: ExpansionRecord) -> Plan:
    """Return a graph as the run knows it: its constants under numbers of their own."""
    return rebase(decode_plan(expansion.plan.body), _base_of(expansion))


def outside(plan: Plan) -> list[str]:
    """Return the ids of the steps that a graph refers to and does not have."""
    own = {step.id for step in plan.steps}
    return [name for name in dict.fromkeys(chain(*map(upstream, plan.steps))) if name not in own]


def graft(run: RunState, root: StepState, expansion: ExpansionRecord, plan: Plan) -> Graft:
    """Add a graph to the run; ``root`` waits for the step that answers, unless it is done.

    Steps of an earlier generation that are the same stay as they are. All that the graph refers
    to ``outside`` of it is there.

    Args:
        run: the run.
        root: the step that waits.
        expansion: the graph's row.
        plan: ``plan_of`` it.
    """
    assert isinstance(plan.output, FromStep)
    run.dormant.pop(root.id, None)
    _drop_link(run, root)
    prints = fingerprints(plan, {}, run.fingerprints)
    standing = {step.id for step in plan.steps if _stands(run, step.id, prints)}
    replaced = [run.steps[step.id] for step in plan.steps if step.id in run.steps.keys() - standing]
    added = add_steps(run, plan, prints, besides=standing)
    for step in plan.steps:
        root.lasts.update((turn.actor, step.id) for turn in step.turns)
    for old in replaced:
        _replace(run, old, run.steps[old.id])
    root.members = tuple(step.id for step in plan.steps)
    for step in plan.steps:
        member = run.steps[step.id]
        member.below = root
        if step.id not in standing:
            begun, taken = run.begun.get(step.id, 0), run.taken.get(step.id, 0)
            member.generation = max(member.generation, root.generation, begun, taken + 1)
    _wait_for(root, run.steps[plan.output.step])
    # Not before: what a choice comes after is found along the chains, to who answers now.
    find_conditional(run, added)
    if expansion.kind == "map":
        root.items = _items(run, run.steps[plan.output.step])
        _rank_items(run, root)
    remember_lost(run, run.grown.get(root.id, ()))
    own = _match_own(run, root, plan, prints, is_first=not expansion.link)
    extend = _extend(run, plan, _base_of(expansion))
    again = run.again.within(plan, root.id)
    rows = _donor_rows(run, plan)
    donated = _match_donated(run, root, plan, prints, extend.constants, rows, again)
    losers = _losers_before(run, plan, prints, rows, again)
    return Graft(root, own, donated, losers, extend)


def _rank_items(run: RunState, root: StepState) -> None:
    """Let what takes an item of another map come right after that item, and before the next one.

    So items leave a pipeline as early as they can, and few are between its stages.
    """
    for member in root.members if root.opens else ():
        step = run.steps[member]
        above = (run.steps[dep] for dep in step.deps)
        taken = [each.rank for each in above if each.below and each.below.id in root.opens]
        if taken:
            step.rank = (*min(taken), step.position)


def _items(run: RunState, answer: StepState) -> tuple[StepRef, ...]:
    """Return what the items of a map are: what the step that collects its value takes."""
    items: list[StepRef] = []
    for ref in answer.refs:
        assert isinstance(ref, FromStep)
        width = run.steps[ref.step].plan.width
        items += [StepRef(ref.step, (n,)) for n in range(width)] if width else [StepRef(ref.step)]
    return tuple(items)


def reach(run: RunState, step_id: str, now: datetime) -> bool:
    """Say whether a step is in the state, after bringing back the graph that it is in, if any.

    The graph of a step that is done is only brought back when somebody asks for a step of it.
    """
    if step_id in run.steps:
        return True
    found = next((root for root, each in run.dormant.items() if step_id in _ids_of(each)), None)
    if found is None or not reach(run, found, now):
        return False
    recall(run, run.steps[found], now)
    return step_id in run.steps


def recall(run: RunState, root: StepState, now: datetime) -> None:
    """Bring the graph back of a step that is done, if this run has it."""
    if _bring_back(run, root, now):
        find_effects(run, root.members, now)


def find_effects(run: RunState, step_ids: Iterable[str], now: datetime) -> None:
    """Bring the graphs back that alone say how they left an actor; what gave others gives them.

    Wherever steps come into the state: an actor's calls are looked for there and nowhere else.
    """
    work = list(step_ids)
    while work:
        root = run.steps[work.pop()]
        if not is_unkept(run, root):
            continue
        if _bring_back(run, root, now):
            work += root.members
        if is_unkept(run, root):
            run.reopened.append(reopen(run, root, "it has to say again how it left an actor", now))


def _bring_back(run: RunState, root: StepState, now: datetime) -> bool:
    expansion = run.dormant.get(root.id)
    if expansion is None or not root.is_done or expansion.generation != root.generation:
        return False
    plan = plan_of(expansion)
    if not is_rooted(run, plan, now):
        return False
    leave_ended(run, root)
    _settle(run, graft(run, root, expansion, plan), now)
    # A value of it may have been lost in an earlier life of the run, and not been made again.
    members = (run.steps[member] for member in root.members)
    run.reopened += [member for member in members if member.status is StepStatus.PENDING]
    return True


def _ids_of(expansion: ExpansionRecord) -> set[str]:
    return {step.id for step in decode_plan(expansion.plan.body).steps}


def is_rooted(run: RunState, plan: Plan, now: datetime) -> bool:
    """Say whether all that a graph refers to is in the state, after bringing back what is not."""
    return all(reach(run, step_id, now) for step_id in outside(plan))


def settle_graft(run: RunState, grafted: Graft, now: datetime) -> None:
    """Let older rows stand in a graph, and tell the executor of it."""
    _settle(run, grafted, now)
    find_effects(run, grafted.root.members, now)


def _settle(run: RunState, grafted: Graft, now: datetime) -> None:
    root = grafted.root
    run.extensions.append(grafted.extend)
    hold(run, grafted.own, now)
    hold(run, grafted.donated, now, reason=f"taken over from {run.record.reuse_from}")
    forget_gone(run, root)
    members = [run.steps[member] for member in root.members]
    for member in members:
        _end_again(run, member)
    settle_selects(run, members, now)
    above = {dep for member in root.members for dep in run.steps[member].deps}
    run.count_missing({*root.members, *above})
    _end_losers(run, grafted, now)
    if run.steps[root.answer].is_done:
        run.answered.append(root)


def _match_own(
    run: RunState, root: StepState, plan: Plan, prints: Mapping[str, str], *, is_first: bool
) -> Matching:
    """Match rows of the graphs that the step gave in earlier lives; what has no place is retired.

    A chain gives its graphs one after the other: rows that this one does not match are kept for
    the next, until the chain has its value. Those of the graphs that it has given before in this
    life are no leftovers: what a round of a loop was told is nothing to the next one.
    """
    rows = run.grown.get(root.id)
    if rows is None:
        return match_rows(plan, prints, ())
    for row in rows:
        step = run.steps.get(row.step_id)
        if step is not None:
            step.generation = max(step.generation, row.generation + 1)
    placed = run.placed.setdefault(root.id, set())
    if is_first:
        placed.clear()
    before = placed.difference(root.members)
    placed.update(root.members)
    reuses = run.record.policy.on_change == "reuse"
    free = [row for row in rows if row.step_id not in before]
    matching = match_rows(plan, prints, free, keep_changed=reuses, edits=run.edits)
    if reuses or run.record.policy.code == "current":
        matching = keep_edited(plan, free, matching)
    used = {_key(row) for row in (*matching.kept.values(), *matching.adopted.values())}
    kept = {_key(row) for row in matching.kept.values()}
    retire_rows(
        run,
        (
            row
            for row in rows
            if _key(row) not in kept and (_key(row) in used or row.step_id in root.members)
        ),
    )
    run.grown[root.id] = [
        row for row in rows if _key(row) not in used and row.step_id not in root.members
    ]
    return matching


def _key(row: StepRecord) -> tuple[str, int]:
    return row.step_id, row.generation


def retire_leftovers(run: RunState, root: StepState) -> None:
    """Take rows out of force that were of earlier lives of a step's graph and have no place.

    Those of earlier links of its chain stay: should the value be lost, they are there.
    """
    placed = run.placed.pop(root.id, set())
    rows = run.grown.get(root.id)
    if rows is not None:
        retire_rows(run, (row for row in rows if row.step_id not in placed))
        run.grown[root.id] = [row for row in rows if row.step_id in placed]


def _donor_rows(run: RunState, plan: Plan) -> list[StepRecord]:
    """Return the rows of the run that this one was made from that are of the names of a graph."""
    names = dict.fromkeys(match_name(step) for step in plan.steps) if run.donated else ()
    return [row for name in names for row in run.donated.get(name, ()) if is_whole(row)]


def _keeps_changed(run: RunState) -> bool:
    return run.plan.takeover is not None and run.plan.takeover.keep_changed


def _losers_before(
    run: RunState,
    plan: Plan,
    prints: Mapping[str, str],
    rows: Iterable[StepRecord],
    again: Collection[str],
) -> tuple[StepRecord, ...]:
    """Return the rows by which ``stop_when`` ended steps that are in the graph as they were.

    None if it is another condition now: that was not asked about the values that are taken over.
    """
    if not _keeps_changed(run) and _asks_otherwise(plan, rows):
        return ()
    ended: dict[str, StepRecord] = {
        r.step_id: r for r in rows if r.current and r.reason.startswith(STOPPED)
    }
    found: list[StepRecord] = []
    for step in plan.steps if ended else ():
        row = ended.get(step.id)
        if row is None or row.status is not StepStatus.CANCELLED or step.id in again:
            continue
        options = plan.options[step.options]
        own = own_digest(row.code, options.outputs, options.catch, step.given)
        if row.fingerprint == prints[step.id] or (_keeps_changed(run) and row.own == own):
            found.append(row)
    return tuple(found)


def _asks_otherwise(plan: Plan, rows: Iterable[StepRecord]) -> bool:
    """Say whether the step that answers for a map was made from another ``stop_when``."""
    assert isinstance(plan.output, FromStep)
    answer_id = plan.output.step
    answer = next(step for step in plan.steps if step.id == answer_id)
    code = step_code(plan.functions[answer.function].counts_as, answer.passed)
    return any(row.code != code for row in rows if row.current and row.step_id == answer.id)


def _end_losers(run: RunState, grafted: Graft, now: datetime) -> None:
    """End what the other run ended, where the child stands of whose value it had enough."""
    answer = run.steps[grafted.root.answer]
    for row in grafted.losers:
        enough = run.steps.get(row.reason.removeprefix(STOPPED))
        if enough is not None and enough.status is StepStatus.SUCCEEDED:
            end_unneeded(run, [run.steps[row.step_id]], row.reason, now, besides=answer)


def _match_donated(
    run: RunState,
    root: StepState,
    plan: Plan,
    prints: Mapping[str, str],
    constants: Mapping[int, StoredValue],
    rows: Sequence[StepRecord],
    again: Mapping[str, str],
) -> Matching:
    """Match rows of the run that this one was made from; they are adopted, never kept."""
    keeps_changed = _keeps_changed(run)
    matching = match_rows(plan, prints, rows, edits=run.edits)
    if keeps_changed:
        matching = keep_edited(plan, rows, matching)
    matching = match_by_items(
        run, root, plan, constants, rows, matching, keep_changed=keeps_changed
    )
    matching = hold_back(matching, plan, again, outside=outside(plan))
    taken = {**matching.adopted, **matching.kept}
    return msgspec.structs.replace(matching, kept={}, adopted=taken, obsolete=())


def _extend(run: RunState, plan: Plan, base: int) -> Extend:
    constants = {base + index: value for index, value in enumerate(plan.constants)}
    return Extend(run.executor, run.id, dict(plan.functions), constants)


def _base_of(expansion: ExpansionRecord) -> int:
    """Return the number of a graph's first constant: its own in any run, whatever comes before."""
    return int(expansion.plan.digest.rpartition(":")[2][:10], 16) << 20


def _drop_link(run: RunState, root: StepState) -> None:
    """Forget the step of a chain that has given another graph instead of answering."""
    passed = run.steps.get(root.answer)
    if passed is not None and not passed.is_done:
        _detach(run, passed)
        run.unfinished -= 1
        for turn in passed.plan.turns:
            if root.lasts.get(turn.actor) == passed.id:
                root.lasts[turn.actor] = turn.step
        del run.steps[passed.id]
        del run.fingerprints[passed.id]


def _detach(run: RunState, step: StepState) -> None:
    """Let nobody call a step that is no more."""
    for dep in step.deps:
        consumers = run.steps[dep].consumers
        consumers[:] = [consumer for consumer in consumers if consumer is not step]
    for opened in step.opens:
        followers = run.steps[opened].followers
        followers[:] = [follower for follower in followers if follower is not step]


def _stands(run: RunState, step_id: str, prints: Mapping[str, str]) -> bool:
    """Say whether a step is there already, done or being made again for whoever takes its value."""
    old = run.steps.get(step_id)
    return (
        old is not None
        and (old.unneeded or old.status not in (StepStatus.FAILED, StepStatus.CANCELLED))
        and run.fingerprints[step_id] == prints[step_id]
    )


def _replace(run: RunState, old: StepState, new: StepState) -> None:
    """Let another step take the id of one that no longer holds, and those that take its value."""
    _detach(run, old)
    for consumer in old.consumers:
        if run.steps.get(consumer.id) is consumer and consumer not in new.consumers:
            new.consumers.append(consumer)
            if consumer.status in (StepStatus.PENDING, StepStatus.READY):
                pend(run, consumer)
    new.generation = old.generation + 1
    if old.status in (StepStatus.SUCCEEDED, StepStatus.FAILED):
        run.outbox.supersede(StepKey(StepId(old.id), old.generation))
    run.unfinished -= not old.is_done


def _wait_for(root: StepState, answer: StepState) -> None:
    if not root.is_done:
        root.status = StepStatus.WAITING
    root.answer = answer.id
    answer.answers = root
    if root not in answer.consumers:
        answer.consumers.append(root)
    answer.parts = tuple(dict.fromkeys((*answer.parts, *root.parts)))


def forget_gone(run: RunState, root: StepState) -> None:
    """Let go of values of a graph whose bytes are known to be gone: whoever needs them asks."""
    for member in root.members:
        value = run.steps[member].value
        if value is not None and value.integrity in run.gone:
            run.steps[member].value = msgspec.structs.replace(value, place=Place.NONE, data=None)


def leave_ended(run: RunState, root: StepState) -> None:
    """Let rows stand by which steps of a graph were ended as nobody needed them.

    For a graph that comes back as it was: what decided that is part of it, and stands too.
    """
    rows = run.grown.get(root.id, ())
    ended = [row for row in rows if row.current and row.status is StepStatus.CANCELLED]
    run.ended.update((row.step_id, row) for row in ended)
    run.grown[root.id] = [row for row in rows if row not in ended]


def _end_again(run: RunState, member: StepState) -> None:
    row = run.ended.get(member.id)
    if row is None or member.status is not StepStatus.PENDING:
        return
    if row.fingerprint == run.fingerprints[member.id]:
        del run.ended[member.id]
        member.status, member.generation = StepStatus.CANCELLED, row.generation
        member.unneeded, member.reason = True, row.reason
        run.unfinished -= 1


def retire_rows(run: RunState, rows: Iterable[StepRecord]) -> None:
    """Take rows out of force that a new graph has no place for."""
    run.outbox.superseded += [StepKey(row.step_id, row.generation) for row in rows if row.current]


def rows_of_graphs(
    rows: Iterable[StepRecord], expansions: Iterable[ExpansionRecord]
) -> tuple[list[StepRecord], dict[str, list[StepRecord]]]:
    """Part the rows of a run into those of its plan, and those of graphs by the step that waits."""
    root_of: dict[str, str] = {}
    for expansion in expansions:
        for step in decode_plan(expansion.plan.body).steps:
            root_of[step.id] = expansion.step_id
    own: list[StepRecord] = []
    grown: dict[str, list[StepRecord]] = {}
    for row in rows:
        if row.step_id in root_of:
            grown.setdefault(root_of[row.step_id], []).append(row)
        else:
            own.append(row)
    return own, grown


def newest_links(expansions: Iterable[ExpansionRecord]) -> dict[str, ExpansionRecord]:
    """Return the last link of the newest generation, by the id of the step that waits."""
    newest: dict[str, ExpansionRecord] = {}
    for expansion in expansions:  # in the order of generation and link
        newest[expansion.step_id] = expansion
    return newest


def ids_of_life(expansions: Iterable[ExpansionRecord], step_id: str, generation: int) -> set[str]:
    """Return the ids of all steps of the graphs that a step gave in one life."""
    return {
        step.id
        for expansion in expansions
        if expansion.step_id == step_id and expansion.generation == generation
        for step in decode_plan(expansion.plan.body).steps
    }


def descendants(run: RunState, root: StepState) -> list[StepState]:
    """Return the steps of a step's graph, of the graphs that those gave, and so on."""
    found: list[StepState] = []
    waiting = [root]
    while waiting:
        for member in waiting.pop().members:
            step = run.steps.get(member)
            if step is not None:
                found.append(step)
                waiting.append(step)
    return found
