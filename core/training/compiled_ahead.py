"""Import this where training processes are forked from: a draft has no seconds to load and compile in.

scikit-learn takes a second to import, compiled loops half a second to load from their cache, and OpenVINO as
long to read the encoder.
"""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from core.errors import DeviceError
from core.learners.forest_growth import train_forest
from core.learners.pixel_features import pixel_features
from core.network.encoder_copies import SHIPPED
from core.threads import torch_threads

SIDE_PX = 32


def grow_a_forest() -> None:
    """Go through all that a forest of a real image goes through, once."""
    image = np.random.default_rng(0).integers(0, 255, (SIDE_PX, SIDE_PX, 1), np.uint8)
    rows = pixel_features(image).reshape(SIDE_PX * SIDE_PX, -1)
    forest = train_forest(rows, (image.reshape(-1) > 127).astype(np.uint8), 2, seed=0, n_trees=1)
    forest.probabilities(rows)


def read_the_encoder() -> None:
    """Not compiled, and by one thread: what is forked would wait for ever for threads that it has not got."""
    with suppress(DeviceError), torch_threads(1):
        SHIPPED.follow()


grow_a_forest()
read_the_encoder()
