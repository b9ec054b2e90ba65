"""A store of one's own, errors, and what a step knows about itself."""

import perdure
from perdure import DefinitionError, PerdureError, RunConflict, RunFailed, current, task, workflow


@task
def careful(x: int) -> str:
    here = current()
    if here.should_stop():
        return ""
    return f"{here.run_id}/{here.step_id}/{here.attempt}/{here.idempotency_key}/{x}"


@workflow
def flow(x: int = 1) -> str:
    return careful.bind(x)


def use() -> None:
    with perdure.open("sqlite:///team.db", executor="inline", workers=2) as store:
        try:
            print(flow.run(), store.run(flow, x=2), store.get_run("r").status)
        except RunFailed as error:
            print(error.run_id, error.step_id, error.__cause__)
        except (RunConflict, DefinitionError):
            raise
        except PerdureError as error:
            print(error)
