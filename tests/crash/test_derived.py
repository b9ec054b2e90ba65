"""SIGKILL while a run is made from another, and while it runs: nothing asked for is lost."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.crash.derived import DONOR
from tests.crash.ledger import Undisturbed, check, check_nothing_is_left
from tests.crash.scenarios import RUN
from tests.crash.stage import Stage

CREATION = ("plan.stored", "run.before-insert", "run.after-insert")
LIFE = ("claim.after", "dispatch.after", "commit.before", "commit.in-transaction", "commit.after")
KILLED = -signal.SIGKILL


def play(stage: Stage, part: str, verb: str, *, crash: str = "") -> tuple[int, str]:
    words = ("-m", "tests.crash.derived", part, verb, stage.store, stage.blobs)
    return stage.finish(stage.start(*words, crash=crash))


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Undisturbed]:
    """Return what the derived run comes to when nothing happens to it."""
    known: dict[str, Undisturbed] = {}

    def find(verb: str) -> Undisturbed:
        if verb not in known:
            stage = Stage(tmp_path_factory.mktemp(verb))
            for part in ("prepare", "act"):
                code, said = play(stage, part, verb)
                assert code == 0, said
            with stage.open() as client:
                known[verb] = Undisturbed.of(client, RUN)
        return known[verb]

    return find


@pytest.mark.parametrize("verb", ["fork", "rerun", "items"])
@pytest.mark.parametrize("point", CREATION)
def test_derived_run_is_there_whole_or_not_at_all_when_killed_at(
    point: str, verb: str, stage: Stage, wanted: Callable[[str], Undisturbed]
) -> None:
    assert play(stage, "prepare", verb)[0] == 0

    code, said = play(stage, "act", verb, crash=f"{point}:1:kill")
    assert code == KILLED, said
    with stage.open() as client:
        made = client.runtime.store.find_run(RUN)
        assert (made is not None) is (point == "run.after-insert")
    code, said = play(stage, "recover", verb)
    assert code == 0, said

    with stage.open() as client:
        check(stage.ledger, client, RUN, wanted(verb))
        assert client.get_run(RUN).parent == DONOR
    check_nothing_is_left(stage.ledger)


@pytest.mark.postgres
@pytest.mark.parametrize("point", ["run.after-insert:1", "commit.in-transaction:2"])
def test_fork_on_postgres_goes_on_when_killed_at(
    point: str, tmp_path: Path, postgres_url: str, wanted: Callable[[str], Undisturbed]
) -> None:
    stage = Stage(tmp_path, postgres_url)
    assert play(stage, "prepare", "fork")[0] == 0

    code, said = play(stage, "act", "fork", crash=f"{point}:kill")
    assert code == KILLED, said
    code, said = play(stage, "recover", "fork")
    assert code == 0, said

    with stage.open() as client:
        check(stage.ledger, client, RUN, wanted("fork"))


@pytest.mark.parametrize("seed", range(4))
def test_forked_run_killed_again_and_again_comes_to_the_same(
    seed: int, stage: Stage, wanted: Callable[[str], Undisturbed]
) -> None:
    rng = random.Random(seed)
    assert play(stage, "prepare", "fork")[0] == 0
    deaths = 0

    for part in ("act", "recover", "recover"):
        point = f"{rng.choice(LIFE)}:{rng.randint(1, 3)}:kill"
        code, said = play(stage, part, "fork", crash=point)
        assert code in (0, KILLED), said
        deaths += code == KILLED
        with stage.open() as client:
            if client.runtime.store.find_run(RUN) is not None:
                stage.ledger.note_committed(client, RUN)
    code, said = play(stage, "recover", "fork")
    assert code == 0, said

    assert deaths > 0
    with stage.open() as client:
        check(stage.ledger, client, RUN, wanted("fork"))
        began = set(stage.ledger.began(RUN))
        assert began == {"big", "fleeting", "fails", "total"}, "what was forced ran, no other did"
        assert len(client.get_run(RUN)["given"].result()) == 20_000
        assert client.get_run(DONOR).result() == "30000 20000 4 Failure"
    check_nothing_is_left(stage.ledger)


@pytest.mark.parametrize("seed", range(4))
def test_fork_of_failed_items_killed_again_and_again_redoes_those_alone(
    seed: int, stage: Stage, wanted: Callable[[str], Undisturbed]
) -> None:
    rng = random.Random(100 + seed)
    assert play(stage, "prepare", "items")[0] == 0
    deaths = 0

    for part in ("act", "recover", "recover"):
        point = f"{rng.choice(LIFE)}:{rng.randint(1, 3)}:kill"
        code, said = play(stage, part, "items", crash=point)
        assert code in (0, KILLED), said
        deaths += code == KILLED
        with stage.open() as client:
            if client.runtime.store.find_run(RUN) is not None:
                stage.ledger.note_committed(client, RUN)
    code, said = play(stage, "recover", "items")
    assert code == 0, said

    assert deaths > 0
    with stage.open() as client:
        check(stage.ledger, client, RUN, wanted("items"))
        began = set(stage.ledger.began(RUN))
        assert began == {"picky[1]", "picky[3]", "picky[5]", "summed"}
        assert client.get_run(RUN).result() == 15
    check_nothing_is_left(stage.ledger)


def test_fork_outlives_its_donors_deletion_when_it_has_ended(tmp_path: Path, stage: Stage) -> None:
    for part in ("prepare", "act"):
        assert play(stage, part, "fork")[0] == 0

    with stage.open() as client:
        client.delete(DONOR)

        assert client.get_run(RUN).result() == "30000 20000 20000 Failure"
        assert client.get_run(RUN).parent == DONOR
