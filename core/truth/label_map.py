"""Brush regions of one submitted annotation to a partial label map: the rules of partial annotation.

In short: nobody painted it, it says nothing; Background gives way to every object that a person made or
touched up, and beats what the model drew; two different objects on one pixel say nothing; objects of one
class are kept one pixel apart. Which pixels of a region a person vouched for is read in `core.truth.claims`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from core.objects.keep_apart import PaintedObject, Separation, find_contacts
from core.painting import Box, Finding, Mask, Painting, shared_box
from core.schema import IGNORE_INDEX, LabelSchema
from core.truth.claims import Claim, SentMask, read_claim
from core.truth.silence import ReadRegion, find_silent

__all__ = ["PartialLabelMap", "SentMask", "build_label_map"]

_CONTRADICTION = 254
"""Marks a pixel that two object classes claim, while a map is built; no class has this index."""

_BACKGROUND, _UNSURE = np.uint8(1), np.uint8(2)
"""Flags of a pixel without an object: somebody says Background; a soft edge says: do not believe it."""


@dataclass(frozen=True)
class PartialLabelMap:
    """Truth of one annotation.

    Attributes
    ----------
    label_map : (H, W) uint8
        Class index, or `IGNORE_INDEX` where nothing is known.
    findings : remarks for the annotator about how the regions fit together
    contradicting_px : pixels that two object classes claim
    carved_px : pixels turned to Background between touching objects
    touching_objects : objects that had to give way to a neighbour of their class
    """

    label_map: NDArray[np.uint8]
    findings: tuple[Finding, ...] = ()
    contradicting_px: int = 0
    carved_px: int = 0
    touching_objects: int = 0


@dataclass(frozen=True)
class _Reviewed:
    """Where truth is what was shown; `ground` is where a person painted Background. None for nowhere."""

    area: Mask | None
    ground: Mask | None

    def truth_of(self, claim: Claim) -> Mask:
        """What a claim shows inside the area; a stroke of Background beats the model's untouched object."""
        if self.area is None:
            return np.zeros_like(claim.shown)
        shown = claim.shown & self.area[claim.box.slices]
        return shown & ~self.ground[claim.box.slices] if claim.by_model and self.ground is not None else shown


def build_label_map(
    painting: Painting, schema: LabelSchema, sent: Mapping[str, SentMask] | None = None
) -> PartialLabelMap:
    """Turn one person's annotation of one image into a partial label map.

    Parameters
    ----------
    painting : Painting
        Regions in the order of the annotation; never changed.
    schema : LabelSchema
        Without a background class nothing is treated as background and nothing is carved.
    sent : mapping of region id to SentMask
        What the model had drawn under these ids.

    Returns
    -------
    PartialLabelMap
        With the findings `overlapping-classes`, `objects-without-gap`, `background-over-prediction`, and one
        for each region that teaches nothing.

    Raises
    ------
    ValueError
        A region reaches outside the image, or names a class that the schema does not have.

    Examples
    --------
    >>> import numpy as np
    >>> from core.painting import BrushRegion
    >>> nucleus = BrushRegion("n", 1, "manual", 0, 1, np.array([[255, 60]], np.uint8))
    >>> ground = BrushRegion("b", 0, "manual", 0, 0, np.full((1, 4), 255, np.uint8))
    >>> painting = Painting((1, 5), (nucleus, ground))
    >>> build_label_map(painting, LabelSchema.of("Background", "Nucleus")).label_map.tolist()
    [[0, 1, 255, 0, 255]]
    """
    sent = sent or {}
    claims = [read_claim(r, schema, sent.get(r.region_id), painting.shape) for r in painting.regions]
    objects = [c for c in claims if schema.classes[c.class_index].role == "object"]
    reviewed = _Reviewed(_reviewed_area(painting), _painted_background(claims, painting.shape, schema))
    label_map = _object_classes(objects, reviewed, painting.shape)
    _fill_background(label_map, claims, reviewed, painting, schema)
    separation = _keep_apart(label_map, objects, reviewed, schema)
    contradicting = label_map == _CONTRADICTION
    label_map[contradicting] = IGNORE_INDEX
    partial = PartialLabelMap(
        label_map,
        contradicting_px=int(np.count_nonzero(contradicting)),
        carved_px=separation.carved_px,
        touching_objects=separation.touching_objects,
    )
    n_hidden = _background_over_model(label_map, objects, reviewed, schema)
    read = [
        ReadRegion(region, claim, claim.taught | reviewed.truth_of(claim))
        for region, claim in zip(painting.regions, claims, strict=True)
    ]
    silent = find_silent(read, painting, label_map, schema)
    return replace(partial, findings=(*_findings(partial, n_hidden), *silent))


def _reviewed_area(painting: Painting) -> Mask | None:
    """Return `(H, W)` bool of the reviewed boxes, cut to the image; None without any."""
    if not painting.reviewed:
        return None
    area = np.zeros(painting.shape, bool)
    image = Box(0, 0, *painting.shape)
    for box in painting.reviewed:
        area[shared_box(box, image).slices] = True
    return area


def _painted_background(claims: Sequence[Claim], shape: tuple[int, int], schema: LabelSchema) -> Mask | None:
    """Return `(H, W)` bool of the Background that people painted; None without any."""
    painted = [c for c in claims if c.class_index == schema.background_index and c.taught.any()]
    if not painted:
        return None
    ground = np.zeros(shape, bool)
    for claim in painted:
        ground[claim.box.slices] |= claim.taught
    return ground


def _object_classes(
    objects: Sequence[Claim], reviewed: _Reviewed, shape: tuple[int, int]
) -> NDArray[np.uint8]:
    """Return the object class per pixel, `_CONTRADICTION`, or `IGNORE_INDEX`."""
    by_people = np.full(shape, IGNORE_INDEX, np.uint8)
    for claim in objects:
        _write(by_people[claim.box.slices], claim.taught, claim.class_index)
    if reviewed.area is None:
        return by_people
    by_model = np.full(shape, IGNORE_INDEX, np.uint8)
    for claim in objects:
        _write(by_model[claim.box.slices], reviewed.truth_of(claim), claim.class_index)
    # What a person painted beats what the model drew, also inside a reviewed area.
    np.copyto(by_people, by_model, where=by_people == IGNORE_INDEX)
    return by_people


def _write(target: NDArray[np.uint8], mask: Mask, class_index: int) -> None:
    # A pixel that contradicts once goes on to do so: the mark differs from every class, too.
    other = mask & (target != IGNORE_INDEX) & (target != class_index)
    target[mask] = class_index
    target[other] = _CONTRADICTION


def _fill_background(
    label_map: NDArray[np.uint8],
    claims: Sequence[Claim],
    reviewed: _Reviewed,
    painting: Painting,
    schema: LabelSchema,
) -> None:
    """Write Background where it is said and no object, nor an object's soft edge, is there."""
    background = schema.background_index
    if background is None:
        return
    ground = np.zeros(painting.shape, np.uint8)
    if reviewed.area is not None:
        ground[reviewed.area] = _BACKGROUND
    for claim in claims:
        here = ground[claim.box.slices]
        here[claim.erased] |= _BACKGROUND
        if claim.class_index == background:
            here[claim.taught] |= _BACKGROUND
        else:
            here[_doubt(claim, reviewed.area)] |= _UNSURE
    label_map[(ground == _BACKGROUND) & (label_map == IGNORE_INDEX)] = background


def _doubt(claim: Claim, reviewed: Mask | None) -> Mask:
    if not claim.by_model:
        return claim.unsure
    # The model's untouched region says nothing, not even at its edge, unless it was reviewed.
    return claim.unsure & reviewed[claim.box.slices] if reviewed is not None else np.zeros_like(claim.unsure)


def _keep_apart(
    label_map: NDArray[np.uint8], objects: Sequence[Claim], reviewed: _Reviewed, schema: LabelSchema
) -> Separation:
    """Carve Background between touching objects of one class, people's strokes first."""
    background = schema.background_index
    if background is None:
        return Separation(np.zeros((0, 0), bool), 0, 0)
    in_order = sorted(objects, key=lambda claim: claim.by_model)
    things = [_painted_object(claim, label_map, reviewed) for claim in in_order]
    separation = find_contacts(things, (label_map.shape[0], label_map.shape[1]))
    label_map[separation.carved] = background
    return separation


def _painted_object(claim: Claim, label_map: NDArray[np.uint8], reviewed: _Reviewed) -> PaintedObject:
    mask = claim.taught | reviewed.truth_of(claim)
    return PaintedObject(
        claim.class_index, claim.box, mask & (label_map[claim.box.slices] == claim.class_index)
    )


def _background_over_model(
    label_map: NDArray[np.uint8], objects: Sequence[Claim], reviewed: _Reviewed, schema: LabelSchema
) -> int:
    """Count pixels that a person painted Background although the model's object is shown there."""
    if reviewed.ground is None:
        return 0
    covered = (
        claim.shown
        & reviewed.ground[claim.box.slices]
        & (label_map[claim.box.slices] == schema.background_index)
        for claim in objects
        if claim.by_model
    )
    return sum(int(np.count_nonzero(mask)) for mask in covered)


def _findings(partial: PartialLabelMap, n_hidden: int) -> list[Finding]:
    findings = []
    if partial.contradicting_px:
        message = f"{partial.contradicting_px} pixels carry two different object classes and are not used."
        findings.append(Finding("overlapping-classes", message))
    if partial.touching_objects:
        message = f"{partial.touching_objects} objects touch a neighbour of their class; a line was carved."
        findings.append(Finding("objects-without-gap", message))
    if n_hidden:
        message = (
            f"{n_hidden} pixels of Background cover objects that the model drew, and say that these are"
            " wrong. To keep such an object, paint it or take the Background away."
        )
        findings.append(Finding("background-over-prediction", message))
    return findings
