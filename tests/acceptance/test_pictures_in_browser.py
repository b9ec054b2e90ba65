"""Pictures of runs on pages that know nothing of notebooks, as Chromium shows them.

VS Code, Colab and marimo put the same static HTML into pages of their own, light or dark.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance import reported_steps as steps
from tests.browsers import chromium, missing

from perdure import RunFailed, task
from perdure.client import Perdure, open_store
from perdure.showing import bundle_of

pytestmark = pytest.mark.browser

COLOURS = """() => [...document.querySelectorAll(".perdure :is(b, p, td, summary, .pill)")]
  .filter(each => each.checkVisibility())
  .map(each => [getComputedStyle(each).color, each.textContent.slice(0, 20)])"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if reason := missing():
        pytest.skip(reason)
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Perdure]:
    store = tmp_path_factory.mktemp("pictures") / "perdure.db"
    with open_store(str(store), executor="inline") as opened:
        with pytest.raises(RunFailed):
            opened.run(steps.broken, run_id="broken")
        opened.run(steps.different(4), run_id="a-run-with-a-name-that-is-as-long-as-names-are")
        yield opened


def shown(browser: Any, thing: object, *, scheme: str = "light", width: int = 900) -> Any:
    """Open a page of the scheme with nothing in it but what a notebook is given."""
    ink, paper = ("#eee", "#1e1e1e") if scheme == "dark" else ("#111", "#fff")
    html = bundle_of(thing)["text/html"]
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.set_content(
        f'<meta name="color-scheme" content="{scheme}">'
        f'<body style="color:{ink};background:{paper}">{html}</body>'
    )
    return page


def lightness(colour: str) -> float:
    red, green, blue = (int(each) for each in re.findall(r"\d+", colour)[:3])
    return (0.3 * red + 0.59 * green + 0.11 * blue) / 255


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_picture_can_be_read_on_light_and_on_dark_pages(
    browser: Any, client: Perdure, scheme: str
) -> None:
    page = shown(browser, client.get_run("broken"), scheme=scheme)

    colours = page.evaluate(COLOURS)

    assert colours
    paper = 0.12 if scheme == "dark" else 1.0
    hard = [each for each in colours if abs(lightness(each[0]) - paper) < 0.25]
    assert [each for each in hard if each[1] != "failed"] == []
    page.close()


def test_long_error_leaves_the_ids_of_runs_on_one_line(browser: Any, client: Perdure) -> None:
    @task
    def fails() -> None:
        raise ValueError("bad " + "w" * 300)

    with pytest.raises(RunFailed):
        client.run(fails.bind(), run_id="long")
    page = shown(browser, client.list_runs())

    heights = page.locator("td > code").evaluate_all("all => all.map(each => each.offsetHeight)")
    width = page.evaluate("document.documentElement.scrollWidth")

    assert max(heights) < 30
    assert width <= 900
    page.close()


def test_very_long_id_leaves_room_for_what_else_is_to_be_known_of_runs(
    browser: Any, tmp_path: Path
) -> None:
    with open_store(str(tmp_path / "perdure.db"), executor="inline") as client:
        client.start(steps.broken, run_id="r" * 200).wait()
        page = shown(browser, client.list_runs())

    right = page.locator("td").last.bounding_box()
    rows = page.locator("tbody tr").evaluate_all("all => all.map(each => each.offsetHeight)")

    assert right["x"] + right["width"] <= 900
    assert right["width"] > 100
    assert max(rows) < 120
    page.close()


def test_picture_without_style_and_graph_still_tells_how_the_run_stands(
    browser: Any, client: Perdure
) -> None:
    page = shown(browser, client.get_run("broken"))

    page.evaluate("document.querySelectorAll('svg, style').forEach(each => each.remove())")
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")

    told = page.inner_text("body")
    assert "failed" in told
    assert "ValueError" in told
    assert "parse[3]" in told
    assert "numbers" in told
    page.close()


def test_picture_runs_nothing_and_loads_nothing(client: Perdure) -> None:
    looks: list[str] = [bundle_of(run)["text/html"] for run in client.list_runs()]

    assert not any(re.search(r"<script|\son\w+=|src=|@import|url\(", look) for look in looks)


def test_bundle_has_what_every_front_end_takes(client: Perdure) -> None:
    assert set(bundle_of(client.get_run("broken"))) == {"text/plain", "text/html"}
