"""Small SVG plots as text: a histogram, a curve, bars. They stand alone as files or inside a page, light or dark."""

import math
from collections.abc import Callable, Sequence
from html import escape

STYLE = """
.plot{--ink:#1b1f24;--soft:#68717d;--line:#e3e6ea;--mark:#2f6fb2;font:12px system-ui,-apple-system,sans-serif}
@media (prefers-color-scheme:dark){.plot{--ink:#e6e9ed;--soft:#99a3ae;--line:#343b44;--mark:#6aa9e6}}
.plot text{fill:var(--soft)}.plot .title{fill:var(--ink);font-size:13px;font-weight:600}
.plot .grid{stroke:var(--line);stroke-width:1}.plot .axis{stroke:var(--soft);stroke-width:1}
.plot .mark{fill:var(--mark)}.plot .mark:hover{opacity:.7}
.plot .curve{fill:none;stroke:var(--mark);stroke-width:2;stroke-linejoin:round}
"""
WIDTH, HEIGHT = 560, 260
LEFT, RIGHT, TOP, BOTTOM = 62, 18, 34, 44


def histogram(title: str, edges: Sequence[float], counts: Sequence[int], x_label: str, y_label: str) -> str:
    """Bars over [edges[i], edges[i + 1]). Raises: ValueError unless there is one edge more than counts."""
    if len(edges) != len(counts) + 1:
        raise ValueError(f"{len(counts)} bars need {len(counts) + 1} edges, got {len(edges)}")
    x = _Scale(edges[0], edges[-1], LEFT, WIDTH - RIGHT)
    y = _Scale(0, max(*counts, 1), HEIGHT - BOTTOM, TOP)
    bars = [
        f'<rect class="mark" x="{x(low) + 0.5:.1f}" y="{y(count):.1f}" width="{max(x(high) - x(low) - 1, 0.5):.1f}" '
        f'height="{y(0) - y(count):.1f}"><title>{_number(low)}–{_number(high)}: {count:,}</title></rect>'
        for low, high, count in zip(edges, edges[1:], counts, strict=False)
        if count
    ]
    return _svg(title, _axes(x, y, x_label, y_label) + bars)


def curve(title: str, points: Sequence[tuple[float, float]], x_label: str, y_label: str) -> str:
    """A line through positive points over two logarithmic axes. Raises: ValueError if a point is not positive."""
    if any(value <= 0 for point in points for value in point):
        raise ValueError("a logarithmic axis needs positive values")
    xs, ys = zip(*points, strict=True) if points else ((1.0,), (1.0,))
    x = _Scale(min(xs), max(xs), LEFT, WIDTH - RIGHT, log=True)
    y = _Scale(min(ys), max(ys), HEIGHT - BOTTOM, TOP, log=True)
    path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)
    return _svg(title, [*_axes(x, y, x_label, y_label), f'<polyline class="curve" points="{path}"/>'])


def line(title: str, points: Sequence[tuple[float, float]], x_label: str, y_label: str) -> str:
    """A line through points over two straight axes. Raises: ValueError for no points."""
    if not points:
        raise ValueError("no points to draw a line through")
    xs, ys = zip(*points, strict=True)
    x = _Scale(min(0, *xs), max(xs), LEFT, WIDTH - RIGHT)
    y = _Scale(min(ys), max(ys), HEIGHT - BOTTOM, TOP)
    path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)
    return _svg(title, [*_axes(x, y, x_label, y_label), f'<polyline class="curve" points="{path}"/>'])


def bars(title: str, values: dict[str, float], show: Callable[[float], str]) -> str:
    """One horizontal bar a name, in the order given; `show` puts a value into words."""
    left, row = 130, 24
    height = TOP + row * len(values) + 12
    x = _Scale(0, max([*values.values(), 1e-9]), left, WIDTH - 90)
    body = []
    for place, (name, value) in enumerate(values.items()):
        top = TOP + place * row
        shown = name if len(name) <= 20 else name[:19] + "…"
        body.append(f'<text x="{left - 8}" y="{top + 15}" text-anchor="end">{escape(shown)}</text>')
        body.append(
            f'<rect class="mark" x="{left}" y="{top + 3}" width="{max(x(value) - left, 1):.1f}" height="{row - 8}" '
            f'rx="2"><title>{escape(name)}: {escape(show(value))}</title></rect>'
        )
        body.append(f'<text x="{x(value) + 6:.1f}" y="{top + 15}">{escape(show(value))}</text>')
    return _svg(title, body, height)


class _Scale:
    """Values to pixels, straight or logarithmic."""

    def __init__(self, low: float, high: float, start: float, end: float, log: bool = False) -> None:
        self.log = log
        self.low, self.high = low, high if high > low else (low * 10 if log else low + 1)
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            factors = (1,) if len(decades) > 3 else (1, 2, 5)
            values = [factor * 10.0**power for power in decades[:: 1 + len(decades) // 8] for factor in factors]
            return [value for value in values if self.low * 0.999 <= value <= self.high * 1.001]
        rough = (self.high - self.low) / 5
        unit = 10 ** math.floor(math.log10(rough))
        step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [index * step for index in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _axes(x: _Scale, y: _Scale, x_label: str, y_label: str) -> list[str]:
    floor = HEIGHT - BOTTOM
    parts = []
    for value in y.ticks():
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{_number(value)}</text>')
    for value in x.ticks():
        parts.append(f'<line class="axis" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{floor}" y2="{floor + 4}"/>')
        parts.append(f'<text x="{x(value):.1f}" y="{floor + 17}" text-anchor="middle">{_number(value)}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{floor}" y2="{floor}"/>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end">{escape(x_label)}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="18" text-anchor="end">{escape(y_label)}</text>')
    return parts


def _number(value: float) -> str:
    """Short for an axis: 1200 as 1.2k, 3e-06 as 3e-6."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    if value and abs(value) < 1e-3:
        mantissa, power = f"{value:.0e}".split("e")
        return f"{mantissa}e{int(power)}"
    return f"{value:.3g}"


def _svg(title: str, body: list[str], height: float = HEIGHT) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(title)}" width="{WIDTH}">\n<style>{STYLE}</style>\n'
        f'<text class="title" x="14" y="18">{escape(title)}</text>\n' + "\n".join(body) + "\n</svg>\n"
    )
