"""The encoder's maps of whole images: cut where they are needed, kept by content, the same whoever asks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from core.network import feature_maps
from core.network.encoder import STRIDE, STRIDES, WIDTHS
from core.network.feature_maps import FeatureMaps
from core.network.map_stores import KeepsNothing, KeptInMemory, Map
from core.network.pixels import PixelStatistics

GREY = PixelStatistics((100.0,), (40.0,))


def _image(height: int, width: int, n_channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, n_channels), np.uint8)


class CountingStore(KeptInMemory):
    def __init__(self) -> None:
        super().__init__()
        self.saved: list[str] = []

    def save(self, name: str, maps: Sequence[Map]) -> None:
        self.saved.append(name)
        super().save(name, maps)


def test_the_maps_of_a_window_have_the_encoders_widths_and_strides() -> None:
    maps = FeatureMaps(GREY).window(_image(70, 100), (slice(0, 70), slice(32, 100)))
    assert [found.shape for found in maps] == [
        (width, 96 // stride, 96 // stride) for width, stride in zip(WIDTHS, STRIDES, strict=True)
    ]
    assert {found.dtype for found in maps} == {torch.float16}


def test_a_window_is_a_part_of_the_whole() -> None:
    maps, image = FeatureMaps(GREY), _image(96, 128)
    whole = maps.window(image, (slice(0, 96), slice(0, 128)))
    part = maps.window(image, (slice(32, 64), slice(64, 128)))
    for all_of_it, some, stride in zip(whole, part, STRIDES, strict=True):
        cut = all_of_it[:, 32 // stride : 64 // stride, 64 // stride : 128 // stride]
        assert (cut == some).all()


def test_a_window_across_tiles_is_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    image, everything = _image(96, 160), (slice(0, 96), slice(0, 160))
    at_once = FeatureMaps(GREY).window(image, everything)
    monkeypatch.setattr(feature_maps, "TILE_PX", 64)
    in_tiles = FeatureMaps(GREY).window(image, everything)
    for one, other in zip(at_once, in_tiles, strict=True):
        assert one.shape == other.shape
        # The margin reaches over all of this small image, so only rounding differs.
        exact = one.double()
        assert (exact - other.double()).abs().max() < 0.02 * exact.std() + 0.02


def test_maps_that_are_kept_are_not_computed_again_and_those_of_another_image_are() -> None:
    store, image = CountingStore(), _image(64, 64)
    window = (slice(0, 32), slice(0, 32))
    for _ in range(2):
        FeatureMaps(GREY, store).window(image, window)
    assert len(store.saved) == 1
    FeatureMaps(GREY, store).window(image + 1, window)
    FeatureMaps(PixelStatistics((90.0,), (40.0,)), store).window(image, window)
    assert len(set(store.saved)) == 3


def test_what_a_store_has_lost_is_made_again_alike() -> None:
    image, window = _image(64, 64), (slice(0, 64), slice(0, 64))
    first = FeatureMaps(GREY, KeptInMemory()).window(image, window)
    again = FeatureMaps(GREY, KeptInMemory()).window(image, window)
    assert all((one == other).all() for one, other in zip(first, again, strict=True))


def test_memory_keeps_the_latest_maps_within_its_limit() -> None:
    store = KeptInMemory(limit_bytes=100)
    maps = [np.zeros((1, 5, 5), np.float16)]  # 50 bytes
    for name in ("a", "b"):
        store.save(name, maps)
    assert store.load("a") is not None
    store.save("c", maps)
    assert store.load("b") is None
    assert store.load("a") is not None
    assert store.load("c") is not None


@pytest.mark.parametrize("n_channels", [2, 5])
def test_the_last_channel_of_many_changes_the_maps(n_channels: int) -> None:
    statistics = PixelStatistics((100.0,) * n_channels, (40.0,) * n_channels)
    image = _image(STRIDE, STRIDE, n_channels)
    changed = image.copy()
    changed[..., -1] = 255 - changed[..., -1]
    window = (slice(0, STRIDE), slice(0, STRIDE))
    one, other = (FeatureMaps(statistics).window(pixels, window)[-1] for pixels in (image, changed))
    assert (one != other).any()


def test_sixteen_bits_of_the_same_picture_give_nearly_the_same_maps() -> None:
    image, window = _image(64, 64), (slice(0, 64), slice(0, 64))
    deep = PixelStatistics((100.0 * 257,), (40.0 * 257,))
    one = FeatureMaps(GREY).window(image, window)[-1].double()
    other = FeatureMaps(deep).window(image.astype(np.uint16) * 257, window)[-1].double()
    assert (one - other).abs().max() < 0.05


def test_an_image_of_many_tiles_is_looked_at_once_and_then_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_maps, "TILE_PX", 64)
    maps, image = FeatureMaps(GREY, KeepsNothing(), seen_bytes=10**7), _image(192, 192)
    looks: list[int] = []
    compute = maps._compute
    monkeypatch.setattr(maps, "_compute", lambda pixels, tile: (looks.append(1), compute(pixels, tile))[1])
    for top in range(0, 192, 32):
        for left in range(0, 192, 32):
            window = [slice(max(first - 32, 0), min(first + 64, 192)) for first in (top, left)]
            maps.window(image, (window[0], window[1]))
    assert len(looks) == 9
    maps.forget(image)
    maps.window(image, (slice(0, 32), slice(0, 32)))
    assert len(looks) == 10


def test_tiles_that_wait_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_maps, "TILE_PX", 32)
    maps, image = FeatureMaps(GREY, KeepsNothing(), seen_bytes=1), _image(64, 64)
    whole = (slice(0, 64), slice(0, 64))
    first = maps.window(image, whole)
    assert len(maps._seen._kept) == 1
    assert all(torch.equal(one, other) for one, other in zip(first, maps.window(image, whole), strict=True))
