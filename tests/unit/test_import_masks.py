"""Masks of other tools as annotations: what each kind teaches, and where it comes in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from kept_uploads import CONFIG, SHAPE, KeptUploads, bring_masks, coco, noise, plain_runs, two_objects
from PIL import Image

from core.asking.suggestion import SuggestedMask
from core.errors import ImageError
from core.schema import IGNORE_INDEX, LabelSchema
from core.truth.label_map import build_label_map
from export.label_files import save_instances
from ingest.coco import parse_coco
from ingest.masks import MOST_REGIONS, MaskRules
from ml_backend.command.import_masks import is_mask_name, parse_labels
from ml_backend.label_studio.label_config import LabelConfig, parse_label_config
from ml_backend.label_studio.paintings import parse_painting
from ml_backend.label_studio.results import to_annotation
from ml_backend.strokes.combining import combine_paintings

BRUSH_ALONE = parse_label_config(
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
    '<Label value="Background"/><Label value="Nucleus"/><Label value="Cell"/></BrushLabels></View>'
)
POLYGONS = parse_label_config(
    '<View><Image name="image" value="$image"/><PolygonLabels name="outline" toName="image">'
    '<Label value="Background"/><Label value="Nucleus"/></PolygonLabels></View>'
)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    tifffile.imwrite(folder / "cells.tif", noise(*SHAPE))
    return folder


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    folder = tmp_path / "masks"
    folder.mkdir()
    return folder


def truth(task: dict[str, Any], config: LabelConfig = CONFIG, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """The label map that the worker builds of the task's annotation."""
    (annotation,) = task["annotations"]
    painting = parse_painting(annotation["result"], config, shape)
    assert painting.findings == ()
    return build_label_map(painting, config.schema).label_map


def learn(
    images: Path, masks: Path, rules: MaskRules | None = None, config: LabelConfig = CONFIG
) -> np.ndarray:
    kept = KeptUploads()
    done = bring_masks(images, masks, kept, rules, config)
    assert done.left_out == []
    return truth(kept.tasks[0], config)


def write_png(path: Path, numbers: np.ndarray) -> None:
    Image.fromarray(numbers).save(path)


def write_palette(path: Path, numbers: np.ndarray) -> None:
    picture = Image.fromarray(numbers)
    picture.putpalette([7, 200, 30] * 256)
    picture.save(path)


def write_sixteen_bits(path: Path, numbers: np.ndarray) -> None:
    cv2.imwrite(str(path), numbers.astype(np.uint16))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("cells.png", write_png),
        ("cells_masks.png", write_palette),
        ("cells_cp_masks.png", write_sixteen_bits),
        ("cells-label.tif", lambda path, n: tifffile.imwrite(path, n.astype(np.uint32), compression="lzw")),
        ("cells.ome.tif", lambda path, n: tifffile.imwrite(path, n.astype(np.float32))),
        ("cells_mask.tif", lambda path, n: save_instances(path, n.astype(np.int32))),
    ],
)
def test_every_object_teaches_and_touching_ones_are_kept_apart(
    images: Path, masks: Path, name: str, write: Callable[[Path, np.ndarray], None]
) -> None:
    write(masks / name, two_objects())
    label_map = learn(images, masks)
    assert (label_map[:, 35:] == 0).all(), "all else is Background"
    assert label_map[10, 10] == label_map[10, 25] == 1
    n_objects, _ = cv2.connectedComponents((label_map == 1).astype(np.uint8))
    assert n_objects - 1 == 2


def test_an_imported_annotation_says_where_it_comes_from(images: Path, masks: Path) -> None:
    write_png(masks / "cells.png", two_objects())
    kept = KeptUploads()
    assert bring_masks(images, masks, kept).n_masks == 1
    (annotation,) = kept.tasks[0]["annotations"]
    regions = [entry for entry in annotation["result"] if entry["type"] != "choices"]
    assert len(regions) == 2
    assert {entry["meta"]["text"][0] for entry in regions} == {"Imported from cells.png"}
    assert {entry["origin"] for entry in regions} == {"manual"}


def test_an_ignored_value_stays_partial(images: Path, masks: Path) -> None:
    numbers = two_objects()
    numbers[30:] = 255
    write_png(masks / "cells.png", numbers)
    label_map = learn(images, masks, MaskRules(ignore=frozenset({255})))
    assert (label_map[30:] == IGNORE_INDEX).all()
    assert (label_map[25] == 0).all()


def test_a_partial_mask_says_nothing_where_it_has_no_object(images: Path, masks: Path) -> None:
    write_png(masks / "cells.png", two_objects())
    label_map = learn(images, masks, MaskRules(partial=True))
    assert (label_map[30:] == IGNORE_INDEX).all()
    assert label_map[10, 10] == 1


def test_values_can_be_classes(images: Path, masks: Path) -> None:
    write_png(masks / "cells.png", two_objects())
    rules = MaskRules(parse_labels("0=background,1=Nucleus,2=Cell"))
    label_map = learn(images, masks, rules, BRUSH_ALONE)
    assert label_map[10, 10] == 1
    assert label_map[10, 25] == 2
    assert label_map[30, 30] == 0


def test_values_can_be_objects_of_one_of_several_classes(images: Path, masks: Path) -> None:
    write_png(masks / "cells.png", two_objects())
    label_map = learn(images, masks, MaskRules(instances_of="Cell"), BRUSH_ALONE)
    assert label_map[10, 10] == label_map[10, 25] == 2


def test_a_setup_of_outlines_gets_outlines(images: Path, masks: Path) -> None:
    write_png(masks / "cells.png", two_objects())
    label_map = learn(images, masks, MaskRules(), POLYGONS)
    wrong = (label_map == 1) != (two_objects() > 0)
    assert wrong.sum() < 40


def test_very_many_objects_share_regions_in_which_none_touch(images: Path, masks: Path) -> None:
    numbers = np.kron(np.arange(1, 401).reshape(20, 20), np.ones((2, 2), int)).astype(np.uint16)
    whole = np.zeros(SHAPE, np.uint16)
    whole[:, :40] = numbers
    cv2.imwrite(str(masks / "cells.png"), whole)
    kept = KeptUploads()
    bring_masks(images, masks, kept)
    regions = [entry for entry in kept.tasks[0]["annotations"][0]["result"] if entry["type"] != "choices"]
    assert len(regions) == 4
    assert MOST_REGIONS < 400


def test_slices_have_the_slices_of_their_mask(images: Path, masks: Path) -> None:
    (images / "cells.tif").unlink()
    tifffile.imwrite(images / "film.tif", noise(3, *SHAPE), imagej=True, metadata={"axes": "ZYX"})
    stack = np.zeros((3, *SHAPE), np.uint16)
    stack[2, 5:9, 5:9] = 1
    tifffile.imwrite(masks / "film.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    kept = KeptUploads()
    assert bring_masks(images, masks, kept).n_masks == 3
    by_name = {task["data"]["name"]: truth(task) for task in kept.tasks}
    assert (by_name["film-z02"] == 1).sum() == 16
    assert (by_name["film-z01"] == 0).all()


def test_tiles_have_their_part_of_the_mask(images: Path, masks: Path) -> None:
    numbers = np.zeros((300, 200), np.uint8)
    numbers[100:180, 50:90] = 1
    tifffile.imwrite(images / "cells.tif", noise(300, 200))
    write_png(masks / "cells.png", numbers)
    kept = KeptUploads()
    bring_masks(images, masks, kept, tile_px=128)
    seen = np.zeros((300, 200), np.uint8)
    for task in kept.tasks:
        words = task["data"]["tile"].split()
        top, left = int(words[1]), int(words[3])
        shape = (min(128, 300 - top), min(128, 200 - left))
        seen[top : top + shape[0], left : left + shape[1]] = truth(task, shape=shape)
    assert np.array_equal(seen, numbers)


def test_a_mask_reaches_a_task_that_is_there_and_nobody_annotated(images: Path, masks: Path) -> None:
    kept = KeptUploads()
    bring_masks(images, masks, kept)
    assert "annotations" not in kept.tasks[0]
    write_png(masks / "cells.png", two_objects())
    assert bring_masks(images, masks, kept).n_masks == 1
    assert bring_masks(images, masks, kept).n_masks == 0
    assert len(kept.tasks) == 1
    assert len(kept.tasks[0]["annotations"]) == 1


def packed_runs(mask: np.ndarray) -> dict[str, Any]:
    coco_masks = pytest.importorskip("pycocotools.mask")
    encoded = coco_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


@pytest.mark.parametrize("encode", [plain_runs, packed_runs])
@pytest.mark.parametrize("seed", range(4))
def test_run_lengths_of_coco_say_the_same_pixels(
    images: Path, masks: Path, encode: Callable[[np.ndarray], Any], seed: int
) -> None:
    mask = cv2.blur(np.random.default_rng(seed).random(SHAPE), (9, 9)) > 0.5
    (masks / "instances.json").write_text(json.dumps(coco([encode(mask)])))
    assert np.array_equal(learn(images, masks), mask.astype(np.uint8))


def test_polygons_of_coco_are_filled_and_crowds_are_not_known(images: Path, masks: Path) -> None:
    crowd = np.zeros(SHAPE, bool)
    crowd[30:, :] = True
    document = coco([[[5, 5, 20, 5, 20, 20, 5, 20]], plain_runs(crowd)])
    document["annotations"][1]["iscrowd"] = 1
    (masks / "instances.json").write_text(json.dumps(document))
    label_map = learn(images, masks)
    assert (label_map[5:20, 5:20] == 1).all()
    assert (label_map[30:] == IGNORE_INDEX).all()
    assert (label_map == 1).sum() == 225


def test_an_export_of_label_studio_comes_in_as_it_is(images: Path, masks: Path) -> None:
    write_png(masks / "cells.png", two_objects())
    first = KeptUploads()
    bring_masks(images, masks, first)
    (masks / "cells.png").unlink()
    (masks / "export.json").write_text(json.dumps(first.tasks))
    kept = KeptUploads()
    assert bring_masks(images, masks, kept).n_masks == 1
    assert np.array_equal(truth(kept.tasks[0]), truth(first.tasks[0]))


def annotated(name: str, *brushes: tuple[str, tuple[slice, slice]], **data: str) -> dict[str, Any]:
    """A task of an export: one annotation per class and box, the first one the oldest."""
    annotations = []
    for number, (label, box) in enumerate(brushes):
        mask = np.zeros(SHAPE, bool)
        mask[box] = True
        shown = SuggestedMask(CONFIG.schema.index_of(label) or 0, mask, 0, 0, 1.0)
        made = to_annotation([shown], CONFIG, SHAPE, f"{name}{number}", "", is_reviewed=False)
        annotations.append(made | {"updated_at": f"2026-01-0{number + 1}T10:00:00Z"})
    return {"data": {"image": f"/data/upload/1/0a1b2c3d-{name}", **data}, "annotations": annotations}


LEFT, MIDDLE = np.s_[:20, :25], np.s_[:20, 10:35]


def export_to(path: Path, *tasks: dict[str, Any]) -> None:
    path.write_text(json.dumps(tasks))


def combined(task: dict[str, Any]) -> np.ndarray:
    """What the worker makes of all annotations of one person, as it gets them."""
    paintings = [parse_painting(one["result"], CONFIG, SHAPE) for one in task["annotations"]]
    return combine_paintings(paintings, (), CONFIG.schema, [None] * len(paintings)).label_map


def test_all_annotations_of_an_export_come_in_and_the_newest_counts(images: Path, masks: Path) -> None:
    task = annotated("cells.tif", ("Nucleus", LEFT), ("Background", MIDDLE))
    task["annotations"] = task["annotations"][::-1]  # Label Studio exports them in any order
    task["annotations"].append({"result": [{"broken": 1}], "was_cancelled": True})
    export_to(masks / "export.json", task)
    kept = KeptUploads()
    done = bring_masks(images, masks, kept)
    assert (done.n_masks, done.left_out) == (1, [])
    assert len(kept.tasks[0]["annotations"]) == 2
    ((file, remark),) = done.remarks
    assert file == "cells.tif"
    assert remark.startswith("export.json has 2 annotations of it")
    assert "delete in Label Studio" in remark
    label_map = combined(kept.tasks[0])
    assert (label_map[:20, :10] == 1).all()
    assert (label_map[MIDDLE] == 0).all()


def test_a_task_that_is_there_gets_all_annotations_too(images: Path, masks: Path) -> None:
    kept = KeptUploads()
    write_png(masks / "nothing.png", two_objects())
    bring_masks(images, masks, kept)
    export_to(masks / "a.json", annotated("cells.tif", ("Nucleus", LEFT), ("Background", MIDDLE)))
    assert bring_masks(images, masks, kept).n_masks == 1
    assert len(kept.tasks[0]["annotations"]) == 2


def test_one_unreadable_annotation_of_several_is_named(images: Path, masks: Path) -> None:
    task = annotated("cells.tif", ("Nucleus", LEFT), ("Nucleus", MIDDLE))
    task["annotations"][1]["result"][0]["value"]["rle"] = [1, 2]
    export_to(masks / "a.json", task)
    ((name, problem),) = bring_masks(images, masks, KeptUploads()).left_out
    assert name == "the mask of cells.tif"
    assert problem.startswith("a.json: annotation 2 of 2: ")


def test_two_tasks_of_one_image_are_not_guessed_between(images: Path, masks: Path) -> None:
    tasks = [annotated("cells.tif", ("Nucleus", LEFT)), annotated("cells.tif", ("Nucleus", MIDDLE))]
    export_to(masks / "a.json", *tasks)
    ((_, problem),) = bring_masks(images, masks, KeptUploads()).left_out
    assert problem.startswith("2 tasks of a.json are of cells.tif: keep the one that counts")
    export_to(masks / "a.json", tasks[0])
    export_to(masks / "b.json", tasks[1])
    ((_, problem),) = bring_masks(images, masks, KeptUploads()).left_out
    assert problem.startswith("2 tasks of a.json, b.json are of cells.tif")


def test_an_export_that_says_a_name_alone_is_not_given_to_two_images(images: Path, masks: Path) -> None:
    (images / "more").mkdir()
    tifffile.imwrite(images / "more" / "cells.tif", noise(*SHAPE) // 2)
    export_to(masks / "a.json", annotated("cells.tif", ("Nucleus", LEFT)))
    left_out = bring_masks(images, masks, KeptUploads()).left_out
    assert [name for name, _ in left_out] == ["the mask of cells.tif", "the mask of more/cells.tif"]
    assert all("several images here have that name" in problem for _, problem in left_out)
    export_to(masks / "a.json", annotated("cells.tif", ("Nucleus", LEFT), file="more/cells.tif"))
    kept = KeptUploads()
    assert bring_masks(images, masks, kept).left_out == []
    assert [("annotations" in task) for task in kept.tasks] == [False, True]


def test_slices_find_their_own_annotation_in_an_export_of_theirs(images: Path, masks: Path) -> None:
    (images / "cells.tif").unlink()
    tifffile.imwrite(images / "film.tif", noise(2, *SHAPE), imagej=True, metadata={"axes": "ZYX"})
    numbers = np.stack([two_objects(), two_objects() * 0])
    tifffile.imwrite(masks / "film.tif", numbers, imagej=True, metadata={"axes": "ZYX"})
    first = KeptUploads()
    bring_masks(images, masks, first)
    (masks / "film.tif").unlink()
    export_to(masks / "a.json", *first.tasks)
    kept = KeptUploads()
    done = bring_masks(images, masks, kept)
    assert (done.n_masks, done.left_out) == (2, [])
    for task, other in zip(kept.tasks, first.tasks, strict=True):
        assert np.array_equal(truth(task), truth(other))


def test_the_mask_of_an_image_that_is_there_twice_is_named(images: Path, masks: Path) -> None:
    (images / "copy.tif").write_bytes((images / "cells.tif").read_bytes())
    write_png(masks / "cells.png", two_objects())
    write_png(masks / "copy.png", two_objects()[::-1])
    ((name, problem),) = bring_masks(images, masks, KeptUploads()).left_out
    assert name == "the mask of copy.tif"
    assert "has the content of cells.tif" in problem


@pytest.mark.parametrize("name", ["cells.geojson", "cells.zip", "cells_mask.nrrd", "cells.txt"])
def test_a_file_of_an_images_name_that_is_no_mask_is_listed(images: Path, masks: Path, name: str) -> None:
    (masks / name).write_text("what another tool wrote")
    (masks / "README.md").write_text("about these masks")
    ((left_out, problem),) = bring_masks(images, masks, KeptUploads()).left_out
    assert left_out == name
    assert "save masks as PNG or TIFF" in problem


@pytest.mark.parametrize("source", ["masks", "masks/rois.roi"])
def test_a_place_without_any_mask_is_said(images: Path, masks: Path, source: str) -> None:
    (masks / "rois.roi").write_bytes(b"Iout")
    ((left_out, problem),) = bring_masks(images, masks.parent / source, KeptUploads()).left_out
    assert left_out == Path(source).name
    assert "there is no mask in it" in problem


def test_a_mask_of_a_name_in_another_case_is_told_which_image_it_may_mean(images: Path, masks: Path) -> None:
    write_png(masks / "CELLS.png", two_objects())
    ((_, problem),) = bring_masks(images, masks, KeptUploads()).left_out
    assert problem == "no image has its name, but one is called cells: write it alike"


def test_a_mask_that_several_images_may_mean_is_told_apart_by_its_folder(images: Path, masks: Path) -> None:
    (images / "more").mkdir()
    tifffile.imwrite(images / "more" / "cells.tif", noise(*SHAPE) // 2)
    (masks / "else").mkdir()
    write_png(masks / "else" / "cells.png", two_objects())
    ((name, problem),) = bring_masks(images, masks, KeptUploads()).left_out
    assert name == "else/cells.png"
    assert problem == "several images are called cells: put it into the folder of its image"


def test_two_names_of_one_category_or_value_are_not_chosen_between() -> None:
    categories = [{"id": 3, "name": "nucleus"}, {"id": 3, "name": "cell"}]
    with pytest.raises(ImageError, match="the category 3 two names, 'nucleus' and 'cell'"):
        parse_coco(coco([], categories=categories))
    with pytest.raises(ImageError, match="the value 1 is given two classes, Nucleus and Cell"):
        parse_labels("1=Nucleus, 1=Cell")


class Trap:
    """A pickle that says when it is opened."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (Path("opened"),)  # type: ignore[return-value]


def test_a_pickle_of_cellpose_is_never_opened(
    images: Path, masks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save(masks / "cells_seg.npy", np.array(Trap(), dtype=object), allow_pickle=True)
    done = bring_masks(images, masks, KeptUploads())
    assert done.left_out[0][0] == "cells_seg.npy"
    assert "save masks as PNG or TIFF" in done.left_out[0][1]
    assert not Path("opened").exists()
    write_png(masks / "cells_cp_masks.png", two_objects())
    assert bring_masks(images, masks, KeptUploads()).left_out == []


@pytest.mark.parametrize(
    ("name", "is_mask"),
    [("a_cp_masks.tif", True), ("a.ome.tif", False), ("a-label.png", True), ("maskless.png", False)],
)
def test_masks_beside_their_images_are_told_by_their_names(name: str, is_mask: bool) -> None:
    assert is_mask_name(Path(name)) == is_mask


def test_the_classes_of_coco_are_found_in_any_case() -> None:
    file = parse_coco(coco([[[5, 5, 20, 5, 20, 20]]]))
    content = file.read("cells.tif", LabelSchema.of("Background", "Nucleus"), partial=True)
    assert [one.class_index for one in content.objects] == [1]
    assert not content.ground.any()


@pytest.mark.parametrize("name", ["cells.tif", "images/cells.tif", "images\\cells.tif", "cells.png"])
def test_coco_finds_an_image_without_its_folder_and_ending(images: Path, masks: Path, name: str) -> None:
    image = {"id": 7, "file_name": name, "height": SHAPE[0], "width": SHAPE[1]}
    (masks / "a.json").write_text(json.dumps(coco([plain_runs(two_objects() > 0)], images=[image])))
    kept = KeptUploads()
    assert bring_masks(images, masks, kept).left_out == []
    assert "annotations" in kept.tasks[0]


@pytest.mark.parametrize("form", ["tiff", "coco"])
def test_a_mask_that_came_in_before_has_its_image_still(images: Path, masks: Path, form: str) -> None:
    if form == "tiff":
        tifffile.imwrite(masks / "cells.tif", two_objects())
    else:
        (masks / "a.json").write_text(json.dumps(coco([plain_runs(two_objects() > 0)])))
    kept = KeptUploads()
    assert bring_masks(images, masks, kept).n_masks == 1
    again = bring_masks(images, masks, kept)
    assert (again.n_tasks, again.n_masks, again.left_out) == (0, 0, [])


def test_sixty_five_thousand_objects_come_in_apart(images: Path, masks: Path) -> None:
    numbers = np.arange(256 * 256, dtype=np.uint16).reshape(256, 256)
    tifffile.imwrite(images / "cells.tif", numbers[::-1])
    tifffile.imwrite(masks / "cells.tif", numbers)
    kept = KeptUploads()
    assert bring_masks(images, masks, kept).left_out == []
    (annotation,) = kept.tasks[0]["annotations"]
    painting = parse_painting(annotation["result"], CONFIG, (256, 256))
    nuclei = [region for region in painting.regions if region.class_index == 1]
    assert sum(int(region.painted.sum()) for region in nuclei) == numbers.size - 1
