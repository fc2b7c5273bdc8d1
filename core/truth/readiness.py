"""Is there enough truth to train on, and what would the annotator better do otherwise."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from core.objects.measure import count_objects, label_objects
from core.painting import Finding, Painting
from core.schema import LabelSchema, Role
from core.tiles import cut_tiles
from core.truth.holdout import count_pixels
from core.truth.label_map import PartialLabelMap
from core.truth.thin_strokes import lint_thin_strokes

ADVISED_OBJECTS = 50
"""So many objects per class are advised before a first real training; nothing waits for them."""

MIN_CLASSES = 2
"""A model that knows one class has nothing to tell apart."""

MAX_CLASS_RATIO = 100
"""A class this many times larger than another drowns it."""

BACKGROUND_NEAR_PX = 12
"""Background within this distance shows where an object ends; soft edges take some pixels of it."""

TILE_PX = 2048
"""Large maps are read in parts, so that memory stays near that of the maps themselves."""

LINT_CODES = {
    "overlapping-classes": "Two different object classes on one pixel; the pixel is not used.",
    "objects-without-gap": "Objects of one class touch; a line of Background was carved between them.",
    "original-gone": "A changed prediction whose original is not known any more; it is not used.",
    "untouched-prediction": "A prediction that nobody touched; it teaches nothing by itself.",
    "unchanged-prediction": "A changed prediction with nothing added or taken away that could be learnt.",
    "empty-region": "A region in which nothing is painted.",
    "faint-mask": "A region without a pixel that is painted strongly enough; it is not used.",
    "covered-region": "A region that others cover wholly.",
    "nothing-reviewed": "A Reviewed area with nothing in it, in a project without Background.",
    "unchecked-copy": "An annotation made from a prediction that cannot be compared with it.",
    "label-studio-unreachable": "Label Studio could not be asked whether regions are a model's own.",
    "newer-annotation": "A newer annotation of the same person says something else of some pixels.",
    "background-over-prediction": "Background painted over an object that the model drew.",
    "no-background-near": "An object has no Background near it, so its border teaches nothing.",
    "class-imbalance": f"A class has more than {MAX_CLASS_RATIO} times the pixels of another.",
    "net-like": "A class looks like a net: its pixels count, not its objects.",
    "scribble": "A long thin stroke in an object class: right for a crack; paint other objects whole.",
    "annotators-disagree": "People gave a pixel different classes; it is not used until most agree.",
    "image-unreadable": "The image cannot be read, so nothing on it can be used.",
    "unlabelled-region": "A region without a label, as the magic wand makes them; it is not used.",
    "unknown-label": "A region with a label that the project does not have; it is not used.",
    "size-mismatch": "A region that was painted on an image of another size; it is not used.",
    "rotated-region": "A region that was painted on a rotated image; its place is not certain.",
    "several-labels": "A region with more than one label; a pixel has one class.",
    "unknown-origin": "A region that says neither that a person nor that the model made it.",
    "strange-control": "Made with a control that the labeling setup does not have, or that is no brush.",
    "strange-target": "Painted on something else than the image that is learnt from.",
    "not-painted": "A rectangle, polygon or other shape; only brush regions teach.",
    "question-by-hand": "An Uncertain rectangle that a person drew; it is the model's question.",
    "unreadable-size": "A region whose size or rotation is no number; it is not used.",
    "broken-region": "A region that cannot be understood; it is not used.",
    "broken-bitmask": "A bitmask that is no PNG; it is not used.",
    "open-outline": "A polygon or vector that is not closed; it is not used.",
    "other-frame": "A region on a further page of the task; it is not used.",
    "broken-rle": "A region whose mask cannot be decoded; it is not used.",
    "rotated-rectangle": "A Reviewed rectangle that is turned; it is not used.",
    "empty-rectangle": "A Reviewed rectangle without a pixel inside the image.",
}
"""Everything that can be said about an annotation. Codes are stable; the messages carry the numbers."""


@dataclass(frozen=True)
class ClassCount:
    """How far one class is. `needed_pixels` is 0 where nothing is required, as for Background."""

    name: str
    role: Role
    pixels: int
    objects: int
    needed_pixels: int
    advised_objects: int = ADVISED_OBJECTS


@dataclass(frozen=True)
class Readiness:
    """Whether a project can train by itself; `missing` says in a sentence what it waits for, or is empty."""

    ready: bool
    classes: tuple[ClassCount, ...]
    lint: tuple[Finding, ...]
    missing: str


def count_truth(label_map: NDArray[np.uint8], schema: LabelSchema) -> tuple[tuple[int, int], ...]:
    """Count what one label map holds: `(pixels, objects)` per class; objects are 8-connected components.

    Examples
    --------
    >>> import numpy as np
    >>> count_truth(np.array([[1, 0, 1, 255]], np.uint8), LabelSchema.of("Background", "A"))
    ((1, 0), (2, 2))
    """
    return tuple(zip(count_pixels(label_map, schema), count_objects(label_map, schema), strict=True))


def assess(
    counts: Sequence[tuple[int, int]],
    schema: LabelSchema,
    min_pixels: int,
    lint: Sequence[Finding] = (),
    nets: Collection[str] = (),
) -> Readiness:
    """Say whether there is enough truth to train on.

    Every object class that somebody painted needs `min_pixels`, and two classes need pixels at all.
    Background, and classes that nobody has painted yet, are not required.

    Parameters
    ----------
    counts : (pixels, objects) per class of the schema
        Of the whole project: the sum of what `count_truth` gives for its images.
    min_pixels : int
        Per object class.
    lint : findings of the images
        Passed on; what concerns the whole project is added.

    nets : names of classes
        They look like nets: how many pieces a net has says nothing, so no number of objects is advised.

    Raises
    ------
    ValueError
        There is not one count per class.

    Examples
    --------
    >>> readiness = assess([(100, 0), (4000, 9)], LabelSchema.of("Background", "Nucleus"), 5000)
    >>> readiness.ready, readiness.missing
    (False, 'Nucleus needs 1000 more pixels (4000 of 5000), about 3 objects as large as those painted.')
    """
    if len(counts) != len(schema):
        raise ValueError(f"{len(schema)} classes need as many counts, got {len(counts)}")
    classes = tuple(
        ClassCount(
            c.name,
            c.role,
            pixels,
            objects,
            needed_pixels=0 if c.role == "background" else min_pixels,
            advised_objects=0 if c.name in nets else ADVISED_OBJECTS,
        )
        for c, (pixels, objects) in zip(schema.classes, counts, strict=True)
    )
    missing = " ".join(_missing(classes, schema))
    return Readiness(not missing, classes, (*lint, *_imbalance(classes)), missing)


def lint_painting(painting: Painting, partial: PartialLabelMap, schema: LabelSchema) -> tuple[Finding, ...]:
    """Collect everything there is to say about one annotation.

    Remarks from reading it, then from putting its regions together, then on how it was painted. What the
    annotations of an image lack together is in `lint_label_map`.

    Parameters
    ----------
    painting : Painting
    partial : PartialLabelMap
        What `core.truth.label_map.build_label_map` made of it.

    Returns
    -------
    tuple of Finding
        With codes of `LINT_CODES`.
    """
    return (
        *painting.findings,
        *partial.findings,
        *lint_thin_strokes(painting, schema),
    )


def lint_label_map(label_map: NDArray[np.uint8], schema: LabelSchema) -> tuple[Finding, ...]:
    """Say what the annotations of one image lack together: `(H, W)` uint8 of what all of them give."""
    return tuple(_no_background_near(label_map, schema))


def _missing(classes: Sequence[ClassCount], schema: LabelSchema) -> Iterator[str]:
    painted = [c for c in classes if c.pixels]
    if not painted:
        yield "Nothing is painted yet."
    elif len(painted) < MIN_CLASSES:
        yield _second_class(painted[0], schema, [c.name for c in classes if not c.pixels])
    for c in painted:
        if c.pixels < c.needed_pixels:
            lacking = c.needed_pixels - c.pixels
            yield (
                f"{c.name} needs {lacking} more pixels ({c.pixels} of {c.needed_pixels})"
                f"{_in_objects(lacking, c)}."
            )


def _second_class(painted: ClassCount, schema: LabelSchema, others: Sequence[str]) -> str:
    ground = schema.background_index
    if painted.role == "object" and ground is not None and not schema.classes[ground].is_painted:
        return (
            f"Only {painted.name} is painted, and there is no label for what is not {painted.name}: draw a "
            f"Reviewed rectangle where every {painted.name} is painted, and the rest of it counts as "
            f"{schema.names[ground]}."
        )
    return f"Only {painted.name} is painted: paint some {' or '.join(others)} too."


def _in_objects(lacking_px: int, count: ClassCount) -> str:
    """Pixels are hard to imagine; objects of the size painted so far are not."""
    if not count.advised_objects or not count.objects or count.pixels < count.objects:
        return ""
    n_objects = -(-lacking_px * count.objects // count.pixels)
    return f", about {n_objects} {'object' if n_objects == 1 else 'objects'} as large as those painted"


def _imbalance(classes: Sequence[ClassCount]) -> Iterator[Finding]:
    painted = [c for c in classes if c.pixels]
    if not painted:
        return
    # Compared with the rarest class, because that is the one to paint.
    smallest = min(painted, key=lambda c: c.pixels)
    for c in painted:
        if c.pixels > MAX_CLASS_RATIO * smallest.pixels:
            ratio = c.pixels // smallest.pixels
            message = f"{c.name} has {ratio} times the pixels of {smallest.name}: paint more {smallest.name}."
            yield Finding("class-imbalance", message)


def _no_background_near(label_map: NDArray[np.uint8], schema: LabelSchema) -> Iterator[Finding]:
    if schema.background_index is None:
        return
    instances = label_objects(label_map, schema)
    n_objects = int(instances.max(initial=0))
    if n_objects == 0:
        return
    no_background = (label_map != schema.background_index).astype(np.uint8)
    if no_background.all():
        n_alone = n_objects
    else:
        is_near = np.zeros(n_objects + 1, bool)
        # The margin exceeds the distance in question: a tile measures it as the whole map would.
        for tile in cut_tiles(no_background.shape, BACKGROUND_NEAR_PX + 1, 1, TILE_PX):
            distance = cv2.distanceTransform(no_background[tile.read], cv2.DIST_L2, cv2.DIST_MASK_3)
            is_near[instances[tile.core][distance[tile.core_in_read] <= BACKGROUND_NEAR_PX]] = True
        n_alone = n_objects - int(np.count_nonzero(is_near[1:]))
    if n_alone:
        ground = schema.classes[schema.background_index]
        mend = "paint some around them" if ground.is_painted else "draw a Reviewed rectangle around them"
        message = f"{n_alone} of {n_objects} objects have no Background near them: {mend}."
        yield Finding("no-background-near", message)
