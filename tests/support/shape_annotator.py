"""A person who draws shapes of other tags than the brush in Label Studio's editor, and sees its canvases."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from label_studio_browser import Annotator
from numpy.typing import NDArray
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

READ_CANVASES = """([height, width]) => [...document.querySelectorAll('.konvajs-content canvas')].map(one => {
    const data = one.getContext('2d').getImageData(0, 0, width, height).data
    return Array.from({length: width * height}, (_, index) => data[4 * index + 3])})"""

READ_TURNER = """() => Konva.stages.flatMap(stage => stage.find('.rotater'))
    .filter(handle => handle.isVisible()).map(handle => handle.getAbsolutePosition()).pop()"""

IS_CLOSED = """before => Htx.annotationStore.selected.regions[before]?.closed"""

CLOSING_MS = 15_000

HIDE_HANDLES = """() => Konva.stages.forEach(stage => {
    stage.find('Circle').forEach(handle => handle.visible(false))
    stage.draw()})"""


class ShapeAnnotator(Annotator):
    """Points are rows and columns of the image."""

    def outline(self, hotkey: str, points: Sequence[tuple[float, float]]) -> None:
        """Click the points of a polygon, and then the first one again until that closes it."""
        self.press("Escape")
        self.press(hotkey)
        n_before = len(self.regions())
        for point in points:
            self._click(point)
        for _ in range(5):
            self._click(points[0])
            try:
                self.page.wait_for_function(IS_CLOSED, arg=n_before, timeout=CLOSING_MS)
            except PlaywrightTimeoutError:
                continue  # a click soon after the last one may be lost
            return
        raise AssertionError("the outline stays open")

    def _click(self, point: tuple[float, float]) -> None:
        """Click as slowly as a hand."""
        self.page.mouse.move(*self._on_screen(*point), steps=3)
        self.page.wait_for_timeout(150)
        self.page.mouse.down()
        self.page.wait_for_timeout(120)
        self.page.mouse.up()
        self.page.wait_for_timeout(400)

    def drag(self, hotkey: str, path: Sequence[tuple[float, float]]) -> None:
        """Draw with the tool of a label from the first point to the last."""
        self.press("Escape")
        self.press(hotkey)
        self.stroke(path)

    def turn_last(self, towards: tuple[float, float]) -> None:
        """Turn the region that was drawn last by its handle."""
        self.page.locator(".lsf-outliner-item").last.click()
        self.page.wait_for_function(f"() => ({READ_TURNER})()")
        handle = self.page.evaluate(READ_TURNER)
        self.stroke([(handle["y"], handle["x"]), towards])

    def painted_pixels(self, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """What the editor's canvases show of regions, for a picture at its own size: half as opaque as their
        most opaque pixel, or more. The canvas that holds the picture is left out, and so are handles."""
        self.page.evaluate(HIDE_HANDLES)
        assert self._scale() == 1
        layers = np.array(self.page.evaluate(READ_CANVASES, list(shape)), np.uint8).reshape(-1, *shape)
        regions = [layer for layer in layers if layer.any() and not layer.all()]
        return np.logical_or.reduce([layer >= layer.max() / 2 for layer in regions])
