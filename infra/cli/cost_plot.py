"""Cost over requests a second, both logarithmic: for a terminal, and as an SVG file."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

Curves = Mapping[str, Sequence[float]]

_HEIGHT: Final = 18
_LEAST_WIDTH: Final = 40
# Letters tell the curves apart where there are no colours.
_LETTERS: Final = {"function": "f", "serverless": "s", "real-time": "r", "asynchronous": "a"}
_COLOURS: Final = ("#0b6e4f", "#b04a2f", "#2f5fb0", "#8a5fb0")
_SVG_WIDTH, _SVG_HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 760, 420, 70, 40, 130, 50


def decades(rps: float, around: int = 2, points: int = 40) -> list[float]:
    """Requests a second from some powers of ten below `rps` to as many above, `points` for each power."""
    first, last = math.floor(math.log10(rps)) - around, math.ceil(math.log10(rps)) + around
    count = (last - first) * points
    return [10 ** (first + step / points) for step in range(count + 1)]


def terminal_plot(rps: Sequence[float], curves: Curves, *, width: int, coloured: bool) -> str:
    """The plot for a terminal of `width` columns; without colours its curves are drawn by letters."""
    import uniplot  # takes 0.1 s to load

    style = {"character_set": "braille"} if coloured else {"character_set": "ascii"}
    letters = [_LETTERS.get(name, name[:1]) for name in curves]
    drawn: str = uniplot.plot_to_string(
        xs=[list(rps)] * len(curves),
        ys=[list(values) for values in curves.values()],
        x_as_log=True,
        y_as_log=True,
        lines=coloured,
        width=max(width - 12, _LEAST_WIDTH),
        height=_HEIGHT,
        color=coloured,
        force_ascii_characters=letters,
        legend_labels=list(curves),
        title="US dollars a month over requests a second",
        **style,
    )
    return drawn


def svg_plot(rps: Sequence[float], curves: Curves, title: str) -> str:
    """The plot as the text of an SVG file."""
    low, high = _powers([value for values in curves.values() for value in values])
    first, last = _powers(rps)

    def x(value: float) -> float:
        return _LEFT + (math.log10(value) - first) / (last - first) * (_SVG_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _SVG_HEIGHT - _BOTTOM - (math.log10(value) - low) / (high - low) * (_SVG_HEIGHT - _TOP - _BOTTOM)

    pieces = [f'<text x="{_LEFT}" y="20" font-weight="bold">{escape(title)}</text>']
    for power in range(first, last + 1):
        at = x(10.0**power)
        pieces.append(_line(at, _TOP, at, _SVG_HEIGHT - _BOTTOM))
        pieces.append(
            f'<text x="{at:.1f}" y="{_SVG_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{10.0**power:g}</text>'
        )
    for power in range(low, high + 1):
        at = y(10.0**power)
        pieces.append(_line(_LEFT, at, _SVG_WIDTH - _RIGHT, at))
        pieces.append(f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    for (name, values), colour, row in zip(curves.items(), _COLOURS, range(len(curves)), strict=False):
        points = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in zip(rps, values, strict=True))
        pieces.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        text = f'x="{_SVG_WIDTH - _RIGHT + 10}" y="{_TOP + 14 + 18 * row}" fill="{colour}"'
        pieces.append(f"<text {text}>{escape(name)}</text>")
    middle = (_LEFT + _SVG_WIDTH - _RIGHT) / 2
    pieces.append(f'<text x="{middle}" y="{_SVG_HEIGHT - 10}" text-anchor="middle">requests a second</text>')
    style = "font-family:sans-serif;font-size:12px"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_SVG_WIDTH}" height="{_SVG_HEIGHT}" style="{style}">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *pieces, "</svg>"]) + "\n"


def _powers(values: Sequence[float]) -> tuple[int, int]:
    """The powers of ten around some values; never the same one twice."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#dddddd"/>'
