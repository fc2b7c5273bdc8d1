"""Each region of any annotation teaches or has one finding: against a reference that knows no arrays.

The image is a grid of cells, far enough apart that no two objects touch, each of two halves. Regions fill a
cell or a half of one, so that the rules of partial annotation can be told half by half, with sets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from core.rle import encode
from core.schema import IGNORE_INDEX
from core.truth.label_map import build_label_map
from core.truth.readiness import LINT_CODES
from ml_backend.label_studio.label_config import LabelConfig, parse_label_config
from ml_backend.label_studio.paintings import parse_painting
from ml_backend.label_studio.payloads import parse_task
from ml_backend.ports import SentRegion
from ml_backend.strokes.combining import combine_paintings, to_sent_masks

N_CELLS, CELL_PX, GAP_PX = 3, 4, 3
SIDE_PX = N_CELLS * (CELL_PX + GAP_PX)
HALF_PX = CELL_PX * CELL_PX // 2
GAPS_PX = SIDE_PX**2 - N_CELLS**2 * CELL_PX**2

Half = tuple[int, int]
"""A cell and one of its two halves."""

CELLS = range(N_CELLS**2)
LEFT, RIGHT, FULL = (0,), (1,), (0, 1)


def make_config(background: bool) -> LabelConfig:
    first = "Background" if background else "Ferrite"
    return parse_label_config(
        f"""<View><Image name="image" value="$image"/><Text name="text" value="$text"/>
        <BrushLabels name="brush" toName="image">
          <Label value="{first}"/><Label value="Nucleus" alias="N"/><Label value="Mitosis"/>
        </BrushLabels>
        <MagicWand name="wand" toName="image"/>
        <RectangleLabels name="ask" toName="image">
          <Label value="Uncertain"/><Label value="Reviewed" alias="ok"/>
        </RectangleLabels>
        <PolygonLabels name="poly" toName="image"><Label value="Nucleus"/></PolygonLabels>
        <Choices name="review" toName="image"><Choice value="Whole image reviewed"/></Choices>
        <Choices name="quality" toName="image" perRegion="true"><Choice value="blurry"/></Choices>
        <TextArea name="note" toName="image" perRegion="true"/>
        </View>"""
    )


CONFIGS = {background: make_config(background) for background in (True, False)}


@dataclass(frozen=True)
class Spec:
    """What a region is meant to be; the reference reads this and never the JSON that is made of it."""

    kind: str
    cell: int = 0
    label: int = 1  # index of the class
    before: tuple[int, ...] = FULL  # halves of the cell that the model had sent
    after: tuple[int, ...] = FULL  # halves that are there now


# What regions look like in JSON.


def mask_of(halves: Iterable[Half]) -> NDArray[np.bool_]:
    mask = np.zeros((SIDE_PX, SIDE_PX), bool)
    for cell, half in halves:
        top, left = (CELL_PX + GAP_PX) * np.array(divmod(cell, N_CELLS))
        left += half * CELL_PX // 2
        mask[top : top + CELL_PX, left : left + CELL_PX // 2] = True
    return mask


def halves_of(cell: int, halves: Iterable[int]) -> set[Half]:
    return {(cell, half) for half in halves}


def brush(spec: Spec, name: str, index: int, alpha: int = 255) -> dict[str, Any]:
    mask = mask_of(halves_of(spec.cell, spec.after)).astype(np.uint8) * np.uint8(alpha)
    return {
        "id": f"r{index}",
        "type": "brushlabels",
        "from_name": "brush",
        "to_name": "image",
        "original_width": SIDE_PX,
        "original_height": SIDE_PX,
        "image_rotation": 0,
        "origin": "manual",
        "value": {"format": "rle", "rle": encode(mask), "brushlabels": [name]},
    }


def rectangle(spec: Spec, label: str, index: int, **value: Any) -> dict[str, Any]:
    top, left = (CELL_PX + GAP_PX) * np.array(divmod(spec.cell, N_CELLS))
    size = 100 * CELL_PX / SIDE_PX
    box = {"x": 100 * float(left) / SIDE_PX, "y": 100 * float(top) / SIDE_PX, "width": size, "height": size}
    return {
        "id": f"r{index}",
        "type": "rectanglelabels",
        "from_name": "ask",
        "to_name": "image",
        "origin": "prediction",
        "value": {**box, "rotation": 0, "rectanglelabels": [label], **value},
    }


def value_with(region: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    return {**region, "value": {**region["value"], **changes}}


def without(region: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in region.items() if key not in keys}


PAINTED: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "plain": lambda r: r,
    "no origin": lambda r: without(r, "origin"),
    "no sizes": lambda r: without(r, "original_width", "original_height", "image_rotation"),
    "null sizes": lambda r: {**r, "original_width": None, "original_height": None, "image_rotation": None},
    "textual sizes": lambda r: {**r, "original_width": str(SIDE_PX), "image_rotation": "0"},
    "no target": lambda r: without(r, "to_name"),
    "no type": lambda r: without(r, "type"),
    "no format": lambda r: {**r, "value": without(r["value"], "format")},
}
"""Ways to write a region that a person painted and that counts."""

MALFORMED: Mapping[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
    "no mapping": ("broken-region", lambda r: "a region"),
    "odd value": ("broken-region", lambda r: {**r, "value": 3}),
    "odd labels": ("broken-region", lambda r: value_with(r, brushlabels="Nucleus")),
    "no label": ("unlabelled-region", lambda r: value_with(r, brushlabels=None)),
    "strange label": ("unknown-label", lambda r: value_with(r, brushlabels=["Cell"])),
    "two labels": ("several-labels", lambda r: value_with(r, brushlabels=["Mitosis", "N"])),
    "other size": ("size-mismatch", lambda r: {**r, "original_width": SIDE_PX + 1}),
    "other textual size": ("size-mismatch", lambda r: {**r, "original_width": "9"}),
    "size in words": ("unreadable-size", lambda r: {**r, "original_height": "tall"}),
    "size of nothing": ("unreadable-size", lambda r: {**r, "original_height": float("nan")}),
    "turned": ("rotated-region", lambda r: {**r, "image_rotation": 90}),
    "no stream": ("broken-rle", lambda r: value_with(r, rle=None)),
    "other stream": ("broken-rle", lambda r: value_with(r, rle=[1, 2, 3])),
    "short stream": ("broken-rle", lambda r: value_with(r, rle=encode(np.ones((2, 2), bool)))),
    "odd origin": ("unknown-origin", lambda r: {**r, "origin": "elsewhere"}),
    "strange control": ("strange-control", lambda r: {**r, "from_name": "tag"}),
    "no control": ("strange-control", lambda r: without(r, "from_name")),
    "other control": ("strange-control", lambda r: {**r, "from_name": "quality"}),
    "strange target": ("strange-target", lambda r: {**r, "to_name": "img"}),
    "text as target": ("strange-target", lambda r: {**r, "to_name": "text"}),
    "wand": (
        "unlabelled-region",
        lambda r: {
            **r,
            "type": "magicwand",
            "from_name": "wand",
            "value": without(r["value"], "brushlabels"),
        },
    ),
    "polygon": (
        "open-outline",
        lambda r: {
            **r,
            "type": "polygonlabels",
            "from_name": "poly",
            "value": {"points": [[1, 1], [9, 1]], "polygonlabels": ["Nucleus"]},
        },
    ),
}
"""Ways to write a region that cannot count, and the code that has to be said of it."""

BOXES: Mapping[str, tuple[str | None, Callable[[dict[str, Any]], Any]]] = {
    "question": (None, lambda r: value_with(r, rectanglelabels=["Uncertain"])),
    "question by hand": (
        "question-by-hand",
        lambda r: {**value_with(r, rectanglelabels=["Uncertain"]), "origin": "manual"},
    ),
    "box of no class": ("not-painted", lambda r: value_with(r, rectanglelabels=["Cell"])),
    "box of nothing": ("unlabelled-region", lambda r: value_with(r, rectanglelabels=[])),
    "turned box": ("rotated-rectangle", lambda r: value_with(r, rotation=20)),
    "box outside": ("empty-rectangle", lambda r: value_with(r, x=120)),
    "box without place": ("broken-region", lambda r: value_with(r, x="left")),
    "box elsewhere": ("strange-target", lambda r: {**r, "to_name": "text"}),
}

ASIDE: Mapping[str, Callable[[int], Any]] = {
    "relation": lambda i: {"type": "relation", "from_id": "a", "to_id": "b"},
    "note": lambda i: {"id": f"r{i}", "from_name": "note", "to_name": "image", "type": "textarea",
                       "value": {"text": ["left"], "format": "rle", "rle": [0]}},
    "choice": lambda i: {"id": f"r{i}", "from_name": "quality", "to_name": "image", "type": "choices",
                         "value": {"choices": ["blurry"], "format": "rle", "rle": [0]}},
    "later": lambda i: {"from_name": "review", "to_name": "image", "type": "choices",
                        "value": {"choices": ["Later"]}},
}  # fmt: skip
"""What is no region; nothing is to be said of it."""

SUGGESTED = ("accepted", "foreign", "renamed", "changed", "gone")
FAINT = ("faint 1", "faint 100", "faint 127", "empty")
KINDS = (*PAINTED, *FAINT, *SUGGESTED, *MALFORMED, *BOXES, *ASIDE, "reviewed", "reviewed all")


def to_json(spec: Spec, index: int, config: LabelConfig) -> Any:
    name = config.schema.names[spec.label]
    region = brush(spec, name, index, alpha=int(spec.kind[6:]) if spec.kind.startswith("faint") else 255)
    if spec.kind in PAINTED:
        return PAINTED[spec.kind](region)
    if spec.kind in MALFORMED:
        return MALFORMED[spec.kind][1](region)
    if spec.kind in BOXES:
        return BOXES[spec.kind][1](rectangle(spec, "Reviewed", index))
    if spec.kind in ASIDE:
        return ASIDE[spec.kind](index - 1)
    if spec.kind == "reviewed":
        return rectangle(spec, "Reviewed" if index % 2 else "ok", index)
    if spec.kind == "reviewed all":
        choice = {"choices": ["Whole image reviewed"]}
        return {"type": "choices", "from_name": "review", "to_name": "image", "value": choice}
    if spec.kind == "empty":
        return value_with(region, rle=encode(np.zeros((SIDE_PX, SIDE_PX), bool)))
    if spec.kind in SUGGESTED:
        origin = "prediction-changed" if spec.kind in ("changed", "gone") else "prediction"
        return {**region, "origin": origin}
    return region


def to_sent(specs: Sequence[Spec], config: LabelConfig) -> list[SentRegion]:
    sent = []
    for index, spec in enumerate(specs):
        if spec.kind in ("accepted", "renamed", "changed"):
            label = 3 - spec.label if spec.kind == "renamed" else spec.label
            mask = mask_of(halves_of(spec.cell, spec.before if spec.kind == "changed" else spec.after))
            sent.append(SentRegion(f"r{index}", config.schema.names[label], "r0001-aaaaaaaa", 0, 0, mask))
    return sent


# The reference: what each half of each cell teaches, by the rules alone.


@dataclass
class Said:
    """What one region says, half by half."""

    label: int
    taught: set[Half]
    shown: set[Half]
    erased: set[Half]
    unsure: set[Half]
    by_model: bool
    reason: str  # why it is silent where it offered nothing


def read(spec: Spec, copied: bool) -> Said | None:
    here = halves_of(spec.cell, spec.after)
    before = halves_of(spec.cell, spec.before)
    nothing: set[Half] = set()
    kind = spec.kind
    if kind in PAINTED and not copied:
        return Said(spec.label, here, here, nothing, nothing, False, "covered-region")
    if kind in PAINTED or kind in ("accepted", "foreign"):
        return Said(spec.label, nothing, here, nothing, nothing, True, "untouched-prediction")
    if kind in FAINT:
        soft = nothing if kind == "empty" else here
        if copied:
            return Said(spec.label, nothing, nothing, nothing, soft, True, "untouched-prediction")
        reason = "empty-region" if kind == "empty" else "faint-mask"
        return Said(spec.label, nothing, nothing, nothing, soft, False, reason)
    if kind == "renamed":
        return Said(spec.label, here, here, nothing, nothing, False, "covered-region")
    if kind == "gone":
        return Said(spec.label, nothing, here, nothing, here, False, "original-gone")
    if kind == "changed":
        added, erased = here - before, before - here
        return Said(spec.label, added, here, erased, here - added, False, "unchanged-prediction")
    return None


def judge(specs: Sequence[Spec], background: bool, copied: bool) -> tuple[dict[Half, int], int, Counter[str]]:
    """The class of each half, the pixels of the gaps that are Background, and what is to be said."""
    said = {i: s for i, spec in enumerate(specs) if (s := read(spec, copied)) is not None}
    for one in said.values():
        if background and one.label == 0:
            one.erased = set()  # Background that was taken away says nothing
    reviewed_all = any(spec.kind == "reviewed all" for spec in specs)
    boxes = [spec.cell for spec in specs if spec.kind == "reviewed"]
    ground = {half for s in said.values() if background and s.label == 0 for half in s.taught}
    halves = [(cell, half) for cell in CELLS for half in FULL]
    reviewed = {half for half in halves if reviewed_all or half[0] in boxes}
    truth: dict[Half, int] = {}
    for half in halves:
        label = label_of(half, list(said.values()), reviewed, ground, background)
        if label is not None:
            truth[half] = label
    codes: Counter[str] = Counter()
    for one in said.values():
        offered = one.taught | {
            half for half in one.shown & reviewed if not (one.by_model and half in ground)
        }
        teaches = any(truth.get(half) == one.label for half in offered)
        teaches |= background and any(truth.get(half) == 0 for half in one.erased)
        if not teaches:
            covered = bool(offered or one.erased) and one.reason != "original-gone"
            codes["covered-region" if covered else one.reason] += 1
    for spec in specs:
        if spec.kind in MALFORMED:
            codes[expected_code(spec)] += 1
        elif spec.kind in BOXES and BOXES[spec.kind][0] and not (copied and spec.kind == "question by hand"):
            codes[str(BOXES[spec.kind][0])] += 1  # a program's question, copied, is one of a model
        elif spec.kind.startswith("reviewed"):
            here = truth.keys() if spec.kind == "reviewed all" else truth.keys() & halves_of(spec.cell, FULL)
            if not here and not background:
                codes["nothing-reviewed"] += 1
    return truth, GAPS_PX if reviewed_all and background else 0, codes


def expected_code(spec: Spec) -> str:
    return MALFORMED[spec.kind][0]


def label_of(
    half: Half, said: Sequence[Said], reviewed: set[Half], ground: set[Half], background: bool
) -> int | None:
    objects = [s for s in said if not (background and s.label == 0)]
    painted = {s.label for s in objects if half in s.taught}
    if painted:
        return painted.pop() if len(painted) == 1 else None
    if half in reviewed:
        shown = {s.label for s in objects if half in s.shown and not (s.by_model and half in ground)}
        if shown:
            return shown.pop() if len(shown) == 1 else None
    if not background:
        return None
    unsure = any(half in s.unsure and (not s.by_model or half in reviewed) for s in objects)
    is_ground = half in reviewed or half in ground or any(half in s.erased for s in said)
    return 0 if is_ground and not unsure else None


def to_map(truth: Mapping[Half, int], gaps_px: int) -> NDArray[np.uint8]:
    label_map = np.full((SIDE_PX, SIDE_PX), 0 if gaps_px else IGNORE_INDEX, np.uint8)
    label_map[mask_of((cell, half) for cell in CELLS for half in FULL)] = IGNORE_INDEX
    for half, label in truth.items():
        label_map[mask_of([half])] = label
    return label_map


# The annotations.

ALONE = ("changed", "gone", *FAINT)
"""Kinds that have a cell of their own, so that no two parts of one cell meet."""


@st.composite
def annotations(draw: st.DrawFn) -> list[Spec]:
    kinds = draw(st.lists(st.sampled_from(KINDS), max_size=7))
    free = list(CELLS)
    specs = []
    for kind in kinds:
        if kind in ALONE:
            cell = free.pop()
        else:
            cell = draw(st.sampled_from(free[:4]))
            if cell in free[4:]:
                free.remove(cell)
        label = draw(st.sampled_from([0, 1, 2])) if kind != "renamed" else draw(st.sampled_from([1, 2]))
        parts = st.sampled_from([LEFT, RIGHT, FULL])
        before, after = (draw(parts), draw(parts)) if kind == "changed" else (FULL, FULL)
        if kind in ("changed", "gone") and label == 0:
            label = 1
        specs.append(Spec(kind, cell, label, before, after))
    return specs


REGION_CODES = {
    *(code for code, _ in MALFORMED.values()),
    *(code for code, _ in BOXES.values() if code),
    "empty-region", "faint-mask", "covered-region", "nothing-reviewed",
    "untouched-prediction", "unchanged-prediction", "original-gone",
}  # fmt: skip


def to_result(specs: Sequence[Spec], config: LabelConfig, copied: bool) -> Sequence[Any]:
    """The result as it is stored, on its way through the border."""
    row = {
        "id": 1,
        "completed_by": 1,
        "result": [to_json(spec, index, config) for index, spec in enumerate(specs)],
        "parent_prediction": 9 if copied else None,
        "lead_time": None if copied else 3.5,
    }
    (annotation,) = parse_task({"id": 1, "data": {}, "annotations": [row]}, 1).annotations
    return annotation.result


@given(annotations(), st.booleans(), st.booleans())
@example([Spec("plain", 0), Spec("faint 100", 8), Spec("note", 0), Spec("polygon", 1)], True, False)
@example([Spec("plain", 0)], True, True)
@example([Spec("reviewed", 0), Spec("accepted", 0), Spec("plain", 0, 0)], True, False)
@example([Spec("changed", 0, 1, FULL, LEFT)], False, False)
@settings(deadline=None, max_examples=200)
def test_each_region_teaches_or_has_one_finding(specs: list[Spec], background: bool, copied: bool) -> None:
    check(specs, background, copied)


@pytest.mark.thorough
@pytest.mark.timeout(1800)
@given(annotations(), st.booleans(), st.booleans())
@settings(deadline=None, max_examples=10_000, suppress_health_check=list(HealthCheck))
def test_each_of_ten_thousand_annotations_teaches_or_has_one_finding_for_each_region(
    specs: list[Spec], background: bool, copied: bool
) -> None:
    check(specs, background, copied)


def check(specs: Sequence[Spec], background: bool, copied: bool) -> None:
    config = CONFIGS[background]
    truth, gaps_px, codes = judge(specs, background, copied)
    painting = parse_painting(to_result(specs, config, copied), config, (SIDE_PX, SIDE_PX))
    sent = to_sent_masks(to_sent(specs, config), config.schema)
    partial = build_label_map(painting, config.schema, sent)
    assert partial.label_map.tolist() == to_map(truth, gaps_px).tolist()
    found = [finding.code for finding in (*painting.findings, *partial.findings)]
    assert Counter(code for code in found if code in REGION_CODES) == codes
    counts = Counter(truth.values())
    for index in range(len(config.schema)):
        gaps = gaps_px if index == 0 else 0
        assert np.count_nonzero(partial.label_map == index) == HALF_PX * counts[index] + gaps


@settings(deadline=None)
@given(st.lists(st.tuples(annotations(), st.sampled_from([None, 1, 2])), min_size=1, max_size=4))
def test_annotations_of_people_come_together_as_they_should(
    said: list[tuple[list[Spec], int | None]],
) -> None:
    said = [([spec for spec in specs if spec.kind in PAINTED], person) for specs, person in said]
    config = CONFIGS[True]
    of_person: dict[int | None, dict[Half, int]] = {}
    for specs, person in said:
        of_person.setdefault(person, {}).update(judge(specs, True, False)[0])
    expected: dict[Half, int] = {}
    for half in {half for truth in of_person.values() for half in truth}:
        labels = [truth[half] for truth in of_person.values() if half in truth]
        (label, n_people), *_ = Counter(labels).most_common(1)
        if 2 * n_people > len(labels):
            expected[half] = label
    paintings = [
        parse_painting(to_result(specs, config, False), config, (SIDE_PX, SIDE_PX)) for specs, _ in said
    ]
    label_map = combine_paintings(paintings, [], config.schema, [person for _, person in said]).label_map
    assert label_map.tolist() == to_map(expected, 0).tolist()


def test_every_code_is_explained() -> None:
    assert set(LINT_CODES) >= REGION_CODES


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("background", [True, False])
def test_every_kind_alone(kind: str, background: bool) -> None:
    for label in (1, 2):
        check([Spec(kind, 0, label)], background, copied=False)
