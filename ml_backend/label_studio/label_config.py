"""A project's labeling setup (XML), read into the classes and tag names that Brushloop works with.

The rules:

* the classes are the labels of everything that draws areas on one `<Image>`, in their order: `<BrushLabels>`,
  `<BitmaskLabels>`, `<PolygonLabels>`, `<VectorLabels>`, `<EllipseLabels>`, or `<Labels>` beside a bare tool.
  Rectangles count too where they carry one of those classes, and hold the classes where nothing else does;
  with `smart="true"` they only ask;
* several images are an error: a task has one image to learn from;
* the model answers with the first of brush, bitmask, polygon, vector, ellipse and rectangle that is there;
* `Background` (in any case) or `role="background"` makes a label the background; `autofill="true"`
  fills holes;
* `Uncertain` and `Reviewed` are labels of a `<RectangleLabels>`, and `Whole image reviewed` is a `<Choice>`;
  each may be missing;
* with a single label, Background is what reviewed areas show without it. A single label that offers no review
  can never train, and is refused;
* an `alias` is what results hold, so it names the class; whatever is looked for by name is found by either.

What Brushloop would accept and then never learn from is refused here, with the change that makes it work:
repeaters, `valueList`, labels from the task's data, brushes on several images.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from core.schema import LabelSchema
from ml_backend.errors import LabelConfigError
from ml_backend.label_studio.painters import (
    BACKGROUND,
    BARE_TOOLS,
    ONE_IMAGE,
    PAINTERS,
    REVIEWED,
    UNCERTAIN,
    find_answer,
    find_painters,
    is_on,
    read_schema,
)
from ml_backend.label_studio.setup_tags import Tag, read_tags

WHOLE_IMAGE_REVIEWED = "Whole image reviewed"
_KEY = re.compile(r"\$(?P<key>[^\s$]+)")
_INDEX = re.compile(r"\[(\d+)\]")


@dataclass(frozen=True)
class LabelConfig:
    """Names that the labeling setup gives to things; `None` where the project does not offer one.

    `image_key` is the path into a task's data (`image`, or `views.front` for a nested value). The labels and
    the choice are as results hold them: by their alias, where they have one.

    `class_tags` leads from each tag that names classes to the key of a region's value that holds the name;
    `brush_tag` is the one of them that the model answers with, and `answer_shape` the shape that it draws,
    with the bare tool `answer_tool` beside a `<Labels>`.

    `controls` has the kind of every control by its name, in lower case; `objects` are the names of what can
    be annotated; `aliases` leads from a tag and a value in it to the alias.
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
    controls: Mapping[str, str] = field(default_factory=dict, hash=False)
    objects: frozenset[str] = frozenset()
    aliases: Mapping[tuple[str, str], str] = field(default_factory=dict, hash=False)
    class_tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    answer_shape: str = "brush"
    answer_tool: str | None = None

    def class_index(self, name: str, tag: str | None = None) -> int | None:
        """Index of the class that a result of `tag` calls `name`, by alias or by value; None for none."""
        return self.schema.index_of(self.aliases.get((tag or self.brush_tag, name), name))

    def offers(self, tag: str | None, text: str | None, names: Iterable[Any]) -> bool:
        """Whether `text` is among the names that a result of `tag` holds, by alias or by value."""
        if tag is None or text is None:
            return False
        plain = (name for name in names if isinstance(name, str))
        return any(self.aliases.get((tag, name), name) == text for name in plain)


def parse_label_config(xml: str) -> LabelConfig:
    """Read a labeling setup; raises `LabelConfigError` that names the tag which has to change."""
    tags = read_tags(xml)
    _refuse_repeaters(tags)
    images = {tag.name: tag for tag in tags if tag.kind == "image" and tag.name}
    if not images:
        raise LabelConfigError('the labeling setup has no <Image name="…" value="$…">')
    painters, image = find_painters(tags, images)
    brush = painters[0]
    tools = {tag.kind: tag.name for tag in reversed(tags) if tag.kind in BARE_TOOLS and is_on(tag, image)}
    here = [tag for tag in tags if image.name in tag.targets]
    uncertain_tag, uncertain_label = _find_offer(here, "rectanglelabels", "label", UNCERTAIN)
    reviewed_tag, reviewed_label = _find_offer(here, "rectanglelabels", "label", REVIEWED)
    review_tag, review_choice = _find_offer(here, "choices", "choice", WHOLE_IMAGE_REVIEWED)
    painted = {tag.name: tag.kind for tag in painters if tag.name not in (uncertain_tag, reviewed_tag)}
    offering = [tag for tag in here if tag.name in {*painted, uncertain_tag, reviewed_tag, review_tag}]
    shape, tool = find_answer(brush, tools)
    return LabelConfig(
        image_key=_read_image_key(image),
        schema=read_schema(painters, has_review=bool(reviewed_tag or review_tag)),
        image_tag=image.name,
        brush_tag=brush.name,
        uncertain_tag=uncertain_tag,
        uncertain_label=uncertain_label,
        reviewed_tag=reviewed_tag,
        reviewed_label=reviewed_label,
        review_tag=review_tag,
        review_choice=review_choice,
        controls={tag.name: tag.kind for tag in tags if tag.name and tag.targets},
        objects=frozenset(tag.name for tag in tags if tag.name and not tag.targets),
        aliases=_find_aliases(offering),
        class_tags=painted,
        answer_shape=shape,
        answer_tool=tool,
    )


# Every worker asks for it at every tick, and setups change rarely.
@lru_cache(maxsize=64)
def find_config(xml: str) -> tuple[LabelConfig | None, str | None]:
    """A labeling setup as read once, or why it cannot be used."""
    try:
        return parse_label_config(xml), None
    except LabelConfigError as error:
        return None, str(error)


def add_background(xml: str) -> str:
    """Return the labeling setup with a `<Label value="Background"/>` before the labels that are there.

    Examples
    --------
    >>> add_background('<BrushLabels name="b" toName="i"><Label value="Crack"/></BrushLabels>')
    '<BrushLabels name="b" toName="i"><Label value="Background"/><Label value="Crack"/></BrushLabels>'
    """
    return re.sub(
        r"(?i)(<(?:Brush|Bitmask|Polygon|Vector|Ellipse)Labels\b[^>]*[^>/]>)",
        rf'\1<Label value="{BACKGROUND}"/>',
        xml,
        count=1,
    )


def find_image_address(data: Mapping[str, Any], image_key: str) -> str | None:
    """The address of a task's image, or None; a key is looked up as it is, then step by step.

    Examples
    --------
    >>> find_image_address({"pages": [{"scan": "a.png"}, {"scan": "b.png"}]}, "pages[1].scan")
    'b.png'
    """
    value: Any = data.get(image_key)
    if value is None:
        value = data
        for step in _INDEX.sub(r".\1", image_key).split("."):
            value = _step_into(value, step)
    return value if isinstance(value, str) and value else None


def _step_into(value: Any, step: str) -> Any:
    if isinstance(value, list) and step.isdecimal():
        return value[int(step)] if len(step) < 9 and int(step) < len(value) else None
    return value.get(step) if isinstance(value, Mapping) else None


def _refuse_repeaters(tags: tuple[Tag, ...]) -> None:
    """A repeater makes its tags anew for each entry of a task's data, under names that nobody knows here."""
    for tag in tags:
        if tag.kind in ("image", *PAINTERS) and "{{" in tag.name + tag.value:
            raise LabelConfigError(
                f'the name or value of a tag has an index, "{tag.name}", as in a <Repeater>: {ONE_IMAGE}, '
                "and take the <Repeater> out"
            )
    if any(
        tag.within("image", "brushlabels", "bitmasklabels", "polygonlabels")
        for tag in tags
        if tag.kind == "repeater"
    ):
        raise LabelConfigError(
            f"a <Repeater> around <Image> or <BrushLabels> shows several images per task: {ONE_IMAGE}, "
            "and take the <Repeater> out"
        )


def _read_image_key(image: Tag) -> str:
    value = image.value
    if image.attributes.get("valuelist"):
        raise LabelConfigError(
            f'<Image name="{image.name}"> has a valueList, several images per task: {ONE_IMAGE}, and write '
            'value="$image" instead'
        )
    match = _KEY.fullmatch(value)
    if match is None:
        raise LabelConfigError(f'<Image name="{image.name}"> needs value="$key", found value="{value}"')
    return match["key"]


def _find_offer(tags: list[Tag], kind: str, inner: str, text: str) -> tuple[str | None, str | None]:
    """Name of the first tag of a kind that offers `text` in any case, and how the project spells it."""
    for tag in tags:
        if tag.kind == kind and tag.name:
            for option in tag.within(inner):
                if option.is_called(text):
                    return tag.name, option.text
    return None, None


def _find_aliases(tags: Iterable[Tag]) -> dict[tuple[str, str], str]:
    """Where results may hold the value of a label instead of its alias, as those of other programs do."""
    aliases: dict[tuple[str, str], str] = {}
    for tag in tags:
        options = [*tag.within("label", "choice")]
        taken = {option.text for option in options}
        for option in options:
            if option.alias and option.value not in taken:
                aliases[tag.name, option.value] = option.alias
    return aliases
