"""How tests are dealt out to several processes: what shares something costly stays in one of them.

xdist's own groups are not used: version 3.8 writes them where pytest 9.2 no longer looks, and says nothing.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from xdist.scheduler import LoadScopeScheduling

LABEL_STUDIO = "tests/e2e"
OF_ITS_OWN = "tests/e2e/test_up.py"
"""It starts a Label Studio by `brushloop up`, whatever the others do."""


class Together(LoadScopeScheduling):  # type: ignore[misc]
    """Deals out test by test, in their order, but in one piece what `piece_of` calls by one name."""

    def __init__(self, config: Any, log: Any) -> None:
        config.option.loadscopereorder = False  # ours has the longest first
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return piece_of(nodeid, str(self.config.rootpath))


def piece_of(nodeid: str, root: str) -> str:
    """The name of all that has to run in the same process as a test; its own where that is nothing."""
    path, _, _ = nodeid.partition("::")
    if path.startswith(LABEL_STUDIO) and path != OF_ITS_OWN:
        return LABEL_STUDIO
    return path if makes_once(Path(root, path)) else nodeid


@cache
def makes_once(path: Path) -> bool:
    """Whether a file of tests makes something that all of them use."""
    return path.name.startswith("test_") and 'scope="module"' in path.read_text()
