"""What to know of a model before it is used: where it comes from, how good it is, its licence."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version as version_of
from typing import Any

from core.network.encoder import CARD_FILE, FOLDER
from core.network.mixture import HEAD, NETWORK, TUNED
from core.schema import LabelSchema

MODEL_CARD_FILE = "MODEL_CARD.md"

ORIGINS = {
    "fresh": "weights drawn at random",
    "base": "the base that Brushloop ships, which drawn images made",
    "warm": "the model before it",
}
UNKNOWN = "not recorded"

OWN_LICENCE = (
    "The weights learnt from the images of this project: who owns those decides what may be done with them. "
    "Brushloop itself, with the base weights of its network, is MIT."
)


@dataclass(frozen=True)
class Provenance:
    """Where a model comes from.

    Attributes
    ----------
    version : its published name
    project : the project's number in Label Studio, or None where only the files are known
    round : the round that made it
    made : ISO date and time, UTC
    encoder : timm's name of the network's encoder, empty for Brushloop's own network
    """

    version: str
    project: int | None = None
    round: int | None = None
    made: str | None = None
    encoder: str = ""


def write_card(about: Provenance, schema: LabelSchema, report: Mapping[str, Any]) -> str:
    """The model card in Markdown, from the report of the round; what a report does not say is named so.

    Examples
    --------
    >>> card = write_card(Provenance("r0001-0a1b2c3d", 3, 1), LabelSchema.of("Background", "Nucleus"), {})
    >>> card.splitlines()[0]
    '# Model r0001-0a1b2c3d'
    """
    parts = [
        f"# Model {about.version}",
        "A model that says the class of each pixel, trained by Brushloop from partly painted images.",
        _describe_origin(about, report),
        "## Data",
        _describe_data(schema, report),
        "## Validation: what was held out",
        _describe_held_out(schema, report),
        "## Learners",
        _describe_learners(about, report),
        "## Limits",
        _describe_limits(report),
        "## Licence",
        f"{OWN_LICENCE}{_licence_of_encoder(report)}",
    ]
    return "\n\n".join(parts) + "\n"


def _describe_origin(about: Provenance, report: Mapping[str, Any]) -> str:
    rows = [
        ("project", about.project),
        ("round", about.round),
        ("made", about.made),
        ("started from", ORIGINS.get(str(report.get("origin")))),
        ("sha256 of those weights", report.get("parent")),
        ("sha256 of these weights", report.get("fingerprint")),
        ("seed", report.get("seed")),
        ("training", None if "seconds" not in report else f"{report['seconds']:.0f} s"),
        ("Brushloop", version_of("brushloop")),
    ]
    return _table(("", ""), rows)


def _describe_data(schema: LabelSchema, report: Mapping[str, Any]) -> str:
    seen = report.get("seen", {})
    pixels = seen.get("pixels", {})
    rows = [(label.name, label.role, _number(pixels.get(label.name))) for label in schema.classes]
    images = _number(seen.get("annotated_images", seen.get("images")))
    skipped = len(report.get("skipped_images", {}))
    unread = f" {skipped} images could not be used." if skipped else ""
    return (
        f"Images of the project in which people painted: {images}.{unread} Only painted pixels teach; "
        f"what nobody painted is left out.\n\n{_table(('class', 'role', 'pixels trained on'), rows)}"
    )


def _describe_held_out(schema: LabelSchema, report: Mapping[str, Any]) -> str:
    held_out, objects = report.get("held_out", {}), report.get("held_out_objects", {})
    if not held_out:
        return (
            "Nothing: there were too few objects to hold some back, so no figure says how good this model is."
            if report.get("draft")
            else f"{UNKNOWN.capitalize()}."
        )
    rows = [
        (
            name,
            _share(held_out[name].get("dice")),
            _interval(held_out[name].get("interval")),
            _share(held_out[name].get("iou")),
            _number(objects.get(name)),
        )
        for name in schema.names
        if name in held_out
    ]
    return (
        "Measured on painted objects of the same images that no model of this project was trained on; Dice "
        "with its 95 % interval, which resamples images and objects.\n\n"
        f"{_table(('class', 'Dice', 'interval', 'IoU', 'objects'), rows)}"
    )


def _describe_learners(about: Provenance, report: Mapping[str, Any]) -> str:
    weights = report.get("changed", {}).get("weights", {})
    names = {
        NETWORK: f"network around timm's encoder {about.encoder}" if about.encoder else "U-Net of Brushloop",
        HEAD: f"head on {encoder_card()['name']} ({encoder_card()['source']})",
        TUNED: f"{encoder_card()['name']}, trained on from there with a head",
    }
    rows = [
        (names.get(name, f"{name} on pixel features"), _share(weight)) for name, weight in weights.items()
    ]
    return _table(("learner", "weight in the answer"), rows) if rows else f"{UNKNOWN.capitalize()}."


def _describe_limits(report: Mapping[str, Any]) -> str:
    weak = ", ".join(str(one.get("name", one)) for one in report.get("weak_classes", ()))
    untaught = ", ".join(report.get("classes_without_pixels", ()))
    lines = [
        "It knows images like those of its project; on others its probabilities are not calibrated.",
        "It is a draft: nothing checked it." if report.get("draft") else "",
        f"Nobody painted {untaught}, so it never answers that." if untaught else "",
        f"Weak in {weak}." if weak else "",
        str(report.get("note") or ""),
    ]
    return "\n".join(f"- {line}" for line in lines if line)


def _licence_of_encoder(report: Mapping[str, Any]) -> str:
    weights = report.get("changed", {}).get("weights", {HEAD: 1})
    has_encoder = weights.get(HEAD) or weights.get(TUNED)
    return f" {encoder_card()['name']}: {encoder_card()['licence']}." if has_encoder else ""


def encoder_card() -> Mapping[str, str]:
    """Name, source and licence of the shipped encoder."""
    card: dict[str, str] = json.loads((FOLDER / CARD_FILE).read_text(encoding="utf-8"))
    return card


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(value) for value in line)} |" for line in lines)


def _cell(value: Any) -> str:
    """Names of classes are anybody's words; a line break or a bar would end the table."""
    return UNKNOWN if value is None else " ".join(str(value).split()).replace("|", "\\|")


def _number(value: Any) -> str:
    return UNKNOWN if value is None else f"{value:,}"


def _share(value: Any) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def _interval(edges: Any) -> str:
    return "unknown" if not edges or None in edges else f"{edges[0]:.3f} to {edges[1]:.3f}"
