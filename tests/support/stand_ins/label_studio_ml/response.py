"""`ModelResponse`: predictions, checked by the types of Label Studio's SDK."""

from __future__ import annotations

from label_studio_sdk.label_interface.objects import PredictionValue
from pydantic import BaseModel, ConfigDict


class ModelResponse(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    model_version: str | None = None
    predictions: list[list[PredictionValue] | PredictionValue]

    def has_model_version(self) -> bool:
        return bool(self.model_version)

    def update_predictions_version(self) -> None:
        for prediction in self.predictions:
            for one in prediction if isinstance(prediction, list) else [prediction]:
                one.model_version = one.model_version or self.model_version

    def set_version(self, version: str) -> None:
        self.model_version = version
        self.update_predictions_version()
