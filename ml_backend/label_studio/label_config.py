"""A project's labeling setup (XML), read into the classes and tag names that Brushloop works with.

The rules:

* the first `<BrushLabels>` that is bound to an `<Image>` holds the classes, in their order; a second
  one on the same image is an error, because a pixel has one class; brushes on other images are left alone;
* `Background` (in any case) or `role="background"` makes a label the background; `autofill="true"`
  fills holes;
* `Uncertain` and `Reviewed` are labels of a `<RectangleLabels>`, and `Whole image reviewed` is a `<Choice>`;
  each may be missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from core.errors import SchemaError
from core.schema import LabelClass, LabelSchema, Role
from ml_backend.errors import LabelConfigError

MAX_CONFIG_CHARS = 1_000_000
"""254 labels with long names take some 50 kB; anything near this was not written for people."""

UNCERTAIN = "Uncertain"
REVIEWED = "Reviewed"
WHOLE_IMAGE_REVIEWED = "Whole image reviewed"


@dataclass(frozen=True)
class LabelConfig:
    """Names that the labeling setup gives to things; `None` where the project does not offer one.

    `image_key` is the path into a task's data (`image`, or `views.front` for a nested value).
    `other_brush_tags` are brushes on other images. The spelling of `uncertain_label`, `reviewed_label`
    and `review_choice` is the project's own.
    """

    schema: LabelSchema
    image_key: str
    image_tag: str
    brush_tag: str
    uncertain_tag: str | None = None
    uncertain_label: str | None = None
    reviewed_tag: str | None = None
    reviewed_label: str | None = None
    review_tag: str | None = None
    review_choice: str | None = None
    other_brush_tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Tag:
    """One XML element; kinds and attribute names in lower case, because the page ignores their case."""

    kind: str
    attributes: Mapping[str, str]
    element: Element

    @property
    def name(self) -> str:
        return self.attributes.get("name", "")

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(part.strip() for part in self.attributes.get("toname", "").split(",") if part.strip())

    @property
    def text(self) -> str:
        """What results will hold for a label or choice: its alias, else its value."""
        return self.attributes.get("alias") or self.attributes.get("value", "")

    def within(self, kind: str) -> tuple[_Tag, ...]:
        return tuple(tag for tag in _tags(self.element) if tag.kind == kind)


def parse_label_config(xml: str) -> LabelConfig:
    """Read a labeling setup; raises `LabelConfigError` that names the tag which has to change."""
    tags = tuple(_tags(_parse_xml(xml)))
    images = {tag.name: tag for tag in tags if tag.kind == "image" and tag.name}
    if not images:
        raise LabelConfigError('the labeling setup has no <Image name="…" value="$…">')
    brush, image = _find_brush(tags, images)
    here = [tag for tag in tags if image.name in tag.targets]
    others = [tag.name for tag in tags if tag.kind == "brushlabels" and image.name not in tag.targets]
    uncertain_tag, uncertain_label = _find_offer(here, "rectanglelabels", "label", UNCERTAIN)
    reviewed_tag, reviewed_label = _find_offer(here, "rectanglelabels", "label", REVIEWED)
    review_tag, review_choice = _find_offer(here, "choices", "choice", WHOLE_IMAGE_REVIEWED)
    return LabelConfig(
        schema=_read_schema(brush),
        image_key=_read_image_key(image),
        image_tag=image.name,
        brush_tag=brush.name,
        uncertain_tag=uncertain_tag,
        uncertain_label=uncertain_label,
        reviewed_tag=reviewed_tag,
        reviewed_label=reviewed_label,
        review_tag=review_tag,
        review_choice=review_choice,
        other_brush_tags=tuple(others),
    )


@lru_cache(maxsize=64)
def find_config(xml: str) -> tuple[LabelConfig | None, str | None]:
    """A labeling setup as read once, or why it cannot be used."""
    try:
        return parse_label_config(xml), None
    except LabelConfigError as error:
        return None, str(error)


def find_image_address(data: Mapping[str, Any], image_key: str) -> str | None:
    """The address of a task's image, or None; a dotted key is looked up as it is, then step by step."""
    value: Any = data.get(image_key)
    if value is None and "." in image_key:
        value = data
        for step in image_key.split("."):
            value = value.get(step) if isinstance(value, Mapping) else None
    return value if isinstance(value, str) and value else None


def _parse_xml(xml: str) -> Element:
    if len(xml) > MAX_CONFIG_CHARS:
        raise LabelConfigError(
            f"the labeling setup has {len(xml)} characters; the limit is {MAX_CONFIG_CHARS}"
        )
    try:
        root: Element = fromstring(xml, forbid_dtd=True)
    except DefusedXmlException:
        raise LabelConfigError("the labeling setup must not contain <!DOCTYPE> or <!ENTITY>") from None
    except (ParseError, ValueError) as error:  # ValueError: text that UTF-8 cannot hold
        raise LabelConfigError(f"the labeling setup is not XML: {error}") from None
    return root


def _tags(root: Element) -> Iterator[_Tag]:
    for element in root.iter():
        if isinstance(element.tag, str):  # comments have a function here
            attributes = {key.lower(): value for key, value in element.attrib.items()}
            yield _Tag(element.tag.lower(), attributes, element)


def _find_brush(tags: tuple[_Tag, ...], images: Mapping[str, _Tag]) -> tuple[_Tag, _Tag]:
    """The brush that holds the classes, and its image."""
    brushes = [tag for tag in tags if tag.kind == "brushlabels"]
    if not brushes:
        raise LabelConfigError("the labeling setup has no <BrushLabels>, so nothing can be painted")
    bound = [(tag, images[target]) for tag in brushes for target in tag.targets if target in images]
    if not bound:
        raise LabelConfigError(f'<BrushLabels name="{brushes[0].name}"> is not bound to an <Image> by toName')
    brush, image = bound[0]
    if not brush.name:
        raise LabelConfigError("<BrushLabels> needs a name")
    rivals = [other for other, target in bound if target is image and other is not brush]
    if rivals:
        raise LabelConfigError(
            f'<BrushLabels name="{rivals[0].name}"> paints on the same image as "{brush.name}": '
            "put all classes into one <BrushLabels>"
        )
    return brush, image


def _read_image_key(image: _Tag) -> str:
    value = image.attributes.get("value", "")
    if not value.startswith("$") or len(value) == 1:
        raise LabelConfigError(f'<Image name="{image.name}"> needs value="$key", found value="{value}"')
    return value[1:]


def _read_schema(brush: _Tag) -> LabelSchema:
    labels = brush.within("label")
    if not labels:
        raise LabelConfigError(f'<BrushLabels name="{brush.name}"> has no <Label>s of its own')
    try:
        return LabelSchema(tuple(_read_class(label, brush) for label in labels))
    except SchemaError as error:
        raise LabelConfigError(f'<BrushLabels name="{brush.name}">: {error}') from None


def _read_class(label: _Tag, brush: _Tag) -> LabelClass:
    if not label.text:
        raise LabelConfigError(f'a <Label> in <BrushLabels name="{brush.name}"> has no value')
    autofill = label.attributes.get("autofill", "").strip().casefold() == "true"
    return LabelClass(label.text, _read_role(label), autofill)


def _read_role(label: _Tag) -> Role:
    """`role` decides; without it the name does, so a label named Background can be made an object."""
    role = label.attributes.get("role", "").strip().casefold()
    if role == "background" or (not role and label.text.strip().casefold() == "background"):
        return "background"
    if role in ("", "object"):
        return "object"
    raise LabelConfigError(f'<Label value="{label.text}"> has role="{role}"; known roles: background, object')


def _find_offer(tags: list[_Tag], kind: str, inner: str, text: str) -> tuple[str | None, str | None]:
    """Name of the first tag of a kind that offers `text` in any case, and how the project spells it."""
    for tag in tags:
        if tag.kind == kind and tag.name:
            for option in tag.within(inner):
                if option.text.strip().casefold() == text.casefold():
                    return tag.name, option.text
    return None, None
