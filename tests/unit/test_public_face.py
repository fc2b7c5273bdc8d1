"""What `import brushloop` promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from bright_model import bright_is_nucleus, save_bright_model

import brushloop
from core.network.device import choose_compute
from core.network.predict import Predictor

SLOW_TO_IMPORT = {"torch", "numba", "cv2", "scipy", "flask", "sqlalchemy", "pydantic"}


def _two_squares() -> np.ndarray[Any, np.dtype[np.uint8]]:
    image = np.zeros((60, 90), np.uint8)
    image[10:30, 10:30] = image[20:40, 50:70] = 250
    return image


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bright_model(tmp_path_factory.mktemp("models"))


def test_importing_it_loads_nothing_that_is_slow() -> None:
    script = "import sys, brushloop; sys.stdout.write(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert not SLOW_TO_IMPORT & set(loaded.stdout.split())


def test_every_name_is_exported_and_explained() -> None:
    for name in brushloop.__all__:
        value = getattr(brushloop, name)
        assert isinstance(value, int) or value.__doc__
    # A module becomes a name of its package as soon as something imports it.
    public = {
        name
        for name, value in vars(brushloop).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert public == set(brushloop.__all__)


def test_a_model_finds_what_it_was_taught_as_arrays(folder: Path) -> None:
    image = _two_squares()
    model = brushloop.load_model(str(folder), n_threads=1)
    seen = model.predict(image)
    assert model.classes == ("Background", "Nucleus")
    assert not model.is_draft
    np.testing.assert_array_equal(seen.label_map == 1, image > 0)
    assert np.unique(seen.objects).tolist() == [0, 1, 2]
    np.testing.assert_array_equal(seen.objects > 0, image > 0)
    assert seen.confidence.min() > 0.99
    assert 0 <= seen.uncertainty.min() <= seen.uncertainty.max() < 0.1
    types = [values.dtype for values in (seen.label_map, seen.objects, seen.confidence, seen.uncertainty)]
    assert types == [np.uint8, np.int32, np.float32, np.float32]


def test_it_answers_as_the_service_does(folder: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (70, 50, 1), np.uint8)
    served = Predictor(bright_is_nucleus(), compute=choose_compute("cpu")).predict(image, keep_details=False)
    seen = brushloop.load_model(folder).predict(image)
    np.testing.assert_array_equal(seen.label_map, served.label_map)
    np.testing.assert_array_equal(seen.confidence, served.confidence)
    np.testing.assert_array_equal(seen.uncertainty, served.predictive_entropy)


def test_a_grey_image_needs_no_third_axis(folder: Path) -> None:
    model, image = brushloop.load_model(folder), _two_squares()
    np.testing.assert_array_equal(model.predict(image).label_map, model.predict(image[..., None]).label_map)


@pytest.mark.parametrize("shape", [(5,), (1, 5, 5, 1), (0, 5), (5, 5, 0)])
def test_what_is_no_image_is_refused(folder: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(brushloop.ImageError):
        brushloop.load_model(folder).predict(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("kind", [np.float32, np.int64, np.bool_])
def test_scaled_pixels_are_refused_instead_of_misread(folder: Path, kind: Any) -> None:
    with pytest.raises(brushloop.ImageError, match="uint8 or uint16"):
        brushloop.load_model(folder).predict(np.zeros((8, 8), kind))


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(brushloop.CheckpointError, match="nowhere"):
        brushloop.load_model(tmp_path / "nowhere")


def test_a_device_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(brushloop.DeviceError):
        brushloop.load_model(folder, device="abacus")


def test_a_mask_survives_the_brush_format() -> None:
    mask = np.random.default_rng(1).random((13, 17)) > 0.5
    stream = brushloop.encode_rle(mask)
    np.testing.assert_array_equal(brushloop.decode_rle(stream, mask.shape) > 0, mask)


def test_types_are_shipped() -> None:
    assert (Path(brushloop.__file__).parent / "py.typed").is_file()


class Lazy:
    """An array of another library: it has no methods of numpy's, and counts what is read."""

    def __init__(self, values: Any) -> None:
        self.values = values
        self.shape, self.ndim, self.dtype = values.shape, values.ndim, values.dtype
        self.largest_px = 0

    def __getitem__(self, part: Any) -> Any:
        found = self.values[part]
        self.largest_px = max(self.largest_px, found.shape[0] * found.shape[1])
        return memoryview(np.ascontiguousarray(found))  # what numpy can read, and nothing more


def _join(model: brushloop.Model, image: Any) -> tuple[Any, Any, Any]:
    shape = image.shape[:2]
    maps = np.full(shape, 9, np.uint8), np.full(shape, -1, np.float32), np.full(shape, -1, np.float32)
    for tile in model.predict_tiled(image):
        for whole, said in zip(maps, (tile.label_map, tile.confidence, tile.uncertainty), strict=True):
            assert (whole[tile.rows, tile.columns] == (9 if whole.dtype == np.uint8 else -1)).all()
            whole[tile.rows, tile.columns] = said
    return maps


def test_tiles_of_an_array_of_any_library_say_what_the_whole_image_gets(folder: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (530, 1100), np.uint8)
    lazy = Lazy(image)
    model = brushloop.load_model(folder, n_threads=1)
    seen = model.predict(image)
    label_map, confidence, uncertainty = _join(model, lazy)
    np.testing.assert_array_equal(label_map, seen.label_map)
    np.testing.assert_array_equal(confidence, seen.confidence)
    np.testing.assert_array_equal(uncertainty, seen.uncertainty)
    assert lazy.largest_px < image.size / 1.5


@pytest.mark.parametrize("shape", [(5,), (0, 5), (40, 40, 2, 1)])
def test_what_is_no_image_is_refused_before_the_first_tile(folder: Path, shape: tuple[int, ...]) -> None:
    model = brushloop.load_model(folder, n_threads=1)
    with pytest.raises(brushloop.ImageError):
        next(model.predict_tiled(np.zeros(shape, np.uint8)))


def test_more_channels_than_a_model_reads_are_refused_where_they_cannot_be_averaged(folder: Path) -> None:
    model = brushloop.load_model(folder, n_threads=1)
    with pytest.raises(brushloop.ImageError, match="reads 1 channels, the image has 3"):
        next(model.predict_tiled(np.zeros((40, 40, 3), np.uint8)))
