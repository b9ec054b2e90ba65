"""A picture of 15 rows. Each row is a step, so a kill costs only the rows that are being drawn.

`perdure demo` wrote this file; it is yours now. In its folder:

    perdure run --reuse demo demo.py --title "Hello"    a new run, which takes over all rows
    perdure run --id mine demo.py                       a run of your own: press Ctrl-C half-way
    perdure resume mine                                 and go on

Every step adds a line to ran.txt when it begins: see there what really ran.
"""

import os
import time

from perdure import current, task, workflow

WIDTH, HEIGHT = 68, 15
SHADES = " .:-=+*#%"


@task
def row(y: int) -> str:
    """Draw one row of the Mandelbrot set."""
    note_beginning()
    time.sleep(0.4)  # slow on purpose, so that there is time to kill it
    return "".join(shade(x, y) for x in range(WIDTH))


@task
def picture(rows: list[str], title: str) -> str:
    """Put the rows together, with a title below."""
    note_beginning()
    return "\n".join([*rows, title.center(WIDTH).rstrip()])


@workflow
def demo(title: str = "drawn by perdure") -> str:
    """Draw the picture."""
    return picture.bind([row.bind(y) for y in range(HEIGHT)], title)


def shade(x: int, y: int) -> str:
    """Return the character of one place: the longer it takes to leave, the darker."""
    place = complex(3.2 * x / WIDTH - 2.2, 2.4 * y / (HEIGHT - 1) - 1.2)
    z = 0j
    for n in range(50):
        z = z * z + place
        if abs(z) > 2:
            return SHADES[min(n // 2, len(SHADES) - 1)]
    return "@"


def note_beginning() -> None:
    """Add a line to ran.txt, a file that perdure knows nothing of."""
    with open("ran.txt", "a") as file:
        print(current().step_id, "in process", os.getpid(), file=file)
