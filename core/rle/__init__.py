"""Label Studio's brush stream to an alpha mask, and back: `rle.decode`, `rle.encode`."""

from core.rle.stream import (
    Header,
    Stream,
    check_header,
    decode,
    decode_box,
    encode,
    read_header,
    warm_up,
)

__all__ = ["Header", "Stream", "check_header", "decode", "decode_box", "encode", "read_header", "warm_up"]
