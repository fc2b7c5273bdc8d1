"""Files of microscope makers and hospitals, written for tests: CZI, LIF and DICOM."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
import pytest
from kept_uploads import noise

STACK = noise(2, 3, 40, 50)
"""Two channels, three slices."""


def write_czi(path: Path, compression: str, planes: np.ndarray = STACK) -> None:
    czi = pytest.importorskip("pylibCZIrw.czi")
    with czi.create_czi(str(path), compression_options=compression) as document:
        for channel, slices in enumerate(planes):
            for z, plane in enumerate(slices):
                document.write(data=plane[:, :, np.newaxis], plane={"C": channel, "Z": z, "T": 0})
        document.write_metadata("cells", channel_names={0: "DAPI", 1: "GFP"})


def write_lif(path: Path, planes: np.ndarray) -> None:
    """Leica's layout, by hand: XML in UTF-16, then a block of memory. 16 bits, `(C, Z, Y, X)`."""
    n_channels, n_slices, height, width = planes.shape
    page, plane = height * width * 2, height * width * 2 * n_slices
    channels = "".join(
        f'<ChannelDescription DataType="0" ChannelTag="0" Resolution="16" NameOfMeasuredQuantity="" Min="0" '
        f'Max="65535" Unit="" LUTName="Green" IsLUTInverted="0" BytesInc="{plane * index}" BitInc="0"/>'
        for index in range(n_channels)
    )
    dimensions = "".join(
        f'<DimensionDescription DimID="{axis}" NumberOfElements="{size}" Origin="0" Length="1e-5" Unit="m" '
        f'BitInc="0" BytesInc="{step}"/>'
        for axis, size, step in ((1, width, 2), (2, height, width * 2), (3, n_slices, page))
    )
    name = quoteattr("well")
    xml = (
        f'<LMSDataContainerHeader Version="2"><Element Name="root" Visibility="1"><Data/><Memory Size="0" '
        f'MemoryBlockID="MemBlock_0"/><Children><Element Name={name} Visibility="1"><Data><Image>'
        f"<ImageDescription><Channels>{channels}</Channels><Dimensions>{dimensions}</Dimensions>"
        f'</ImageDescription></Image></Data><Memory Size="{planes.nbytes}" MemoryBlockID="MemBlock_1"/>'
        "<Children/></Element></Children></Element></LMSDataContainerHeader>"
    )
    text = xml.encode("utf-16-le")
    head = struct.pack("<IIBI", 0x70, 5 + len(text), 0x2A, len(text) // 2) + text
    block = "MemBlock_1".encode("utf-16-le")
    memory = struct.pack("<IIBQBI", 0x70, 14 + len(block), 0x2A, planes.nbytes, 0x2A, len(block) // 2) + block
    path.write_bytes(head + memory + planes.tobytes())


def write_dicom(path: Path, pixels: np.ndarray, **fields: Any) -> None:
    pydicom = pytest.importorskip("pydicom")
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, int(pixels.dtype.kind == "i")
    for name, value in fields.items():
        setattr(dataset, name, value)
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(path, enforce_file_format=True)
