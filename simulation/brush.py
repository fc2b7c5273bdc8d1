"""Strokes of a round brush: how to cover an area with them, what they leave on the canvas, what they cost.

The way of painting follows RootPainter's simulated annotator: strokes stay inside what is to be painted, the
brush is half as wide as what is left is deep, and is halved for what the last pass could not reach.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from core.distances import distance_inside
from core.painting import PAINTED_ALPHA, Box, Mask

DEPTH_SHARE = 0.5
"""Radius of the brush as a share of the depth of what is to be covered."""

SMALLEST_RADIUS_PX, LARGEST_RADIUS_PX = 1.0, 25.0
"""Label Studio's brushes go further up; nobody takes one for small objects."""

TOLERATED_SPOT_PX = 6
"""Smaller spots that a pass left out are let be: nobody zooms in for them."""

Points = NDArray[np.float64]
"""`(n, 2)` rows and columns."""


@dataclass(frozen=True)
class Stroke:
    """Where the middle of a brush of `radius_px` was moved while the button was down."""

    points: Points
    radius_px: float

    @property
    def length_px(self) -> float:
        return float(np.linalg.norm(np.diff(self.points, axis=0), axis=1).sum())


@dataclass(frozen=True)
class Effort:
    """What a hand did, as counts: every speed can be chosen afterwards. Efforts add up."""

    strokes: int = 0
    travelled_px: float = 0.0
    painted_px: float = 0.0
    places: int = 0
    questions: int = 0

    def __add__(self, other: Effort) -> Effort:
        return Effort(
            self.strokes + other.strokes,
            self.travelled_px + other.travelled_px,
            self.painted_px + other.painted_px,
            self.places + other.places,
            self.questions + other.questions,
        )


@dataclass(frozen=True)
class Pace:
    """How fast somebody works; the speeds are RootPainter's, the time for a question is our assumption.

    Attributes
    ----------
    search_s : to find where a stroke begins
    travel_px_per_s, paint_px_per_s : between strokes, and in a stroke
    final_check_s : at each place, when it is done
    question_s : to compare a pre-annotation in a box with the picture
    """

    search_s: float = 0.2
    travel_px_per_s: float = 800.0
    paint_px_per_s: float = 400.0
    final_check_s: float = 0.2
    question_s: float = 1.0

    def seconds(self, effort: Effort) -> float:
        """Return what an effort takes.

        Examples
        --------
        >>> round(Pace().seconds(Effort(strokes=2, travelled_px=400, painted_px=100, places=1)), 2)
        1.35
        """
        return (
            effort.strokes * self.search_s
            + effort.travelled_px / self.travel_px_per_s
            + effort.painted_px / self.paint_px_per_s
            + effort.places * self.final_check_s
            + effort.questions * self.question_s
        )


def cover(area: Mask, wanted: Mask | None = None) -> tuple[Stroke, ...]:
    """Find strokes that cover an area from the inside.

    Parameters
    ----------
    area : (H, W) bool
        No stroke leaves it. Beyond the image it does not end.
    wanted : (H, W) bool, optional
        What has to be covered, by default all of `area`.

    Returns
    -------
    tuple of Stroke
        Wide ones first. Sharp corners, and spots of fewer than `TOLERATED_SPOT_PX`, may stay uncovered.

    Examples
    --------
    >>> disc = cv2.circle(np.zeros((40, 40), np.uint8), (20, 20), 10, 1, -1) > 0
    >>> strokes = cover(disc)
    >>> alpha = draw(strokes, (40, 40))
    >>> len(strokes) <= 3, bool((alpha[~disc] < 128).all()), float((alpha[disc] >= 128).mean()) > 0.9
    (True, True, True)
    """
    left = area if wanted is None else area & wanted
    box = _box_around(left, area)
    if box is None:
        return ()
    strokes = [
        Stroke(points + np.array([box.top, box.left]), radius)
        for points, radius in _passes(area[box.slices], left[box.slices].copy(), _margins(box, area.shape))
    ]
    return tuple(strokes)


def draw(strokes: Sequence[Stroke], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Draw strokes as a browser does, with soft edges; returns alpha `(H, W)` uint8."""
    alpha = np.zeros(shape, np.uint8)
    for stroke in strokes:
        rows, columns = _reach(stroke.points, stroke.radius_px, shape)
        _draw_onto(
            alpha[rows, columns], stroke.points - np.array([rows.start, columns.start]), stroke.radius_px
        )
    return alpha


def effort_of(strokes: Sequence[Stroke], start: tuple[float, float]) -> tuple[Effort, tuple[float, float]]:
    """Count what it takes to draw strokes in their order from `start`; also returns where the hand ends.

    Examples
    --------
    >>> stroke = Stroke(np.array([[0.0, 30.0], [40.0, 30.0]]), 2)
    >>> effort_of([stroke], (0, 0))
    (Effort(strokes=1, travelled_px=30.0, painted_px=40.0, places=0, questions=0), (40.0, 30.0))
    """
    travelled, here = 0.0, np.asarray(start, np.float64)
    for stroke in strokes:
        travelled += float(np.linalg.norm(stroke.points[0] - here))
        here = stroke.points[-1]
    painted = sum(stroke.length_px for stroke in strokes)
    return Effort(len(strokes), travelled, float(painted)), (float(here[0]), float(here[1]))


def _passes(area: Mask, left: Mask, margins: tuple[int, int, int, int]) -> Iterator[tuple[Points, float]]:
    """Yield strokes, pass after pass with a smaller brush; `left` shrinks by what they cover."""
    depth = _depth(area, margins)
    radius = min(max(DEPTH_SHARE * float(depth[left].max()), SMALLEST_RADIUS_PX), LARGEST_RADIUS_PX)
    while True:
        # Rings from the edge inwards, each as far from the last one as the brush is wide.
        level = radius
        while left.any() and level <= depth.max():
            for points in _ring(depth, level, left, radius):
                yield points, radius
                _cover(left, points, radius)
            # One pixel of overlap, since the soft edges of two neighbouring rings would leave a gap.
            level += max(2 * radius - 1, 1)
        _forget_spots(left)
        if not left.any() or radius <= SMALLEST_RADIUS_PX:
            return
        radius = max(radius / 2, SMALLEST_RADIUS_PX)


def _ring(depth: NDArray[np.float32], level: float, left: Mask, radius: float) -> list[Points]:
    """Cut the line at a depth of `level` into the runs from which the brush reaches what is left."""
    inner = (depth >= level).astype(np.uint8)
    lines, _ = cv2.findContours(inner, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    near = cv2.dilate(left.astype(np.uint8), _disc(radius)) > 0
    useful_runs: list[Points] = []
    for line in lines:
        points = line[:, 0, ::-1].astype(np.float64)  # OpenCV says (x, y)
        useful = near[points[:, 0].astype(int), points[:, 1].astype(int)]
        useful_runs += _runs(points, useful)
    return useful_runs


def _runs(points: Points, useful: NDArray[np.bool_]) -> list[Points]:
    """Cut a closed line into its useful runs; a line that is useful all around is closed."""
    if useful.all():
        return [np.concatenate([points, points[:1]])]
    if not useful.any():
        return []
    # Begin where nothing is to do, so that no run goes over the end of the array.
    first = int(np.flatnonzero(~useful)[0])
    points, useful = np.roll(points, -first, 0), np.roll(useful, -first)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], useful.astype(np.int8), [0]])))
    return [points[start:stop] for start, stop in edges.reshape(-1, 2)]


def _cover(left: Mask, points: Points, radius: float) -> None:
    """Take away what a stroke covers."""
    rows, columns = _reach(points, radius, left.shape)
    window = left[rows, columns]
    alpha = np.zeros(window.shape, np.uint8)
    _draw_onto(alpha, points - np.array([rows.start, columns.start]), radius)
    window &= alpha < PAINTED_ALPHA


def _reach(points: Points, radius: float, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of the image that a stroke may touch."""
    first = np.maximum(np.floor(points.min(0) - radius - 1), 0).astype(int)
    last = np.minimum(np.ceil(points.max(0) + radius + 2), shape).astype(int)
    return slice(int(first[0]), int(last[0])), slice(int(first[1]), int(last[1]))


def _draw_onto(alpha: NDArray[np.uint8], points: Points, radius: float) -> None:
    """Alpha falls from 255 to 0 over one pixel, and is half at `radius` from the path."""
    away = np.ones(alpha.shape, np.uint8)
    path = np.round(points[:, ::-1]).astype(np.int32)[:, None]  # OpenCV wants (x, y)
    cv2.polylines(away, [path], False, 0, 1)
    distance = distance_inside(away)
    np.maximum(alpha, (255 * np.clip(radius - distance + 0.5, 0, 1)).astype(np.uint8), out=alpha)


def _forget_spots(left: Mask) -> None:
    _, labels, stats, _ = cv2.connectedComponentsWithStats(left.astype(np.uint8), connectivity=8)
    small = stats[:, cv2.CC_STAT_AREA] < TOLERATED_SPOT_PX
    small[0] = False
    left[small[labels]] = False


def _depth(area: Mask, margins: tuple[int, int, int, int]) -> NDArray[np.float32]:
    """Distance in px to the nearest pixel outside; `margins` say how far the area may go on beyond a side."""
    top, bottom, left, right = margins
    padded = cv2.copyMakeBorder(area.astype(np.uint8), top, bottom, left, right, cv2.BORDER_REPLICATE)
    padded = np.pad(padded, 1)
    depth = distance_inside(padded)
    height, width = area.shape
    return np.asarray(depth[1 + top : 1 + top + height, 1 + left : 1 + left + width])


def _margins(box: Box, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Sides of the box that lie on the edge of the image: the brush may go over it."""
    over = int(2 * LARGEST_RADIUS_PX)
    at_edge = (
        box.top == 0,
        box.top + box.height == shape[0],
        box.left == 0,
        box.left + box.width == shape[1],
    )
    top, bottom, left, right = (over if edge else 0 for edge in at_edge)
    return top, bottom, left, right


def _box_around(left: Mask, area: Mask) -> Box | None:
    """The rectangle around what is wanted, with as much of the area around it as a brush can reach."""
    rows, columns = np.flatnonzero(left.any(axis=1)), np.flatnonzero(left.any(axis=0))
    if rows.size == 0:
        return None
    reach = int(2 * LARGEST_RADIUS_PX)
    top, away = max(0, int(rows[0]) - reach), min(area.shape[0], int(rows[-1]) + 1 + reach)
    first, last = max(0, int(columns[0]) - reach), min(area.shape[1], int(columns[-1]) + 1 + reach)
    return Box(top, first, away - top, last - first)


def _disc(radius: float) -> NDArray[np.uint8]:
    side = 2 * int(np.ceil(radius)) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
