"""What one brush region says: which of its pixels a person vouched for, by its origin.

A submitted annotation also contains the regions that the model had drawn. Learning from them as they
are would teach the model its own mistakes, so each region is read against what had been sent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.painting import Box, BrushRegion, Mask, bounding_box, fill_holes, slices_within
from core.schema import LabelSchema


@dataclass(frozen=True)
class SentMask:
    """The mask that the model had sent under a region's id, cut to its box.

    `mask` is `(height, width)` bool with its first pixel at `(top, left)`. `image_shape` is the size of
    the image it was made for, where known: a mask for another size cannot be compared.
    """

    class_index: int
    top: int
    left: int
    mask: Mask
    image_shape: tuple[int, int] | None = None

    @property
    def box(self) -> Box:
        return Box(self.top, self.left, *self.mask.shape)


@dataclass(frozen=True)
class Claim:
    """What one region says inside `box`; all masks are `(box.height, box.width)` bool.

    Attributes
    ----------
    taught : pixels of `class_index` that a person vouched for
    shown : pixels of `class_index` that the annotator saw; truth where the area was reviewed
    erased : pixels of an object that a person took away from the model's mask
    unsure : soft edges and what a person left as the model drew it; never Background
    is_gone : a changed region whose original is not known any more
    by_model : the model's own region, untouched
    """

    region_id: str
    class_index: int
    box: Box
    taught: Mask
    shown: Mask
    erased: Mask
    unsure: Mask
    is_gone: bool = False
    by_model: bool = False


def read_claim(
    region: BrushRegion, schema: LabelSchema, sent: SentMask | None, image_shape: tuple[int, int]
) -> Claim:
    """Read one region by its origin.

    ==================== ===========================================================================
    origin               teaches
    ==================== ===========================================================================
    `manual`             all its painted pixels
    `prediction`         nothing by itself
    `prediction-changed` the difference to `sent`: what was added is its class, what was erased is not.
                         With another class than the one sent, all its painted pixels: a person named it
    ==================== ===========================================================================

    Parameters
    ----------
    region : BrushRegion
        Inside an image of `image_shape`.
    sent : SentMask or None
        What the model had sent under this id. None, or made for another image size: a changed region
        teaches nothing and is marked as gone.

    Raises
    ------
    ValueError
        The region reaches outside the image, or names a class that the schema does not have.

    Examples
    --------
    >>> import numpy as np
    >>> before = SentMask(1, 0, 0, np.array([[True, True, False]]))
    >>> after = BrushRegion("a", 1, "prediction-changed", 0, 0, np.array([[0, 255, 255]], np.uint8))
    >>> claim = read_claim(after, LabelSchema.of("Background", "Nucleus"), before, (1, 3))
    >>> claim.taught.tolist(), claim.erased.tolist()
    ([[False, False, True]], [[True, False, False]])
    """
    _check(region, schema, image_shape)
    sent = sent if sent is not None and _fits(sent, image_shape) else None
    was_renamed = sent is not None and sent.class_index != region.class_index
    if region.origin == "manual":
        return _taught_whole(region, schema)
    if region.origin == "prediction" and not was_renamed:
        return _untouched(region)
    if sent is None:
        return _untouched(region, is_gone=True)
    return _changed(region, schema, sent, was_renamed)


def _check(region: BrushRegion, schema: LabelSchema, image_shape: tuple[int, int]) -> None:
    if not 0 <= region.class_index < len(schema):
        raise ValueError(f"region {region.region_id!r} has class {region.class_index} of {len(schema)}")
    if region.alpha.size and not _is_inside(region.box, image_shape):
        raise ValueError(f"region {region.region_id!r} at {region.box} is outside an image of {image_shape}")


def _fits(sent: SentMask, image_shape: tuple[int, int]) -> bool:
    if sent.image_shape is not None and tuple(sent.image_shape) != tuple(image_shape):
        return False
    return sent.mask.size == 0 or _is_inside(sent.box, image_shape)


def _is_inside(box: Box, image_shape: tuple[int, int]) -> bool:
    fits_rows = box.top >= 0 and box.top + box.height <= image_shape[0]
    return fits_rows and box.left >= 0 and box.left + box.width <= image_shape[1]


def _soft(region: BrushRegion) -> Mask:
    return (region.alpha > 0) & ~region.painted


def _taught_whole(region: BrushRegion, schema: LabelSchema) -> Claim:
    painted = region.painted
    if schema.classes[region.class_index].autofill:
        painted = fill_holes(painted)
    nothing = np.zeros_like(painted)
    unsure = _soft(region) & ~painted
    return Claim(region.region_id, region.class_index, region.box, painted, painted, nothing, unsure)


def _untouched(region: BrushRegion, is_gone: bool = False) -> Claim:
    # Autofill is for strokes: holes in the model's own mask are what the model means.
    painted = region.painted
    nothing = np.zeros_like(painted)
    # A changed region is a person's work even where it cannot be read: no Background over it.
    unsure = region.alpha > 0 if is_gone else _soft(region)
    return Claim(
        region.region_id,
        region.class_index,
        region.box,
        nothing,
        painted,
        nothing,
        unsure,
        is_gone=is_gone,
        by_model=not is_gone,
    )


def _changed(region: BrushRegion, schema: LabelSchema, sent: SentMask, was_renamed: bool) -> Claim:
    box = bounding_box(region.box, sent.box)
    alpha = np.zeros((box.height, box.width), np.uint8)
    alpha[slices_within(region.box, box)] = region.alpha
    before: Mask = np.zeros(alpha.shape, bool)
    before[slices_within(sent.box, box)] = sent.mask
    after = BrushRegion(region.region_id, region.class_index, region.origin, box.top, box.left, alpha).painted
    # Where nothing at all is left: the soft edge of a stroke takes nothing away.
    erased = before & (alpha == 0)
    shown: Mask = after
    shown_before: Mask = before
    if schema.classes[region.class_index].autofill:
        # Holes that the model had left stay as they are: only a ring that a person closed is filled.
        shown, shown_before = fill_holes(after) & ~erased, fill_holes(before)
    taught = after if was_renamed else shown & ~shown_before
    is_object = 0 <= sent.class_index < len(schema) and schema.classes[sent.class_index].role == "object"
    return Claim(
        region.region_id,
        region.class_index,
        box,
        taught=taught,
        shown=shown | taught,
        erased=erased if is_object else np.zeros_like(erased),
        unsure=((alpha > 0) | shown) & ~taught,
    )
