"""The same suites over both ways to run Brushloop: all in one folder, and over PostgreSQL and Redis."""

from __future__ import annotations

import re
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import services
import sqlalchemy as sa

from ml_backend.config import Settings


@dataclass(frozen=True)
class ServiceBackend:
    """Where one test keeps its rows, its queue and its files; nothing in it belongs to another test."""

    name: str
    data_dir: Path
    database_url: str | None = None
    redis_url: str | None = None

    def settings(self, **changes: Any) -> Settings:
        return Settings(
            data_dir=self.data_dir, database_url=self.database_url, redis_url=self.redis_url, **changes
        )

    def environment(self) -> dict[str, str]:
        """The same as environment variables, for processes of their own."""
        found = {
            "DATA_DIR": str(self.data_dir),
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis_url,
        }
        return {name: value for name, value in found.items() if value}


@pytest.fixture(scope="session")
def servers() -> Iterator[Callable[[str], tuple[str, str]]]:
    """PostgreSQL and Redis, started once when first asked for; gives each test addresses of its own."""
    running: list[Any] = []
    addresses: list[str] = []
    missing = services.missing_services()
    # Not pytest's folder: the path to it is closed to the user that PostgreSQL runs as.
    with tempfile.TemporaryDirectory(prefix="brushloop-services-") as name:
        folder = Path(name)
        folder.chmod(0o755)

        def addresses_for(test: str) -> tuple[str, str]:
            if missing:
                pytest.skip(missing)
            if not running:
                running.extend([services.postgres(folder / "postgres"), services.redis(folder / "redis")])
                addresses.extend(context.__enter__() for context in running)
            return _new_schema(addresses[0], test), _next_redis(addresses[1], addresses)

        yield addresses_for
        for context in reversed(running):
            context.__exit__(None, None, None)


NAMES = ("sqlite", "postgres+redis")


@pytest.fixture(params=NAMES)
def service_backend(request: pytest.FixtureRequest, tmp_path: Path, servers: Any) -> ServiceBackend:
    return choose_backend(request.param, tmp_path, servers, request.node.name)


def choose_backend(name: str, folder: Path, servers: Any, user: str) -> ServiceBackend:
    """A fresh one of `NAMES`; PostgreSQL and Redis are started for the first that wants them."""
    if name == "sqlite":
        return ServiceBackend(name, folder / "data")
    database_url, redis_url = servers(user)
    return ServiceBackend(name, folder / "data", database_url, redis_url)


def _new_schema(address: str, test: str) -> str:
    """A schema of its own for each test: as good as a database, and made in milliseconds."""
    name = f"t_{uuid.uuid4().hex[:8]}_{re.sub('[^a-z0-9]', '_', test.lower())}"[:60]
    engine = sa.create_engine(address.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(sa.schema.CreateSchema(name))
    engine.dispose()
    return f"{address}?options=-csearch_path%3D{name}"


def _next_redis(address: str, used: list[str]) -> str:
    """One of Redis's sixteen databases, in turn, emptied before use."""
    import redis

    used.append("")
    url = f"{address.rpartition('/')[0]}/{len(used) % 16}"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url
