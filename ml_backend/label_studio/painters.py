"""Which tags of a labeling setup name the class of an area, and the classes that they name together."""

from __future__ import annotations

from collections.abc import Mapping

from core.errors import SchemaError
from core.schema import LabelClass, LabelSchema, Role
from ml_backend.errors import LabelConfigError
from ml_backend.label_studio.setup_tags import Tag

UNCERTAIN = "Uncertain"
REVIEWED = "Reviewed"
BACKGROUND = "Background"

ONE_IMAGE = "Brushloop learns from one image per task. Import each image as a task of its own"

PAINTERS = {
    "brushlabels": "BrushLabels",
    "bitmasklabels": "BitmaskLabels",
    "labels": "Labels",
    "polygonlabels": "PolygonLabels",
    "vectorlabels": "VectorLabels",
    "ellipselabels": "EllipseLabels",
    "rectanglelabels": "RectangleLabels",
}
"""Tags that name the class of an area, the one to answer with first; and how people write them."""

BARE_TOOLS = ("brush", "bitmask", "polygon", "vector", "ellipse", "rectangle", "magicwand")
"""Tools that stand beside a `<Labels>`, the one to answer with first; nobody answers with a magic wand."""


def find_painters(tags: tuple[Tag, ...], images: Mapping[str, Tag]) -> tuple[list[Tag], Tag]:
    """What names the classes of areas, the one to answer with first, and the image."""
    kinds = list(PAINTERS)
    with_tool = {target for tag in tags if tag.kind in BARE_TOOLS for target in tag.targets}
    painters = [
        tag
        for tag in tags
        if tag.kind in kinds[:-1] and (tag.kind != "labels" or with_tool.intersection(tag.targets))
    ]
    boxes = [tag for tag in tags if tag.kind == kinds[-1] and _class_labels(tag)]
    if not painters:
        painters = boxes
    # Beside them a smart box is a question to the model, and no mask of what it surrounds.
    boxes = [tag for tag in boxes if not _only_asks(tag)]
    if not painters:
        raise LabelConfigError(
            "the labeling setup has no <BrushLabels>, nor <BitmaskLabels>, <PolygonLabels> or another tag "
            "that draws areas of a class, so nothing can be painted"
        )
    bound = [(tag, images[target]) for tag in painters for target in tag.targets if target in images]
    if not bound:
        raise LabelConfigError(f"{_written(painters[0])} is not bound to an <Image> by toName")
    first, image = bound[0]
    for tag, target in bound:
        if not tag.name:
            raise LabelConfigError(f"<{PAINTERS[tag.kind]}> needs a name")
        if target is not image:
            raise LabelConfigError(
                f'{_written(tag)} paints on the image "{target.name}" beside '
                f'"{image.name}": {ONE_IMAGE}, or bind {_written(first)} and it to one'
            )
    found = sorted((tag for tag, _ in bound), key=lambda tag: kinds.index(tag.kind))
    return [*found, *(tag for tag in boxes if is_on(tag, image) and tag not in found)], image


def _only_asks(tag: Tag) -> bool:
    return any(tag.attributes.get(name, "").casefold() == "true" for name in ("smart", "smartonly"))


def _written(tag: Tag) -> str:
    return f'<{PAINTERS[tag.kind]} name="{tag.name}">'


def is_on(tag: Tag, image: Tag) -> bool:
    return bool(tag.name) and image.name in tag.targets


def _class_labels(tag: Tag) -> list[Tag]:
    """The labels of a tag that are no question and no answer to one."""
    is_box = tag.kind == "rectanglelabels"
    return [
        label
        for label in tag.within("label")
        if not (is_box and (label.is_called(UNCERTAIN) or label.is_called(REVIEWED)))
    ]


def find_answer(brush: Tag, tools: Mapping[str, str]) -> tuple[str, str | None]:
    """The shape that the model answers with, and the bare tool that draws it."""
    if brush.kind != "labels":
        return brush.kind.removesuffix("labels"), None
    shape = next((kind for kind in BARE_TOOLS if kind in tools), "brush")
    return ("brush" if shape == "magicwand" else shape), tools.get(shape)


def read_schema(painters: list[Tag], *, has_review: bool) -> LabelSchema:
    """The classes of all painters. Rectangles beside them add none: a box around a thing is no mask of it."""
    brush = painters[0]
    classes: list[LabelClass] = []
    try:
        for tag in painters:
            if tag is brush or tag.kind != "rectanglelabels":
                names = {one.name for one in classes}
                classes += [one for one in _read_classes(tag) if tag is brush or one.name not in names]
        return LabelSchema((*classes, *_second_class(tuple(classes), brush, has_review)))
    except SchemaError as error:
        raise LabelConfigError(f"{_written(brush)}: {error}") from None


def _read_classes(tag: Tag) -> list[LabelClass]:
    if tag.value.startswith("$"):
        raise LabelConfigError(
            f"{_written(tag)} takes its labels from the data of each task "
            f'(value="{tag.value}"): a project has one set of classes. Write each as a <Label value="…"/> '
            "inside it"
        )
    labels = _class_labels(tag)
    if not labels:
        raise LabelConfigError(
            f"{_written(tag)} has no <Label>s of its own; write one for each class, and "
            f'<Label value="{BACKGROUND}"/>, inside it'
        )
    return [_read_class(label, tag) for label in labels]


def _second_class(classes: tuple[LabelClass, ...], brush: Tag, has_review: bool) -> tuple[LabelClass, ...]:
    """Background for a project with a single label, where reviewed areas can teach it."""
    if len(classes) > 1:
        return ()
    (only,) = classes
    if only.role == "background":
        raise LabelConfigError(
            f"{_written(brush)} has the background alone, {only.name!r}: "
            "add a <Label> for what is to be found"
        )
    if not has_review:
        raise LabelConfigError(
            f"{_written(brush)} has one label, {only.name!r}, and a model that knows one "
            f'class has nothing to tell apart. Add <Label value="{BACKGROUND}"/> to it, or another label '
            f'with role="background", and paint some of what is not {only.name!r}'
        )
    return (LabelClass(BACKGROUND, "background", is_painted=False),)


def _read_class(label: Tag, brush: Tag) -> LabelClass:
    if not label.text:
        raise LabelConfigError(f"a <Label> in {_written(brush)} has no value")
    autofill = label.attributes.get("autofill", "").strip().casefold() == "true"
    return LabelClass(label.text, _read_role(label), autofill)


def _read_role(label: Tag) -> Role:
    """`role` decides; without it the name does, so a label named Background can be made an object."""
    role = label.attributes.get("role", "").strip().casefold()
    if role == "background" or (not role and label.is_called(BACKGROUND)):
        return "background"
    if role in ("", "object"):
        return "object"
    raise LabelConfigError(f'<Label value="{label.text}"> has role="{role}"; known roles: background, object')
