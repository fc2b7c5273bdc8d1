"""The instruction that annotators read in Label Studio: how to paint, correct and answer in one project."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from ml_backend.label_studio.label_config import LabelConfig, parse_label_config
from ml_backend.label_studio.painters import BACKGROUND
from ml_backend.label_studio.setup_tags import read_tags

MAX_NAMED = 20
"""Classes that are named; whoever has more of them finds the rest in the editor."""

ERASABLE = ("brush", "bitmask")
"""Shapes of answers that the eraser works on; others have points that move."""


def write_instruction(xml: str) -> str:
    """HTML about a labeling setup: its classes, questions and hot keys, by the names that the page shows.

    Label Studio cleans what it gets; these tags and this way of escaping pass unchanged.

    Raises
    ------
    LabelConfigError
        The setup cannot be worked with.
    """
    config = parse_label_config(xml)
    shown = _read_shown(xml)
    lines = (_paint(config, shown), *_click(xml), _correct(config), *_answer(config, shown), _wait())
    return "<ul>\n" + "\n".join(f"<li>{line}</li>" for line in lines) + "\n</ul>"


def _read_shown(xml: str) -> Mapping[str, str]:
    """How the page shows a label or choice, as HTML with its hot key, by what results call it."""
    shown: dict[str, str] = {}
    for tag in read_tags(xml):
        if tag.kind in ("label", "choice"):
            key = tag.attributes.get("hotkey", "").strip()
            name = f"<b>{_safe(tag.value or tag.text)}</b>"
            shown.setdefault(tag.text, f"{name} (key {_safe(key)})" if key else name)
    return shown


def _safe(text: str) -> str:
    return escape(text, quote=False)


def _paint(config: LabelConfig, shown: Mapping[str, str]) -> str:
    """Objects are painted whole, with Background around them; areas without a background in parts."""
    classes = config.schema.classes
    background = next((one for one in classes if one.role == "background"), None)
    names = _name([shown.get(one.name, _safe(one.name)) for one in classes if one is not background])
    silent = "What you leave unpainted says nothing."
    if background is None:
        return f"Paint parts of the areas of every class: {names}. They need not be whole. {silent}"
    if background.is_painted:
        beside = f"Paint {shown.get(background.name, _safe(background.name))} around them too. {silent}"
    else:
        beside = f"Background has no label: it is what a reviewed place shows without objects. {silent}"
    return f"Paint whole objects: {names}. {beside}"


def _name(names: Sequence[str]) -> str:
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def _click(xml: str) -> Iterator[str]:
    """How one click draws an object, where the setup has smart key points."""
    for tag in read_tags(xml):
        if tag.kind == "keypointlabels" and tag.attributes.get("smart", "").casefold() == "true":
            objects = [label for label in tag.within("label") if not label.is_called(BACKGROUND)]
            key = objects[0].attributes.get("hotkey", "").strip() if objects else ""
            label = f"key {_safe(key)}" if key else f"a label of {_safe(tag.name)}"
            yield (
                "Or let a click draw an object: switch <b>Auto-Annotation</b> on below the image, take the "
                f"coloured tool at the end of the toolbar, then for each object {label} and a click in it. "
                "The tick below the image accepts."
            )
            return


def _correct(config: LabelConfig) -> str:
    if config.answer_shape in ERASABLE:
        how = "click its region in the list, press <b>E</b>, and erase what is wrong"
    else:
        how = "click its region in the list, and move its points or delete it"
    return f"To correct a suggestion: {how}. Paint what is missing."


def _answer(config: LabelConfig, shown: Mapping[str, str]) -> Iterator[str]:
    """How to answer, as far as the setup offers it."""
    whole = shown.get(config.review_choice or "")
    reviewed = shown.get(config.reviewed_label or "")
    uncertain = shown.get(config.uncertain_label or "")
    if reviewed and uncertain and config.uncertain_tag == config.reviewed_tag:
        yield (
            f"A box {uncertain} is a question. Correct what is wrong in it; then press <b>V</b>, click the "
            f"box and turn it to {reviewed}: all in it is true as shown."
        )
    elif reviewed:
        yield f"Draw a box {reviewed} where all is true as shown."
    if whole:
        yield f"Where the whole image is right, check {whole}."
    if reviewed or whole:
        yield "A suggestion that you accept without change teaches nothing by itself."


def _wait() -> str:
    return "A page that was open before the first training shows no suggestions: reload it once after that."
