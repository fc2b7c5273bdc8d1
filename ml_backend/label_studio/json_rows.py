"""Rows of JSON in bodies of a bounded size."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def batch_rows(rows: Iterable[Mapping[str, Any]], most: int, most_bytes: int) -> Iterator[list[bytes]]:
    """Encode rows, up to `most` of them or `most_bytes` together; a larger one goes alone.

    >>> list(batch_rows([{"a": 1}, {"a": 2}, {"a": 3}], 2, 100))
    [[b'{"a": 1}', b'{"a": 2}'], [b'{"a": 3}']]
    """
    batch: list[bytes] = []
    n_bytes = 0
    for row in rows:
        encoded = json.dumps(row, allow_nan=False).encode()
        if batch and (len(batch) == most or n_bytes + len(encoded) > most_bytes):
            yield batch
            batch, n_bytes = [], 0
        batch.append(encoded)
        n_bytes += len(encoded)
    if batch:
        yield batch
