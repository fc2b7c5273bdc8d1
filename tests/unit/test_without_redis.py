"""Redis is an extra: whoever installed Brushloop alone has a queue in a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ml_backend import jobs
from ml_backend.config import Settings


@pytest.fixture
def without_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)


def test_web_and_worker_are_loaded_without_it() -> None:
    code = "import sys; sys.modules['redis'] = None; import ml_backend.bootstrap, ml_backend.worker"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("without_redis")
def test_the_queue_is_a_file_without_it(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    queue = jobs.Queue(settings, {"round": lambda project_id: None})
    queue.send("round", 1)
    assert (tmp_path / jobs.QUEUE_FILE).exists()
    assert jobs.find_problem(settings) is None
    assert jobs.list_errors() == ()
    queue.stop()


@pytest.mark.usefixtures("without_redis")
def test_an_address_without_the_package_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pip install 'brushloop"):
        Settings(data_dir=tmp_path, redis_url="redis://127.0.0.1:6379/0")
