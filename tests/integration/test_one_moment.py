"""Each answer shows one moment: what is written while it is put together shows in the next one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from loop_fakes import Bench
from sqlalchemy import event

from ml_backend.storage.projects import update_project
from ml_backend.web.app import create_app

pytestmark = pytest.mark.integration


@pytest.fixture
def bench(service_backend: Any) -> Iterator[Bench]:
    torch.set_num_threads(1)
    bench = Bench(service_backend.settings(min_pixels_per_class=100))
    bench.submit(1, 2)
    assert bench.loop.run_round(1)
    yield bench
    bench.close()


def read_status(bench: Bench) -> Any:
    return bench.loop.status(1)


def read_projects(bench: Bench) -> Any:
    return bench.loop.projects()


def read_page(bench: Bench) -> Any:
    return get(bench, "/projects/1")


def read_metrics(bench: Bench) -> Any:
    return [line for line in get(bench, "/metrics").splitlines() if "project=" in line]


def get(bench: Bench, path: str) -> str:
    answer = create_app(bench.loop, bench.parts.settings).test_client().get(path)
    assert answer.status_code == 200
    return answer.text


@pytest.mark.parametrize("read", [read_status, read_projects, read_page, read_metrics])
def test_an_answer_never_mixes_what_was_before_a_write_with_what_was_after_it(
    bench: Bench, read: Callable[[Bench], Any]
) -> None:
    """Somebody writes between two queries of one answer: after each of them, in turn."""
    n_queries = 0

    def count() -> None:
        nonlocal n_queries
        n_queries += 1

    before = read_while(bench, read, count)
    assert n_queries > 3
    for number in range(1, n_queries + 1):
        found = read_while(bench, read, write_after(bench, number))
        after = read(bench)
        assert after != before
        # What came before the first query is in; nothing that came later is.
        assert found == before, f"written after query {number} of {n_queries}"
        before = after


def write_after(bench: Bench, number: int) -> Callable[[], None]:
    """Submits an annotation, and renames the project, once so many queries were answered."""
    n_seen = 0

    def write() -> None:
        nonlocal n_seen
        n_seen += 1
        if n_seen == number:
            bench.submit(100 + len(bench.server.tasks))
            with bench.parts.database.write() as connection:
                update_project(connection, 1, title=f"Cells {number}", last_error=f"trouble {number}")

    return write


def read_while(bench: Bench, read: Callable[[Bench], Any], after_query: Callable[[], None]) -> Any:
    """Read; `after_query` runs after each query of it, but not of its own ones."""
    engine, is_inside = bench.parts.database.engine, False

    def notice(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        nonlocal is_inside
        if not is_inside and "FROM" in statement:
            is_inside = True
            after_query()
            is_inside = False

    event.listen(engine, "after_cursor_execute", notice)
    try:
        return read(bench)
    finally:
        event.remove(engine, "after_cursor_execute", notice)
