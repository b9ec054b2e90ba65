"""Events, a timer and a sleep: as it was written for ``ray.workflow``."""

import asyncio
import pathlib
import sys
import time

import ray

from perdure.compat import ray_workflow as workflow  # was: from ray import workflow

folder = pathlib.Path(sys.argv[1])


class FileListener(workflow.EventListener):
    async def poll_for_event(self, path: str) -> str:
        while not pathlib.Path(path).exists():
            await asyncio.sleep(0.01)
        return pathlib.Path(path).read_text()

    async def event_checkpointed(self, event: str) -> None:
        with (folder / "committed").open("a") as file:
            file.write(event)


@ray.remote
def gather(*args):
    return args


if __name__ == "__main__":
    (folder / "letter").write_text("hello")
    letter = workflow.wait_for_event(FileListener, str(folder / "letter"))
    timer = workflow.wait_for_event(workflow.TimerListener, time.time() + 0.1)
    pause = workflow.sleep(0.1)
    print(workflow.run(gather.bind(letter, timer, pause), workflow_id="events"))
    print((folder / "committed").read_text())
