"""What answers prompts in an image: the service's way with a model or without, or another method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.annotator import SCHEMA
from bench.click_prompts import Answer
from core.network.predict import Predictor
from core.painting import Mask
from core.prompts.lab_colours import to_colours
from core.prompts.prompt import Known, Prompt
from core.prompts.segment import segment
from ml_backend.suggestions.seen_images import Look, known_of, look_of_model


def look_at(image: NDArray[Any], predictor: Predictor | None) -> tuple[Look, Known]:
    """What the service has seen in an image, and what is known of the class that is asked for."""
    model = None
    if predictor is not None:
        seen = predictor.predict(image, n_augmentations=1, keep_details=False)
        model = look_of_model(predictor.checkpoint, seen)
    look = Look(to_colours(image), model)
    return look, known_of(look, SCHEMA.names[1], np.zeros(image.shape[:2], bool))


def prompted(look: Look, known: Known) -> Answer:
    """Answer as the service does, once it has seen the image."""

    def answer(prompt: Prompt) -> Mask:
        mask = np.zeros(look.colours.shape[:2], bool)
        found = segment(look.colours, prompt, known)
        if found is not None:
            mask[found.box.slices] = found.mask
        return mask

    return answer


def baseline(image: NDArray[Any], method: Callable[[NDArray[np.uint8], Prompt], Mask]) -> Answer:
    low, high = np.percentile(image, [0.5, 99.5])
    stretched = np.clip((image.astype(np.float32) - low) / max(high - low, 1e-6) * 255, 0, 255)
    picture = np.ascontiguousarray(np.broadcast_to(stretched[..., :3], (*image.shape[:2], 3)), np.uint8)
    return lambda prompt: method(picture, prompt)
