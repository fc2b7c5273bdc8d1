"""The errors that the learning core raises.

::

    BrushloopError
    ├── RLEError             a brush stream that is not legal for its image
    ├── SchemaError          a set of classes that cannot be learnt
    ├── ImageError           an image that cannot be read, or is larger than allowed
    ├── TrainingError        a round that cannot give a model
    │   ├── NotEnoughTruthError   fewer than two classes have annotated pixels
    │   ├── NonFiniteLossError    the loss stopped being a number
    │   └── RoundCancelledError   somebody asked the round to stop
    ├── DeviceError          a device to compute on that is not there
    ├── EncoderError         an encoder of another library that cannot be had
    ├── CheckpointError      weights on disk that do not fit their record
    └── MachineError         trouble of the machine, not of the truth: the same may work later
        ├── OutOfMemoryError      it may work later, or with less
        └── ImageUnavailableError an image that cannot be had now; an ImageError too

The service adds its own below the same root, in `ml_backend/errors.py`.
"""

from __future__ import annotations


class BrushloopError(Exception):
    """Anything that is wrong with what Brushloop was given; the message says what and where."""


class RLEError(BrushloopError):
    """A brush stream that is truncated, oversized or does not fit its image."""


class SchemaError(BrushloopError):
    """A set of classes that cannot be learnt: none, too many, doubled, or two backgrounds."""


class ImageError(BrushloopError):
    """An image that cannot be read, has an unknown layout, or is larger than allowed."""


class TrainingError(BrushloopError):
    """A round that cannot give a model."""


class NotEnoughTruthError(TrainingError):
    """Fewer than two classes have annotated pixels."""


class NonFiniteLossError(TrainingError):
    """The loss became NaN or infinite and could not be recovered."""


class RoundCancelledError(TrainingError):
    """The round was asked to stop; the current model stays."""


class DeviceError(BrushloopError):
    """A device to compute on that torch does not know or cannot reach."""


class EncoderError(BrushloopError):
    """An encoder of timm's that is not installed, not known, or gives no feature maps."""


class CheckpointError(BrushloopError):
    """Weights on disk that are missing, damaged, or do not fit their record."""


class MachineError(BrushloopError):
    """Disk, memory, network or another process stood in the way; the same call may work later."""


class OutOfMemoryError(MachineError):
    """Memory ran out; the same may work later, or with less at once."""


class ImageUnavailableError(MachineError, ImageError):
    """An image whose server cannot be reached or fails: nobody knows whether the image is good."""
