"""Charts: bars and histograms as SVG, curves drawn by uPlot, whose reader can zoom."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import attrs

from mm_config.pages.markup import Html, data_block, number, tag

_WIDTH, _HEIGHT, _FOOT, _HEAD = 360, 170, 22, 16
_ROW, _LABEL, _COUNT, _LETTER = 22, 130, 64, 7


@attrs.frozen
class Bin:
    """One bar of a histogram."""

    low: float
    """The least value that it counts."""
    high: float
    """Values below this are counted, or at it where all values are equal; infinity in the last bin of a long
    tail."""
    count: int
    """How many values it counts."""


def bins_of(values: Iterable[float], most: int = 24) -> list[Bin]:
    """Values counted in bins of equal width, 1, 2 or 5 times a power of ten; one bin where all are equal.

    Where a hundredth of the values are so large that they would flatten all others, the last bin takes them.
    """
    ordered = sorted(values)
    if not ordered:
        return []
    low, high, usual = ordered[0], ordered[-1], ordered[(len(ordered) - 1) * 99 // 100]
    if low == high:
        return [Bin(low, high, len(ordered))]
    tail = high - low > 2 * (usual - low) > 0
    shown = usual if tail else high
    whole = all(float(value).is_integer() for value in ordered)
    step = _step(max((shown - low) / most, 1.0 if whole else 0.0))
    first, last = math.floor(low / step), math.floor(shown / step)
    counts = [0] * (last - first + 1)
    for value in ordered:
        counts[min(math.floor(value / step), last) - first] += 1
    bins = [Bin((first + at) * step, (first + at + 1) * step, count) for at, count in enumerate(counts)]
    return [*bins[:-1], attrs.evolve(bins[-1], high=math.inf)] if tail else bins


def _step(least: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that is no smaller."""
    power = 10.0 ** math.floor(math.log10(least))
    return next((times * power for times in (1, 2, 5) if times * power >= least), 10 * power)


def histogram(title: str, bins: Sequence[Bin], unit: str = "") -> Html:
    """How often values occur: a bar for each bin, which says its range and its count."""
    most = max((one.count for one in bins), default=0)
    if not most:
        return _figure(title, tag("p", "no values", class_="faint"))
    width, room = _WIDTH / len(bins), _HEIGHT - _FOOT - _HEAD
    heights = [room * one.count / most for one in bins]
    shapes = [
        _bar(
            f"{_range(one)} {unit}".rstrip() + f": {number(one.count)}",
            place * width,
            _HEIGHT - _FOOT - height,
            max(width - 1, 1),
            height,
        )
        for place, (one, height) in enumerate(zip(bins, heights, strict=True))
    ]
    last = bins[-1]
    end = f"{number(last.low)} and more" if math.isinf(last.high) else number(last.high)
    words = (
        tag("text", f"up to {number(most)}", x=0, y=11, class_="faint"),
        tag("text", number(bins[0].low), x=0, y=_HEIGHT - 6),
        tag("text", f"{end} {unit}".rstrip(), x=_WIDTH, y=_HEIGHT - 6, text_anchor="end"),
    )
    return _figure(title, _svg(title, _HEIGHT, *shapes, *words))


def _range(one: Bin) -> str:
    if math.isinf(one.high):
        return f"{number(one.low)} and more"
    return number(one.low) if one.low == one.high else f"{number(one.low)} to {number(one.high)}"


def bars(title: str, counts: Iterable[tuple[str, float]], unit: str = "") -> Html:
    """A bar for each name, as long as its number."""
    listed = list(counts)
    most = max((count for _, count in listed), default=0)
    if not listed:
        return _figure(title, tag("p", "none", class_="faint"))
    above = any(len(name) > _LABEL // _LETTER for name, _ in listed)
    left, row, down = (0, 2 * _ROW, _ROW) if above else (_LABEL, _ROW, 0)
    shapes: list[Html] = []
    for place, (name, count) in enumerate(listed):
        top = place * row
        length = (_WIDTH - left - _COUNT) * count / most if most > 0 else 0.0
        said, room = f"{number(count)} {unit}".rstrip(), (_WIDTH if above else _LABEL) // _LETTER
        shown = name if len(name) <= room else f"{name[: room - 1]}…"
        shapes += (
            tag("text", tag("title", name), shown, x=0, y=top + 15),
            _bar(f"{name}: {said}", left, top + down + 3, max(length, 1), _ROW - 6),
            tag("text", said, x=left + length + 6, y=top + down + 15, class_="faint"),
        )
    return _figure(title, _svg(title, len(listed) * row, *shapes))


def _bar(said: str, left: float, top: float, width: float, height: float) -> Html:
    places = {"x": left, "y": top, "width": width, "height": height}
    return tag("rect", tag("title", said), class_="bar", **{k: f"{v:.2f}" for k, v in places.items()})


def _svg(title: str, height: int, *shapes: Html) -> Html:
    return tag("svg", *shapes, viewBox=f"0 0 {_WIDTH} {height}", role="img", aria_label=title)


def curves(
    title: str,
    x: Sequence[float],
    ys: Mapping[str, Sequence[float | None]],
    *,
    x_label: str = "",
    log_x: bool = False,
    tunable: bool = False,
    names: Sequence[str] = (),
) -> Html:
    """Lines over a common axis, in which a reader zooms by dragging and a double click shows all.

    Args:
        title: What they show.
        x: Where the points are, ascending; above 0 for `log_x`.
        ys: The values of each line by its name; None leaves a gap.
        x_label: What the axis measures.
        log_x: Whether equal ratios are equally far apart.
        tunable: Whether the page's `tuning` smooths them and gives them a logarithmic scale.
        names: What a server calls the lines that it lets go on, in their order.
    """
    told = {
        "x": list(x),
        "ys": [list(map(_finite, y)) for y in ys.values()],
        "names": list(ys),
        "label": x_label,
        "log": log_x,
        "tunable": tunable,
        **({"lines": list(names)} if names else {}),
    }
    return _figure(title, tag("div", data_block(told), class_="curves"))


def tuning() -> Html:
    """Where a reader smooths all tunable curves of the page, and gives them a logarithmic scale."""
    return tag("div", class_="tuning")


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _figure(title: str, inside: Html) -> Html:
    return tag("figure", tag("figcaption", title), inside)
