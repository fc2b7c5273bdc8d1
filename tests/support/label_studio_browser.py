"""What an annotator does in Label Studio's editor, with mouse and keyboard.

Rows and columns are those of the image. Looking is done through the editor's own store and list of
regions; acting is done by clicks, keys and mouse moves alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]
WINDOW = {"width": 1440, "height": 900}
TIMEOUT_MS = 240_000

BRUSH_DIAMETERS_PX = range(10, 51, 5)
"""Diameters on the screen that the keys [ and ] step through; where the editor starts differs."""

READ_IMAGE = """() => {
    const image = Htx.annotationStore.selected.names.get('image')
    return {ready: image.imageIsLoaded, height: image.naturalHeight, width: image.naturalWidth,
            stageHeight: image.stageHeight, stageWidth: image.stageWidth}
}"""

READ_REGIONS = """() => Htx.annotationStore.selected.regions.map(region => ({
    id: region.cleanId, type: region.type, label: region.labels[0], origin: region.origin,
    selected: region.inSelection}))"""

READ_CHOSEN_HOTKEY = """() => {
    const chosen = Htx.annotationStore.selected.names.get('brush').selectedLabels
    return chosen.length ? chosen[0].hotkey : null
}"""

READ_DIAMETER = """() => {
    const tools = Htx.annotationStore.selected.names.get('image').getToolsManager().allTools()
    return tools.find(tool => tool.selected).strokeWidth
}"""


READ_SMART = """() => ({
    on: Htx.autoAnnotation, accepts: Htx.autoAcceptSuggestions, waits: Htx.awaitingSuggestions,
    suggested: [...Htx.annotationStore.selected.suggestions.values()].length})"""


@contextmanager
def open_browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass(frozen=True)
class ShownRegion:
    """A region as the editor has it."""

    id: str
    type: str
    label: str
    origin: str
    selected: bool


class Annotator:
    """A person in front of Label Studio."""

    def __init__(self, browser: Browser, url: str) -> None:
        self.url = url
        self.page: Page = browser.new_page(viewport=WINDOW)
        self.page.set_default_timeout(TIMEOUT_MS)
        self.script_errors: list[str] = []
        self.page.on("pageerror", lambda error: self.script_errors.append(str(error)))

    def log_in(self, email: str, password: str) -> None:
        self.page.goto(f"{self.url}/user/login/")
        self.page.fill("input[name=email]", email)
        self.page.fill("input[name=password]", password)
        self.page.click("button[type=submit]")
        self.page.wait_for_url(lambda address: "/user/login" not in address)

    def open_task(self, project_id: int, task_id: int) -> None:
        """Open a task from the Data Manager and wait until picture and predictions are there."""
        self.page.goto(f"{self.url}/projects/{project_id}/data?task={task_id}")
        self.page.wait_for_load_state("networkidle")  # Label Studio asks the backend meanwhile
        self.page.wait_for_selector(".lsf-label")
        self.page.wait_for_function(f"() => ({READ_IMAGE})().ready")
        self.page.wait_for_timeout(1000)  # the editor draws predictions after the picture, without a sign

    # What is on the screen.

    def regions(self) -> list[ShownRegion]:
        return [ShownRegion(**region) for region in self.page.evaluate(READ_REGIONS)]

    def listed_regions(self) -> list[str]:
        """The rows of the region list as a person reads them: `Nucleus 0.83`."""
        rows = self.page.locator(".lsf-outliner-item").all_inner_texts()
        return [" ".join(row.split("\n")[1:]) for row in rows]

    def chosen_hotkey(self) -> str | None:
        """Key of the label that the next stroke gets."""
        found: str | None = self.page.evaluate(READ_CHOSEN_HOTKEY)
        return found

    def save_picture(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=path)

    def save_page(self, url: str, path: Path, credentials: tuple[str, str]) -> None:
        """Open another address beside the task, and keep a picture of it."""
        user, password = credentials
        browser = self.page.context.browser
        assert browser is not None
        page = browser.new_page(viewport=WINDOW, http_credentials={"username": user, "password": password})
        try:
            page.goto(url)
            page.wait_for_load_state("load")
            path.parent.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=path)
        finally:
            page.close()

    # What a hand does.

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)
        self.page.wait_for_timeout(150)

    def choose_brush(self, hotkey: str, diameter_px: float) -> float:
        """Take the label of a hotkey, with a brush of about that diameter in image pixels.

        Returns the diameter in image pixels that the brush really has.
        """
        self.press("Escape")
        if self.chosen_hotkey() != hotkey:  # the key of a chosen label would let go of it
            self.press(hotkey)
        assert self.chosen_hotkey() == hotkey
        return self.resize_brush(diameter_px)

    def resize_brush(self, diameter_px: float) -> float:
        """Make the tool at hand as thick as wanted, as near as its steps allow."""
        scale = self._scale()
        wanted = min(BRUSH_DIAMETERS_PX, key=lambda size: abs(size - diameter_px * scale))
        for _ in range(len(BRUSH_DIAMETERS_PX) + 1):
            now = self.page.evaluate(READ_DIAMETER)
            if now == wanted:
                break
            self.press("]" if now < wanted else "[")
        return float(self.page.evaluate(READ_DIAMETER)) / scale

    def stroke(self, path: Sequence[tuple[float, float]]) -> None:
        """Press the mouse button on the first point, pass the others, let go on the last."""
        self.page.mouse.move(*self._on_screen(*path[0]))
        self.page.mouse.down()
        for point in path[1:] or path:
            self.page.mouse.move(*self._on_screen(*point), steps=4)
        self.page.mouse.up()
        self.page.wait_for_timeout(250)

    def select_region(self, region_id: str) -> None:
        """Click the region's row in the list."""
        self.press("Escape")
        ids = [region.id for region in self.regions()]
        self.page.locator(".lsf-outliner-item").nth(ids.index(region_id)).click()
        self.page.wait_for_timeout(300)
        assert [region.id for region in self.regions() if region.selected] == [region_id]

    def submit(self) -> dict[str, Any]:
        """Press Submit; returns the annotation as Label Studio stored it."""
        self.press("Escape")
        with self.page.expect_response(
            lambda answer: "/annotations" in answer.url and answer.request.method == "POST"
        ) as stored:
            self.page.get_by_test_id("bottombar-submit-button").click()
        assert stored.value.status == 201, stored.value.text()
        return dict(stored.value.json())

    # Smart tools: Label Studio asks the backend.

    def take_smart_tool(self) -> None:
        """Switch Auto-Annotation on, which the browser remembers, and take the smart key point."""
        self._take(".lsf-tool_smart")

    def take_smart_rectangle(self) -> None:
        """The same for a smart rectangle: of the tools in the page the last one that is seen."""
        self._take(".lsf-tool_smart:visible")

    def _take(self, tools: str) -> None:
        if not self.page.evaluate(READ_SMART)["on"]:
            self.page.get_by_text("Auto-Annotation").click()
        self.page.locator(tools).last.click()
        assert self.page.evaluate(READ_SMART)["on"]

    def accept_by_itself(self) -> None:
        """Have every further answer accepted as it comes."""
        if not self.page.evaluate(READ_SMART)["accepts"]:
            self.page.get_by_text("Auto-Accept Suggestions").click()
        self.page.locator(".lsf-tool_smart").last.click()  # keys go to the page again

    def ask(self, hotkey: str, row: float, column: float, held: str | None = None) -> dict[str, Any]:
        """Take a label of the smart tool and click; returns what the page sent, once the answer is shown.

        `held` is a key that is held meanwhile: Alt says "not here", Control clicks through regions.
        """
        self.press(hotkey)
        if held is not None:
            self.page.keyboard.down(held)
        with self.page.expect_request_finished(
            lambda request: request.url.endswith("/interactive-annotating")
        ) as asked:
            self.page.mouse.click(*self._on_screen(row, column))
        if held is not None:
            self.page.keyboard.up(held)
        self.page.wait_for_function(f"() => !({READ_SMART})().waits")
        return dict(asked.value.post_data_json)

    def ask_box(
        self, hotkey: str, corner: tuple[float, float], opposite: tuple[float, float]
    ) -> dict[str, Any]:
        """Take a label of a smart rectangle and draw it; returns what the page sent, once answered."""
        self.press(hotkey)
        with self.page.expect_request_finished(
            lambda request: request.url.endswith("/interactive-annotating")
        ) as asked:
            self.stroke([corner, opposite])
        self.page.wait_for_function(f"() => !({READ_SMART})().waits")
        return dict(asked.value.post_data_json)

    def suggested(self) -> int:
        """Answers that wait to be accepted."""
        found: int = self.page.evaluate(READ_SMART)["suggested"]
        return found

    def accept(self) -> None:
        """Press the tick below the image."""
        self.page.get_by_test_id("bottombar-accept-suggestions-button").click()
        self.page.wait_for_function(f"() => !({READ_SMART})().suggested")

    def _scale(self) -> float:
        """Screen pixels per image pixel."""
        image = self.page.evaluate(READ_IMAGE)
        return float(image["stageWidth"]) / float(image["width"])

    def _on_screen(self, row: float, column: float) -> tuple[float, float]:
        box = self.page.locator(".konvajs-content").bounding_box()
        assert box is not None
        scale = self._scale()
        return box["x"] + column * scale, box["y"] + row * scale
