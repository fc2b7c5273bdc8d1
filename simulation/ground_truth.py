"""A folder of images whose objects are known: `NAME.png` with a 16-bit `NAME_instances.png`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from core.errors import BrushloopError
from core.schema import LabelSchema
from core.synthetic import Kind, make_image
from simulation.perception import DenseTruth

SCHEMA = LabelSchema.of("Background", "Object")
OBJECT = 1

SUFFIX = "_instances"

DEMO_KIND: Kind = "tissue"
DEMO_IMAGES, DEMO_TEST_IMAGES = 24, 8
DEMO_SHAPE = (256, 256)
DEMO_SEED = 11


class StudyError(BrushloopError):
    """A folder that a study cannot work with; the message says what is wrong with it."""


@dataclass(frozen=True)
class KnownImage:
    """An image `(H, W, C)` with the objects that are really in it."""

    name: str
    image: NDArray[Any]
    truth: DenseTruth

    @property
    def shape(self) -> tuple[int, int]:
        height, width = self.truth.instances.shape
        return height, width


def load_study(folder: Path, test_share: float) -> tuple[list[KnownImage], list[KnownImage]]:
    """The images to annotate and those that only measure.

    With a folder `test` inside, that one measures and the rest, or `pool`, is annotated. Else a share of the
    images is taken for testing, the same ones every time.
    """
    if (folder / "test").is_dir():
        pool = folder / "pool" if (folder / "pool").is_dir() else folder
        return load_images(pool), load_images(folder / "test")
    images = load_images(folder)
    n_test = max(1, round(test_share * len(images)))
    if len(images) - n_test < 1:
        raise StudyError(
            f"{folder} has {len(images)} images; a study needs some to annotate and some to test"
        )
    order = np.random.default_rng(0).permutation(len(images))
    tested = {int(index) for index in order[:n_test]}
    return (
        [image for index, image in enumerate(images) if index not in tested],
        [image for index, image in enumerate(images) if index in tested],
    )


def load_images(folder: Path) -> list[KnownImage]:
    """Read every `NAME.png` that has a `NAME_instances.png`; grey pictures get one channel."""
    paths = sorted(path for path in folder.glob("*.png") if not path.stem.endswith(SUFFIX))
    images = [_load(path) for path in paths if _truth_of(path).exists()]
    if not images:
        raise StudyError(f"{folder} has no NAME.png with a NAME{SUFFIX}.png beside it")
    channels = {image.image.shape[2] for image in images}
    if len(channels) > 1:
        raise StudyError(f"the images in {folder} have different numbers of channels: {sorted(channels)}")
    return images


def write_demo(folder: Path) -> Path:
    """Fill a folder with generated images and their objects, the same ones every time."""
    for part, n_images, number in (("pool", DEMO_IMAGES, 0), ("test", DEMO_TEST_IMAGES, 1)):
        rng = np.random.default_rng((DEMO_SEED, number))
        (folder / part).mkdir(parents=True, exist_ok=True)
        for index in range(n_images):
            image, instances = make_image(DEMO_KIND, rng, DEMO_SHAPE)
            path = folder / part / f"{DEMO_KIND}-{index + 1:02d}.png"
            _write(path, np.ascontiguousarray(image[..., ::-1]))  # OpenCV writes BGR
            _write(_truth_of(path), instances.astype(np.uint16))
    return folder


def describe(pool: Sequence[KnownImage], test: Sequence[KnownImage]) -> str:
    """`24 images with 580 objects to annotate, 8 with 190 to test`"""
    of_pool, of_test = (sum(len(image.truth.class_of) for image in part) for part in (pool, test))
    return f"{len(pool)} images with {of_pool} objects to annotate, {len(test)} with {of_test} to test"


def _truth_of(path: Path) -> Path:
    return path.with_name(f"{path.stem}{SUFFIX}.png")


def _load(path: Path) -> KnownImage:
    image, instances = _read(path), _read(_truth_of(path))
    if image.ndim == 3:
        image = np.ascontiguousarray(image[..., 2::-1])  # to RGB, without alpha
        image = image[..., :1] if (image == image[..., :1]).all() else image
    if instances.ndim != 2 or instances.shape != image.shape[:2]:
        raise StudyError(f"{_truth_of(path)} is {instances.shape}, its image {image.shape[:2]}")
    truth = DenseTruth.of_one_class(instances.astype(np.int32), OBJECT)
    return KnownImage(path.stem, np.atleast_3d(image), truth)


def _read(path: Path) -> NDArray[Any]:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise StudyError(f"{path} is not an image that can be read")
    return np.asarray(image)


def _write(path: Path, image: NDArray[Any]) -> None:
    _, encoded = cv2.imencode(".png", image)
    path.write_bytes(encoded.tobytes())
