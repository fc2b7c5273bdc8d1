"""What `napari.yaml` names: a trained model as a widget of napari, which needs nothing of napari itself.

napari builds the form from the annotations, and shows the layers that come back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from brushloop.model import load_model

LayerData = tuple[Any, dict[str, Any], str]
"""Values, properties and kind of a layer, as napari exchanges them."""


def segment(
    image: "napari.types.ImageData",  # type: ignore[name-defined] # noqa: F821, UP037 - napari looks it up
    model: Path = Path(),
    uncertainty: bool = False,
) -> "list[napari.types.LayerDataTuple]":  # type: ignore[name-defined] # noqa: F821, UP037
    """Segment an image layer `(H, W)` or `(H, W, C)`, uint8 or uint16, with the model in a folder.

    Gives a layer of objects, one of classes, and one of uncertainty where that is wanted.

    Raises
    ------
    ImageError, CheckpointError
        As `brushloop.load_model` and `Model.predict` say.
    """
    loaded = load_model(model)
    seen = loaded.predict(image)
    names = dict(enumerate(loaded.classes))
    layers: list[LayerData] = [
        (seen.label_map, {"name": "classes", "visible": False, "metadata": {"classes": names}}, "labels"),
        (seen.objects, {"name": "objects"}, "labels"),
    ]
    if uncertainty:
        layers.insert(0, (seen.uncertainty, {"name": "uncertainty", "colormap": "inferno"}, "image"))
    return layers
