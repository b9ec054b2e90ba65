"""Pages of runs of which everything that is somebody else's is hostile."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest

from perdure.view.model import (
    AncestorView,
    AskedView,
    AttemptView,
    DetailView,
    DriverView,
    EdgeView,
    ErrorView,
    EventView,
    FunctionView,
    GenerationView,
    GraphView,
    InputView,
    NodeView,
    ReportView,
    RunView,
    SpanView,
    StepView,
    TimelineView,
)
from perdure.view.page import asset, sections, whole_page
from perdure.view.summary import draw_progress

START = datetime(2026, 1, 5, 12, tzinfo=UTC)
ATTACKS = (
    "<script>alert('EVIL')</script>",
    '"><img src=x onerror=alert("EVIL")>',
    "' onmouseover='alert(`EVIL`)",
    "</style></script></title></textarea><script>EVIL</script>",
    "javascript:EVIL",
    "<!-- EVIL --><![CDATA[EVIL]]>",
    "&lt;script&gt;EVIL&amp;",
    "</svg><svg onload=EVIL>",
    "EVIL\u202e\x1b[2J\x00\ud800",
)
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"


class Page(HTMLParser):
    """What a browser makes of a page: its elements, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        self.elements.append(("!--", {"data": data}))

    def named(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of all elements of this name."""
        return [attributes for name, attributes in self.elements if name == tag]

    def of_class(self, name: str) -> list[dict[str, str | None]]:
        """Return the attributes of all elements of this class."""
        return [a for _, a in self.elements if name in (a.get("class") or "").split()]

    @property
    def text(self) -> str:
        """Return all that can be read."""
        return "".join(self.texts)


def a_report(**more: Any) -> ReportView:
    run = RunView(id="r", workflow="w", status="SUCCEEDED", created_at=START)
    return ReportView(**{"run": run, "at": START, "graph": GraphView(), **more})


def hostile_report(evil: str) -> ReportView:
    """Return a report in which every text that is a user's is the attack."""
    error = ErrorView(
        type=evil, message=evil, cause=evil, step=evil, item=evil, traceback=f"{evil}\n{evil}"
    )
    previews: list[dict[str, Any]] = [
        {"type": evil, "repr": evil, "length": evil, "dtype": evil},
        {"type": evil, "rows": [[evil, 1, None]], "columns": {evil: evil}, "shape": [9, evil]},
        {"type": evil, "png": evil},
        {"type": evil, "png": PNG, "head": [evil]},
        {"type": evil, "head": [evil], "shape": evil},
        {"type": evil, "repr": evil * 9},
    ]
    step = StepView(
        id=evil, status=evil, standing=evil, name=evil, attempts=2, duration_s=1.0,
        peak_memory_bytes=1, preview=previews[1], reason=evil, error=error,
    )  # fmt: skip
    attempt = AttemptView(step=evil, generation=2, attempt=1, cause=evil, worker=evil, error=error)
    detail = DetailView(
        run=evil, id=evil, status=evil, generation=2, task=evil, where=evil, why=f"{evil}\n{evil}",
        asked=AskedView(resources={evil: 1.0}), fingerprint=evil, attempts=[attempt], error=error,
        inputs=[InputView(name=evil, of=evil, part=evil, preview=p) for p in previews],
        generations=[
            GenerationView(generation=1, status=evil, current=False, reason=evil, preview=p)
            for p in previews
        ],
    )  # fmt: skip
    inside = GraphView(nodes=(NodeView(id=evil, title=evil, kind="task", status=evil),))
    stack = NodeView(id=f"{evil}2", title=evil, kind=evil, status=evil, count=3, statuses={evil: 3})
    open_node = NodeView(
        id=evil, title=evil, kind="graph", status=evil, count=1, statuses={evil: 1}, inside=inside
    )
    edge = EdgeView(source=evil, target=f"{evil}2", kind=evil, label=evil)
    return ReportView(
        run=RunView(
            id=evil, workflow=evil, status=evil, created_at=START, started_at=START, origin=evil,
            inputs={f"{evil}{n}": each for n, each in enumerate(previews)}, tags={evil: evil},
            metadata={evil: {evil: evil}}, schedule=evil, unplanned=evil, driver=evil, next=evil,
            total=1, done=0, error=error, steps=[step],
        ),
        at=START + timedelta(seconds=9),
        graph=GraphView(nodes=(open_node, stack), edges=(edge,)),
        timeline=TimelineView(
            begin=START, seconds=2.0, spans=(SpanView(evil, evil, 0.0, 1.0, 1, evil),)
        ),
        details=(detail,),
        untold={evil: 2},
        logs={evil: f"{evil}\n{evil}"},
        drivers=(DriverView(host=evil, pid=1, at=START),),
        ancestors=(AncestorView(id=evil, link=evil, status=evil),),
        events=(EventView(at=START, kind=evil, step=evil, detail={evil: evil}),),
        functions=(FunctionView(name=evil, where=evil, code=evil),),
        sources={evil: evil},
        packages={evil: evil},
        policy={evil: evil},
    )  # fmt: skip


def of_ours() -> set[str]:
    """Return the elements of a page in which nothing is hostile."""
    return {tag for tag, _ in Page(whole_page(hostile_report("mild"))).elements}


@pytest.mark.parametrize("evil", ATTACKS)
def test_hostile_text_makes_no_element_and_no_attribute(evil: str) -> None:
    page = Page(whole_page(hostile_report(evil)))

    assert {tag for tag, _ in page.elements} <= of_ours()
    assert len(page.named("script")) == len(page.named("style")) == 1
    mild = Page(whole_page(hostile_report("mild")))
    names = {name for _, attributes in mild.elements for name in attributes}
    assert {name for _, attributes in page.elements for name in attributes} <= names
    assert not [name for name in names if name.startswith("on") or name == "style"]


@pytest.mark.parametrize("evil", ATTACKS)
def test_hostile_text_can_be_read_as_it_is(evil: str) -> None:
    page = Page(whole_page(hostile_report(evil)))

    shown = "".join(c if c.isprintable() else "�" for c in evil)
    for place in ("workflow", "traceback", "log line", "tag"):
        assert shown in page.text, place
    assert page.text.count("EVIL") > 40


@pytest.mark.parametrize("evil", ATTACKS)
def test_links_and_figures_lead_out_of_no_page(evil: str) -> None:
    page = Page(whole_page(hostile_report(evil)))

    ids = {attributes.get("id") for _, attributes in page.elements}
    for link in page.named("a"):
        assert (link["href"] or "")[1:] in ids
    for figure in page.named("img"):
        assert (figure["src"] or "").startswith("data:image/png;base64,iVBOR")


def test_page_loads_nothing_and_runs_its_own_program_only() -> None:
    html = whole_page(a_report())

    page = Page(html)
    (policy,) = [m["content"] for m in page.named("meta") if m.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert policy.count("'sha256-") == 2
    assert not re.search(r"https?://(?!www\.w3\.org)", html)
    assert page.named("link") == []


def test_program_and_style_sheet_do_not_end_before_their_end() -> None:
    for name in ("view.js", "view.css"):
        assert not re.search(r"</(script|style)|<!--", asset(name), re.IGNORECASE)


def test_sections_have_names_and_their_ids_a_prefix() -> None:
    made = sections(hostile_report("mild"), prefix="one-")

    assert list(made) == [
        "summary", "failure", "graph", "timeline", "steps", "parameters", "lineage", "code",
        "events",
    ]  # fmt: skip
    page = Page("".join(map(str, made.values())))
    ids = [attributes["id"] or "" for _, attributes in page.elements if "id" in attributes]
    assert all(each.startswith("one-") for each in ids)
    assert len(ids) == len(set(ids))


def test_run_that_has_done_nothing_yet_has_only_the_sections_that_say_something() -> None:
    assert list(sections(a_report())) == ["summary", "lineage"]


def test_node_is_lit_by_where_it_stands_and_keeps_its_place() -> None:
    def picture(status: str) -> Page:
        nodes = tuple(NodeView(id=i, title=i, kind="task", status=status) for i in "abc")
        graph = GraphView(nodes=nodes, edges=(EdgeView(source="a", target="b"),))
        return Page(str(sections(a_report(graph=graph))["graph"]))

    before, after = picture("PENDING"), picture("FAILED")

    places = [[(r["x"], r["y"]) for r in each.named("rect")] for each in (before, after)]
    assert places[0] == places[1]
    assert len(before.of_class("s-pending")) == len(after.of_class("s-failed")) == 3


def test_map_has_its_place_before_it_has_items() -> None:
    def places(count: int, statuses: dict[str, int]) -> list[object]:
        stack = NodeView(
            id="a", title="a", kind="map", status="WAITING", count=count, statuses=statuses
        )
        below = NodeView(id="b", title="b", kind="task", status="PENDING")
        graph = GraphView(nodes=(stack, below), edges=(EdgeView(source="a", target="b"),))
        page = Page(str(sections(a_report(graph=graph))["graph"]))
        return [(face["x"], face["y"], face["width"]) for face in page.of_class("face")]

    assert places(0, {"PENDING": 1}) == places(500, {"RUNNING": 2, "PENDING": 498})


def test_ten_thousand_items_are_one_node_with_counts() -> None:
    counts = {"SUCCEEDED": 9_990, "FAILED": 10}
    node = NodeView(
        id="parse", title="parse", kind="map", status="FAILED", count=10_000, statuses=counts
    )
    page = Page(str(sections(a_report(graph=GraphView(nodes=(node,))))["graph"]))

    assert len(page.of_class("node")) == 1
    assert "9,990 of 10,000, 10 failed" in page.text
    bar = {(r["class"] or ""): float(r["width"] or 0) for r in page.of_class("part")}
    assert bar["part s-failed"] == 2.0  # as small as it is, it is seen
    assert bar["part s-succeeded"] > 100


def test_one_failed_step_of_very_many_is_seen_in_the_bar_of_all() -> None:
    standings = ["SUCCEEDED"] * 7_000 + ["FAILED"] + ["not begun"] * 2_999
    steps = [StepView(id=f"s{n}", status=s, standing=s) for n, s in enumerate(standings)]

    page = Page("".join(map(str, draw_progress(steps))))

    parts = page.of_class("part")
    assert [part["class"] for part in parts][1] == "part s-failed"
    assert min(float(part["width"] or 0) for part in parts) > 3.9
    assert sum(float(part["width"] or 0) for part in parts) == pytest.approx(1000)


def test_steps_are_rows_that_open() -> None:
    report = hostile_report("mild")
    page = Page(str(sections(report)["steps"]))

    (row,) = page.named("details")
    assert row["id"] == "step-0"
    assert row["data-step"] == "mild"
    assert "open" not in row


def test_page_of_two_thousand_steps_stays_small() -> None:
    report = hostile_report("mild")
    steps = [msgspec.structs.replace(report.run.steps[0], id=f"s{n}") for n in range(1200)]
    details = tuple(msgspec.structs.replace(report.details[0], id=f"s{n}") for n in range(1200))
    run = msgspec.structs.replace(report.run, steps=steps)

    html = whole_page(msgspec.structs.replace(report, run=run, details=details))

    assert len(html.encode()) < 8_000_000
