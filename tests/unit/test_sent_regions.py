"""Of what was sent, only that is read which an annotation can refer to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from loop_fakes import make_bench

from ml_backend.ports import SentRegion
from ml_backend.storage import sent_regions


def test_only_the_versions_that_an_annotation_names_are_read(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    mask = np.ones((2, 2), bool)
    with bench.parts.database.write() as connection:
        for number in range(5):
            sent = [SentRegion(f"{part}{number}", "Nucleus", f"v{number}", 0, 0, mask) for part in "ab"]
            sent_regions.save_sent(connection, 1, 7, sent, float(number))
        named = sent_regions.list_sent(connection, 1, 7, {"a1", "unknown"}, {"v3"})
        assert [region.region_id for region in named] == ["a1", "b1", "a3", "b3"]
        assert sent_regions.list_sent(connection, 1, 7, set()) == []
        assert len(sent_regions.list_sent(connection, 1, 7)) == 10
    bench.close()
