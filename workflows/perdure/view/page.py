"""A run as a page: sections with names, and the one file that all of them are in.

Everything is there without a program: what runs in the page only finds steps, shows what belongs
together, and puts newer sections in place of older ones.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from importlib.resources import files

from perdure import words
from perdure.view.bars import draw_timeline
from perdure.view.drawing import draw_graph
from perdure.view.markup import Asset, Content, Element, element
from perdure.view.model import ReportView
from perdure.view.overview import draw_overview
from perdure.view.rows import draw_steps
from perdure.view.summary import (
    draw_code,
    draw_failure,
    draw_head,
    draw_lineage,
    draw_parameters,
    draw_story,
)

GENERATOR = "perdure"
_WIDTH, _HEIGHT = 1080, 860
_READABLE, _FAR, _LEAST = 0.7, 0.35, 0.065
"""A graph that has to be drawn smaller than that can be had larger; shows colours only; is shown
whole as squares, for its boxes would be specks."""
_FILTER_FROM = 8


def whole_page(report: ReportView) -> str:
    """Return a file that shows a run by itself: nothing in it is loaded from anywhere."""
    style, program = asset("view.css"), asset("view.js")
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src '{_hash(style)}'; script-src '{_hash(program)}'"
    )
    document = element(
        "html",
        element(
            "head",
            element("meta", charset="utf-8"),
            element("meta", name="generator", content=GENERATOR),
            element("meta", http_equiv="Content-Security-Policy", content=policy),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", name="referrer", content="no-referrer"),
            element("title", f"{report.run.id} {report.run.status.lower()}"),
            element("style", style),
        ),
        element(
            "body",
            element(
                "main",
                sections(report).values(),
                element("footer", f"perdure, as of {report.at:%Y-%m-%d %H:%M:%S} UTC"),
                class_="perdure",
            ),
            element("script", program),
        ),
        lang="en",
    )
    return f"<!doctype html>\n{document}\n"


def sections(report: ReportView, prefix: str = "") -> dict[str, Element]:
    """Return the parts of the page by their names, those that have something to say.

    Args:
        report: the run.
        prefix: of all ids, where several runs are shown in one page.
    """
    anchors = {each.id: f"{prefix}step-{n}" for n, each in enumerate(report.details)}
    drawn: Mapping[str, Callable[[], Content]] = {
        "summary": lambda: draw_head(report),
        "failure": lambda: draw_failure(report.run, anchors),
        "graph": lambda: _graph(report, anchors),
        "timeline": lambda: _timeline(report, anchors),
        "steps": lambda: _steps(report, anchors),
        "parameters": lambda: draw_parameters(report),
        "lineage": lambda: draw_lineage(report),
        "code": lambda: draw_code(report),
        "events": lambda: draw_story(report),
    }
    found = ((name, draw()) for name, draw in drawn.items())
    return {
        name: element("section", content, id=f"{prefix}{name}", class_=name, data_section=name)
        for name, content in found
        if content is not None
    }


def asset(name: str) -> Asset:
    """Return the text of a file of ours that pages carry: ``view.css``, ``view.js``."""
    return Asset((files("perdure.view") / "assets" / name).read_text("utf-8"))


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _graph(report: ReportView, anchors: Mapping[str, str]) -> Content:
    graph = report.graph
    if graph.left_out:
        return [
            element("h2", "Graph"),
            element(
                "p",
                f"{graph.left_out:,} nodes are too many to be drawn; ",
                element("code", f"perdure show {report.run.id} --all"),
                " lists the steps.",
            ),
        ]
    if not graph.nodes:
        return None
    drawn = draw_graph(graph, anchors)
    width, height = drawn.attributes["width"], drawn.attributes["height"]
    assert isinstance(width, int)
    assert isinstance(height, int)
    scale = min(_WIDTH / width, _HEIGHT / height)
    # A large graph is shown whole: where it is red, green or grey can be seen from afar.
    zoom = element("label", element("input", type="checkbox", class_="zoom"), " full size")
    return [
        element("h2", "Graph", zoom if scale < _READABLE else None),
        _whole(drawn, scale)
        if scale >= _LEAST
        else [
            element("div", draw_overview(graph, anchors), class_="canvas all"),
            element("div", drawn, class_="canvas rolled"),
        ],
        element("p", f"{graph.arrows_left_out:,} more arrows are not drawn.", class_="more")
        if graph.arrows_left_out
        else None,
    ]


def _whole(drawn: Element, scale: float) -> Element:
    return element("div", drawn, class_=f"canvas whole{' far' if scale <= _FAR else ''}")


def _timeline(report: ReportView, anchors: Mapping[str, str]) -> Content:
    if report.timeline is None:
        return None
    return [
        element("h2", "Who ran when"),
        element("div", draw_timeline(report.timeline, anchors), class_="canvas"),
    ]


def _steps(report: ReportView, anchors: Mapping[str, str]) -> Content:
    if not report.details:
        return None
    views = {step.id: step for step in report.run.steps}
    return [
        element(
            "h2",
            "Steps",
            element("small", "failed ones first, then those that took longest, items of maps last"),
        ),
        element(
            "input",
            type="search",
            class_="filter",
            placeholder="find steps: a name, a status",
            aria_label="find steps",
            hidden=True,
        )
        if len(report.details) >= _FILTER_FROM
        else None,
        draw_steps(report.details, views, report.logs, anchors, report.at),
        _untold(report),
    ]


def _untold(report: ReportView) -> Content:
    if not report.untold:
        return None
    names = ", ".join(f"{count:,} of {name}" for name, count in report.untold.items())
    whole = words.count_of(sum(report.untold.values()), "more step")
    command = element("code", f"perdure show {report.run.id} --all")
    return element(
        "p",
        f"and {whole} that this page leaves out: {names}. ",
        command,
        " lists them.",
        class_="more",
    )
