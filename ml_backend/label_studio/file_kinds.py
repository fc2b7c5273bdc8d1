"""What a file is, by its first bytes: for the message when it came instead of an image that can be read."""

from __future__ import annotations

import re

HTML, XML = "an HTML page, maybe to sign in", "an XML document, maybe a storage's error"
JSON = "a JSON document"

SPOKEN = (HTML, XML, JSON)
"""What servers and proxies say in the place of an image, although they answer 200: tomorrow it may come."""

KINDS: tuple[tuple[re.Pattern[bytes], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), name)
    for pattern, name in (
        (
            rb"\s*(<\?xml[^>]*>)?\s*(<!--.{0,500}?-->\s*)*(<!doctype svg[^>]*>\s*)?<svg[\s/>]",
            "an SVG drawing",
        ),
        (
            rb"\s*(<!--.{0,500}?-->\s*)*<(!doctype html|html|head|body|title)\b",
            HTML,
        ),
        (rb"\s*<\?xml|\s*<Error>", XML),
        (rb"\s*[{\[]", JSON),
        (rb"%PDF-", "a PDF document"),
        (rb"....ftyp(heic|heix|heim|heis|hevc|mif1|msf1)", "an HEIC photograph"),
        (rb"\xff\x0a|\0\0\0\x0cJXL ", "a JPEG XL image"),
        (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 image"),
        (rb".{128}DICM", "a DICOM file"),
        (rb"ZISRAWFILE", "a CZI file"),
        (rb"\xda\xce\xbe\x0a", "an ND2 file"),
        (rb"\x89HDF", "an HDF5 file"),
        (rb"\x93NUMPY", "a NumPy file"),
        (rb"PK\x03\x04", "a ZIP archive"),
        (rb"\x1f\x8b", "a gzip archive"),
        (rb"....ftyp|\x1aE\xdf\xa3", "a video"),
        (rb"version https://git-lfs", "a Git LFS pointer, and not the file that it points to"),
    )
)

START_BYTES = 1024
"""As much of a file as these patterns read."""

READ_HERE = "PNG, JPEG, WebP, AVIF, BMP, GIF and TIFF are read"


def describe_kind(start: bytes) -> str:
    """Name what a file with these first bytes is, for a sentence like "it is …".

    Examples
    --------
    >>> describe_kind(b"<!doctype html><title>Sign in</title>")
    'an HTML page, maybe to sign in'
    >>> describe_kind(b"hello")
    'of no format that is known here'
    """
    start = start[:START_BYTES].removeprefix(b"\xef\xbb\xbf")
    return next((name for pattern, name in KINDS if pattern.match(start)), "of no format that is known here")
