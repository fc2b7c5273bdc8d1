"""The entries of a result before they are read: their kinds, and which of them speak of one region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ml_backend.label_studio.label_config import LabelConfig

LABELLED_SHAPES = {
    "brushlabels": "mask",
    "bitmasklabels": "bitmask",
    "rectanglelabels": "rectangle",
    "polygonlabels": "polygon",
    "ellipselabels": "ellipse",
    "keypointlabels": "key point",
    "vectorlabels": "vector",
    "labels": "shape",
}
"""Kinds of controls, and of results, that draw and name a class; what people call what they draw."""

BARE_SHAPES = {
    "brush": "mask",
    "magicwand": "mask",
    "bitmask": "bitmask",
    "rectangle": "rectangle",
    "polygon": "polygon",
    "ellipse": "ellipse",
    "keypoint": "key point",
    "vector": "vector",
}
"""The same without a class; a second result of the same id may name it."""

SHAPES = LABELLED_SHAPES | BARE_SHAPES

PROMPTS = ("keypointlabels", "rectanglelabels")
"""Kinds of controls of smart tools."""


def without_prompts(entries: Sequence[Any], config: LabelConfig) -> list[Any]:
    """Leave out what the label of a smart tool adds to a region that has its class from another control.

    The page gives an accepted region every label that is chosen at that moment, the smart tool's too.
    """
    named = {
        entry["id"]
        for entry in entries
        if isinstance(entry, Mapping)
        and isinstance(entry.get("from_name"), str)
        and entry["from_name"] in config.class_tags
        and isinstance(entry.get("id"), str)
    }
    return [entry for entry in entries if not (_is_prompt(entry, config) and entry.get("id") in list(named))]


def _is_prompt(entry: Any, config: LabelConfig) -> bool:
    """Whether a control that names classes, but not those of areas, made this entry."""
    tag = entry.get("from_name") if isinstance(entry, Mapping) else None
    known = (*config.class_tags, config.uncertain_tag, config.reviewed_tag)
    return isinstance(tag, str) and tag not in known and config.controls.get(tag) in PROMPTS


def find_labelled(entries: Sequence[Any]) -> set[str]:
    """Ids of regions that name a class; Label Studio writes one entry per control that speaks of a region."""
    return {
        entry["id"]
        for entry in entries
        if isinstance(entry, Mapping)
        and entry.get("type") in list(LABELLED_SHAPES)
        and isinstance(entry.get("id"), str)
    }


def join_labels(entries: Sequence[Any]) -> list[Any]:
    """Entries of `<Labels>` with the shape that a bare tool's entry of the same id has."""
    bare = {
        entry["id"]: entry["value"]
        for entry in entries
        if isinstance(entry, Mapping)
        and entry.get("type") in list(BARE_SHAPES)
        and isinstance(entry.get("id"), str)
        and isinstance(entry.get("value"), Mapping)
    }
    return [
        {**entry, "value": {**bare[entry["id"]], **entry["value"]}}
        if isinstance(entry, Mapping)
        and entry.get("type") == "labels"
        and isinstance(entry.get("value"), Mapping)
        and entry.get("id") in list(bare)
        else entry
        for entry in entries
    ]
