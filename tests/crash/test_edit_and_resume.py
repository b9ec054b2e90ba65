"""Files that are edited between two commands: only what the edit reaches runs again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.crash.ledger import Ledger
from tests.crash.stage import Stage

PIPELINE = """
import perdure
from tests.crash.ledger import executing


@perdure.task
def load(n: int) -> list[int]:
    with executing():
        return list(range(n))


@perdure.task
def clean(rows: list[int]) -> list[int]:
    with executing():
        return [row for row in rows if row % 2]


@perdure.task
def mean(rows: list[int]) -> float:
    with executing():
        {mean}


@perdure.task
def spread(rows: list[int]) -> int:
    with executing():
        return max(rows) - min(rows)


@perdure.task
def report(mean: float, spread: int) -> str:
    with executing():
        return f"{{mean}} {{spread}}"


{more}
@perdure.workflow
def pipeline(n: int = 10) -> str:
    rows = load.bind(n)
    {between}
    cleaned = clean.bind(rows)
    return report.bind(mean.bind(cleaned), spread.bind(cleaned))


if __name__ == "__main__":
    {main}
"""

BROKEN = "return sum(rows) / len(row)"
MENDED = "return sum(rows) / len(rows)"
RUN = 'print(pipeline.run(run_id="edited"))'
AGAIN = 'print(pipeline.run(reuse="last"))'
INSERTED = """@perdure.task
def scale(rows: list[int]) -> list[int]:
    with executing():
        return [{factor} * row for row in rows]

"""


def by_script(stage: Stage, *options: str) -> tuple[int, str]:
    """Run the file as ``python pipeline.py``: everything is in ``__main__``."""
    return stage.finish(stage.start("pipeline.py"))


def by_command(stage: Stage, *options: str) -> tuple[int, str]:
    """Run the file as ``perdure run pipeline.py``."""
    return stage.finish(stage.start("-m", "perdure", "run", *options, "pipeline.py"))


def write(
    stage: Stage, *, mean: str = MENDED, more: str = "", between: str = "", main: str = RUN
) -> None:
    text = PIPELINE.format(mean=mean, more=more, between=between, main=main)
    (stage.folder / "pipeline.py").write_text(text)


def began(record: Ledger) -> list[str]:
    """Return the steps that began since the last look, sorted."""
    found = sorted(record.began())
    record.path.unlink(missing_ok=True)
    return found


@pytest.mark.parametrize("command", [by_script, by_command])
def test_only_the_mended_step_and_its_cone_run_when_the_same_id_is_run_again(
    command: Callable[..., tuple[int, str]], stage: Stage
) -> None:
    write(stage, mean=BROKEN)
    code, said = command(stage, "--id", "edited")
    assert code == 1, said
    assert "row" in said
    first = began(stage.ledger)
    write(stage, mean=MENDED)

    code, said = command(stage, "--id", "edited")

    assert code == 0, said
    assert "5.0 8" in said
    assert {"load", "clean", "mean"} <= set(first)
    # The sibling may have been cut off by the failure; what had committed does not run again.
    assert began(stage.ledger) == sorted({"mean", "report", "spread"} - ({"spread"} & set(first)))


@pytest.mark.parametrize("command", [by_script, by_command])
def test_one_step_and_its_cone_run_when_a_call_is_inserted_in_the_middle(
    command: Callable[..., tuple[int, str]], stage: Stage
) -> None:
    write(stage)
    assert command(stage, "--id", "edited")[0] == 0
    assert began(stage.ledger) == ["clean", "load", "mean", "report", "spread"]
    more, between = INSERTED.format(factor=3), "rows = scale.bind(rows)"
    write(stage, more=more, between=between, main=AGAIN)

    code, said = command(stage, "--reuse", "last")

    assert code == 0, said
    assert began(stage.ledger) == ["clean", "mean", "report", "scale", "spread"]
    assert "15.0 24" in said


@pytest.mark.parametrize("command", [by_script, by_command])
def test_nothing_runs_after_an_inserted_call_whose_value_is_unchanged(
    command: Callable[..., tuple[int, str]], stage: Stage
) -> None:
    write(stage)
    assert command(stage, "--id", "edited")[0] == 0
    began(stage.ledger)
    more, between = INSERTED.format(factor=1), "rows = scale.bind(rows)"
    write(stage, more=more, between=between, main=AGAIN)

    code, said = command(stage, "--reuse", "last")

    assert code == 0, said
    assert began(stage.ledger) == ["scale"]
    assert "5.0 8" in said


def test_nothing_runs_when_only_comments_and_layout_have_changed(stage: Stage) -> None:
    write(stage)
    assert by_script(stage)[0] == 0
    began(stage.ledger)
    file = stage.folder / "pipeline.py"
    text = file.read_text().replace("return max", "# wide\n        return max")
    file.write_text("# a note\n\n" + text)

    code, said = by_script(stage)

    assert code == 0, said
    assert began(stage.ledger) == []
