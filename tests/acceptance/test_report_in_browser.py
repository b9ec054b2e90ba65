"""The page of a run as Chromium shows it: what it loads, and what its own program does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance import reported_steps as steps
from tests.browsers import chromium, missing

from perdure.client import open_store
from perdure.view.page import sections
from perdure.view.report import view_report

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if reason := missing():
        pytest.skip(reason)
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the pages of some runs."""
    folder = tmp_path_factory.mktemp("pages")
    with open_store(str(folder / "perdure.db"), executor="inline") as client:
        client.start(steps.broken, run_id="broken", inputs={"n": 12}).wait()
        client.start(steps.hostile, run_id="hostile", tags={steps.EVIL: steps.EVIL}).wait()
        client.start(steps.different(60), run_id="different").wait()
        client.start(steps.chain(200, fails_at=150), run_id="tall").wait()
        for run_id in ("broken", "hostile", "different", "tall"):
            client.get_run(run_id).report(folder / f"{run_id}.html")
        parts = sections(view_report(client.get_run("broken")))
    (folder / "parts.json").write_text(json.dumps({n: str(part) for n, part in parts.items()}))
    return folder


@pytest.fixture
def opened(browser: Any, pages: Path) -> Iterator[Any]:
    """A function that opens a page; it fails if the page says or loads anything by itself."""
    contexts: list[Any] = []
    said: list[str] = []

    def open_page(name: str, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": 1200, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.on("request", lambda request: said.append(request.url) if _leaves(request) else None)
        page.goto((pages / f"{name}.html").as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


def _leaves(request: Any) -> bool:
    return not request.url.startswith(("file:", "data:image/png"))


def test_page_loads_nothing_and_has_nothing_to_complain_of(opened: Any) -> None:
    page = opened("broken")

    assert page.title() == "broken failed"
    assert page.locator("section").count() >= 8
    assert "ValueError: no column 'speed'" in page.locator(".failure").inner_text()


@pytest.mark.parametrize("width", [1000, 700])
def test_timeline_shrinks_with_the_page_and_no_bar_is_out_of_sight(opened: Any, width: int) -> None:
    page = opened("broken")
    page.set_viewport_size({"width": width, "height": 900})

    rights = page.locator(".timeline .span").evaluate_all(
        "bars => bars.map(bar => bar.getBoundingClientRect().right)"
    )

    assert rights
    assert max(rights) < width


def test_hostile_names_do_nothing_in_a_browser(opened: Any) -> None:
    page = opened("hostile")
    for row in page.locator("details.step > summary").all():
        row.click()

    assert steps.EVIL in page.locator("main").inner_text()
    assert page.locator("main script").count() == 0


def test_filter_finds_steps_by_name_and_status(opened: Any) -> None:
    page = opened("broken")

    page.fill("input.filter", "Failed parse[3] speed")

    shown = page.locator("details.step:visible").all()
    assert [row.get_attribute("data-step") for row in shown] == ["parse[3]"]


def test_node_leads_to_its_row_and_opens_it(opened: Any) -> None:
    page = opened("broken")
    row = page.locator("details.step[data-step=total]")
    assert row.get_attribute("open") is None

    page.locator(".graph [data-step=total] .title").click()

    row.locator(".why").wait_for(state="visible")
    assert "total did not run" in row.locator(".why").inner_text()


def test_mouse_over_a_node_lights_its_row_and_its_arrows(opened: Any) -> None:
    page = opened("broken")

    page.locator(".graph [data-step=numbers] .title").hover()

    assert page.locator("details.step.lit").get_attribute("data-step") == "numbers"
    assert page.locator(".edge.lit").count() == 1


def test_page_is_light_and_dark_as_the_reader_wants(opened: Any) -> None:
    def background(scheme: str) -> tuple[str, str]:
        page = opened("broken", color_scheme=scheme)
        look = "e => getComputedStyle(e)"
        return (
            page.locator("html").evaluate(f"{look}.backgroundColor", None),
            page.locator(".graph .face").first.evaluate(f"{look}.fill", None),
        )

    light, dark = background("light"), background("dark")

    assert light[0] != dark[0]
    assert light[1] != dark[1]


def test_large_graph_is_whole_at_first_and_large_when_asked_for(opened: Any) -> None:
    page = opened("different")
    picture = page.locator(".graph .canvas > svg")
    before = picture.bounding_box()["height"]

    page.check("input.zoom")

    assert before <= 860
    assert picture.bounding_box()["height"] > 2 * before


def test_tall_graph_is_whole_as_squares_and_full_size_begins_at_what_failed(opened: Any) -> None:
    page = opened("tall")
    squares = page.locator(".overview .square")
    boxes = page.locator(".canvas.rolled")

    assert squares.count() == 200
    assert squares.last.bounding_box()["y"] - squares.first.bounding_box()["y"] < 860
    assert page.locator(".overview .s-failed").get_attribute("data-step") == "link_0150"
    assert not boxes.is_visible()

    page.check("input.zoom")

    assert not squares.first.is_visible()
    around, failed = boxes.bounding_box(), boxes.locator(".s-failed").bounding_box()
    assert around["y"] < failed["y"] < around["y"] + around["height"]


def test_square_leads_to_the_row_of_its_step(opened: Any) -> None:
    page = opened("tall")

    page.locator(".overview .s-failed").click()

    page.locator("details.step[data-step=link_0150] .why").wait_for(state="visible")


def test_printed_page_has_statuses_without_backgrounds_and_no_tower_of_boxes(
    opened: Any,
) -> None:
    page = opened("tall")
    page.check("input.zoom")
    page.emulate_media(media="print", color_scheme="dark")

    pill, dot = page.locator(".summary .pill"), page.locator(".legend .s-failed .dot")
    look = "(each, name) => getComputedStyle(each)[name]"
    printed = page.pdf(format="A4")

    assert pill.evaluate(look, "color") == dot.evaluate(look, "backgroundColor")
    assert dot.evaluate(look, "printColorAdjust") == "exact"
    assert printed.count(b"/Type /Page\n") < 10


def test_page_is_readable_without_its_program(opened: Any) -> None:
    page = opened("broken", java_script_enabled=False)

    page.locator("details.step[data-step='parse[3]'] > summary").click()

    assert page.locator("input.filter").is_hidden()
    assert "raise ValueError" in page.locator("details.step[open] .traceback").inner_text()


def test_newer_sections_leave_open_what_is_open_and_find_rows_again(
    opened: Any, pages: Path
) -> None:
    page = opened("broken")
    page.locator("details.step[data-step=total] > summary").click()
    page.fill("input.filter", "total")
    page.evaluate("window.before = document.querySelector('details.step[data-step=total]')")
    parts = json.loads((pages / "parts.json").read_text())
    parts["steps"] = parts["steps"].replace("not begun", "succeeded")
    del parts["code"]

    page.evaluate(
        "parts => perdureView.patch(document.querySelector('main.perdure'), "
        "{...parts, code: '', news: '<section data-section=\"news\">new</section>'})",
        parts,
    )

    row = page.locator("details.step[data-step=total]")
    assert row.get_attribute("open") is not None
    assert row.evaluate("row => row === window.before", None)
    assert row.locator(".standing").inner_text() == "succeeded"
    assert page.locator("input.filter").input_value() == "total"
    assert page.locator("details.step:visible").count() == 1
    assert page.locator("section.code").count() == 0
    assert page.locator("[data-section=news]").inner_text() == "new"
