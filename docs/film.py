"""Screens of a terminal, and when they were shown, as one animated SVG without scripts.

All frames lie on a strip, one below the other, which CSS moves past a window: so a frame costs
one reference for each of its lines, and a line is stored once however often it is shown. Where
nothing moves, because the reader prefers it so or the viewer cannot, the last frame stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

HOLD_S = 6.0
"""How long the last frame stands before the film begins again."""

_CHAR, _LINE, _FONT, _PAD, _BAR = 8.4, 19, 14, 16, 34
_COLOURS = {
    "red": "#ff7b72", "green": "#3fb950", "brown": "#d29922", "blue": "#58a6ff",
    "magenta": "#bc8cff", "cyan": "#39c5cf", "black": "#6e7681", "white": "#e6edf3",
    "brightblack": "#8b949e",
}  # fmt: skip
_TEXT, _GROUND, _EDGE = "#e6edf3", "#161b22", "#3d444d"
_FAMILY = 'ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace'
_STYLE = f"""
text {{ font: {_FONT}px {_FAMILY};
  fill: {_TEXT}; white-space: pre; dominant-baseline: text-before-edge; }}
.b {{ font-weight: 600; }}
"""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a line in one style; ``colour`` is a name, or six hexadecimal digits."""

    column: int
    text: str
    colour: str = "default"
    is_bold: bool = False


Line = tuple[Span, ...]
Screen = tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Frame:
    """What was shown from ``at_s`` on, in seconds since the film began."""

    at_s: float
    screen: Screen


def draw(frames: Sequence[Frame], *, columns: int, title: str, description: str) -> str:
    """Return the film as SVG.

    Args:
        frames: at least one, in the order of time, all of one height.
        columns: the terminal's width in characters.
        title: the picture in a few words.
        description: what it shows, for who cannot see it.
    """
    height = _LINE * len(frames[0].screen)
    lines = {line: i for i, line in enumerate(dict.fromkeys(_lines(frames)))}
    width = columns * _CHAR + 2 * _PAD
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} '
            f'{height + _BAR + _PAD}" width="{width:g}" role="img" aria-labelledby="t d">',
            f'<title id="t">{escape(title)}</title>',
            f'<desc id="d">{escape(description)}</desc>',
            f"<style>{_STYLE}{_motion(frames, height)}</style>",
            f"<defs>{''.join(_draw_line(line, i) for line, i in lines.items())}</defs>",
            _window(width, height),
            f'<svg x="{_PAD}" y="{_BAR}" width="{width - _PAD:g}" height="{height}">',
            f'<g class="film" transform="translate(0 {-height * (len(frames) - 1)})">',
            *(_draw_frame(frame, i * height, lines) for i, frame in enumerate(frames)),
            "</g></svg></svg>\n",
        ]
    )


def _lines(frames: Sequence[Frame]) -> list[Line]:
    return [line for frame in frames for line in frame.screen if line]


def _motion(frames: Sequence[Frame], height: int) -> str:
    """Return the CSS that moves the strip: no step between two frames, and a rest at the end."""
    length_s = frames[-1].at_s + HOLD_S
    stops = "".join(
        f"{100 * frame.at_s / length_s:.2f}%{{transform:translateY({-i * height}px)}}"
        for i, frame in enumerate(frames)
    )
    last = f"100%{{transform:translateY({-height * (len(frames) - 1)}px)}}"
    return (
        f"@keyframes film{{{stops}{last}}}\n@media (prefers-reduced-motion: no-preference) "
        f"{{ .film {{ animation: film {length_s:.1f}s step-end infinite; }} }}\n"
    )


def _window(width: float, height: int) -> str:
    dots = "".join(f'<circle cx="{_PAD + 5 + 18 * i}" cy="17" r="5"/>' for i in range(3))
    return (
        f'<rect x=".5" y=".5" width="{width - 1:g}" height="{height + _BAR + _PAD - 1}" rx="8" '
        f'fill="{_GROUND}" stroke="{_EDGE}"/><g fill="{_EDGE}">{dots}</g>'
    )


def _draw_frame(frame: Frame, top: int, lines: dict[Line, int]) -> str:
    uses = "".join(
        f'<use href="#l{lines[line]}" y="{_LINE * row}"/>'
        for row, line in enumerate(frame.screen)
        if line
    )
    return f'<g transform="translate(0 {top})">{uses}</g>'


def _draw_line(line: Line, number: int) -> str:
    return f'<g id="l{number}">{"".join(map(_draw_span, line))}</g>'


def _draw_span(span: Span) -> str:
    """Draw a span at its place and to its width, whatever the font at hand is."""
    fill = "" if span.colour == "default" else f' style="fill:{_colour(span.colour)}"'
    bold = ' class="b"' if span.is_bold else ""
    place = f'x="{span.column * _CHAR:g}" textLength="{len(span.text) * _CHAR:g}"'
    return (
        f'<text {place} lengthAdjust="spacingAndGlyphs" xml:space="preserve"{bold}{fill}>'
        f"{escape(span.text)}</text>"
    )


def _colour(name: str) -> str:
    plain = name.removeprefix("bright")
    return _COLOURS.get(name) or _COLOURS.get(plain) or f"#{name}"
