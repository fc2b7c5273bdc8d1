"""Images for a first try, drawn by the generator: nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from core.synthetic import make_image

TITLE = "Brushloop demo"
N_IMAGES = 24
SHAPE = (288, 288)
N_OBJECTS = 14
SEED = 7


def write_demo_images(folder: Path, n_images: int = N_IMAGES) -> Path:
    """Fill a folder with tissue-like images, the same ones every time; what is there stays."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(n_images):
        path = folder / f"tissue-{index + 1:02d}.png"
        if not path.exists():
            image, _ = make_image("tissue", np.random.default_rng((SEED, index)), SHAPE, N_OBJECTS)
            _, encoded = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
            path.write_bytes(encoded.tobytes())
    return folder
