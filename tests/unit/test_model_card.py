"""Every published version carries a card that says where it comes from and how good it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bright_model import bright_is_nucleus, save_bright_model
from loop_fakes import make_bench

from core.schema import LabelSchema
from export.model_card import MODEL_CARD_FILE, Provenance, write_card
from ml_backend.command.export_model_command import find_model
from ml_backend.config import Settings

SCHEMA = LabelSchema.of("Background", "Nucleus", "Mitosis | late")
ABOUT = Provenance("r0007-0a1b2c3d", 3, 7, "2026-05-01T10:00:00.000Z")

REPORT: dict[str, Any] = {
    "seen": {"images": 12, "annotated_images": 9, "pixels": {"Background": 58440, "Nucleus": 1724}},
    "changed": {"weights": {"network": 0.4, "head": 0.097, "forest": 0.503}},
    "held_out": {"Nucleus": {"dice": 0.9123, "iou": 0.8388, "interval": [0.88, 0.941]}},
    "held_out_objects": {"Background": 3, "Nucleus": 41},
    "origin": "warm",
    "fingerprint": "0a1b2c3d",
    "parent": "ffee",
    "seed": 4,
    "seconds": 31.2,
    "draft": False,
    "skipped_images": {"8": "gone"},
    "weak_classes": [{"name": "Nucleus", "dice": 0.02, "steps": 3}],
    "classes_without_pixels": ["Mitosis | late"],
    "note": None,
}


def rows(card: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.replace("\\|", "/").strip("|").split("|")]
        for line in card.splitlines()
        if line.startswith("|")
    ]


def test_a_card_says_data_figures_with_intervals_and_origin() -> None:
    card = write_card(ABOUT, SCHEMA, REPORT)
    assert ["project", "3"] in rows(card)
    assert ["round", "7"] in rows(card)
    assert ["started from", "the model before it"] in rows(card)
    assert ["Background", "background", "58,440"] in rows(card)
    assert ["Nucleus", "0.912", "0.880 to 0.941", "0.839", "41"] in rows(card)
    assert "people painted: 9. 1 images could not be used." in card
    assert "- Weak in Nucleus." in card


def test_a_bar_in_the_name_of_a_class_does_not_break_its_table() -> None:
    assert ["Mitosis / late", "object", "not recorded"] in rows(write_card(ABOUT, SCHEMA, REPORT))


def test_the_encoders_source_and_licence_stand_where_it_was_used() -> None:
    assert "Apache-2.0" in write_card(ABOUT, SCHEMA, REPORT)
    alone = {**REPORT, "changed": {"weights": {"network": 1.0, "head": 0}}}
    assert "Apache-2.0" not in write_card(ABOUT, SCHEMA, alone)
    timm = Provenance("r0007-0a1b2c3d", encoder="resnet18")
    assert "timm's encoder resnet18" in write_card(timm, SCHEMA, REPORT)


def test_a_draft_says_that_nothing_checked_it() -> None:
    card = write_card(ABOUT, SCHEMA, {**REPORT, "held_out": {}, "draft": True})
    assert "no figure says how good this model is" in card
    assert "- It is a draft: nothing checked it." in card


def test_what_is_not_recorded_is_not_guessed() -> None:
    card = write_card(Provenance("r0001-0a1b2c3d"), SCHEMA, {})
    assert ["project", "not recorded"] in rows(card)
    assert "was held out\n\nNot recorded." in card


@pytest.mark.parametrize("keeps_card", [True, False])
def test_a_published_version_has_its_card_beside_its_weights(tmp_path: Path, keeps_card: bool) -> None:
    bench = make_bench(tmp_path)
    try:
        bench.submit(1, 2)
        bench.loop.build_truth(1)
        bench.loop.run_round(1)
        [path] = tmp_path.rglob(f"models/*/{MODEL_CARD_FILE}")
        published = path.read_text()
        assert f"# Model {path.parent.name}" in published
        assert ["round", "1"] in rows(published)
        if not keeps_card:
            path.unlink()
        settings = Settings(data_dir=tmp_path)
        found = find_model("1", None, settings.data_dir)
        assert found.read_card(bright_is_nucleus()).startswith(f"# Model {path.parent.name}")
    finally:
        bench.close()


def test_a_folder_without_a_card_gets_one_from_its_weights(tmp_path: Path) -> None:
    card = find_model(str(save_bright_model(tmp_path)), None, None).read_card(bright_is_nucleus())
    assert card.startswith("# Model r0001-0a1b2c3d")
    assert ["U-Net of Brushloop", "1.000"] in rows(card)
