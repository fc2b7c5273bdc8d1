"""What lies outside the loop and around it: database, images and Label Studio, chosen by the settings.

A command that trains and predicts nothing works with this alone, and need not load torch.
"""

from __future__ import annotations

import logging
import math
import threading
from dataclasses import dataclass

from ml_backend.config import Settings
from ml_backend.errors import LabelStudioRefusedError
from ml_backend.label_studio.client import LabelStudioClient
from ml_backend.label_studio.connection import Connection
from ml_backend.label_studio.images import DEFAULT_IMAGE_KEY, CachedImages, ImageAccess, ImageSettings
from ml_backend.label_studio.label_config import find_config
from ml_backend.storage.artifacts import Artifacts, sweep_projects
from ml_backend.storage.database import Database, connect_database, migrate
from ml_backend.storage.projects import Project, get_project

log = logging.getLogger(__name__)

UNAUTHORIZED = 401
IMAGE_FOLDER = "images"
FETCH_S = 10.0
"""Seconds that a training process may fetch images, all together: it holds a place that other projects want.
What is missing then is fetched before the next try (`rounds/fetching.py`)."""


class LabelStudios:
    """Ways to the configured Label Studio, one per credential.

    The address is the configured one, whatever `/setup` names: a credential goes nowhere else. The
    configured credential comes first, because Label Studio refuses those of `/setup` by default.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connections: dict[str, Connection] = {}
        self._lock = threading.Lock()

    def client(self, project: Project) -> LabelStudioClient:
        """The API for a project; raises `LabelStudioRefusedError` without a credential."""
        connection = self.find_connection(project)
        if connection is None:
            raise LabelStudioRefusedError(
                "there is no credential for Label Studio: set LABEL_STUDIO_API_KEY", UNAUTHORIZED
            )
        return LabelStudioClient(connection)

    def find_connection(self, project: Project) -> Connection | None:
        key = self._settings.label_studio_api_key
        credential = key.get_secret_value() if key else project.access_token
        if not credential:
            return None
        with self._lock:
            if credential not in self._connections:
                self._connections[credential] = Connection(self._settings.label_studio_url, credential)
            return self._connections[credential]


@dataclass(frozen=True)
class Outside:
    """The database, up to date, the images of its projects, and the way to Label Studio."""

    settings: Settings
    database: Database
    images: CachedImages
    servers: LabelStudios

    def artifacts(self, project: Project) -> Artifacts:
        return Artifacts(self.settings.data_dir, project.folder)

    def sweep(self) -> None:
        """Remove what killed processes left unfinished; what cannot be removed now hinders nobody."""
        try:
            sweep_projects(self.settings.data_dir)
            self.images.sweep()
        except OSError as error:
            log.warning("skip_sweep cause=%r", str(error))


def open_outside(settings: Settings) -> Outside:
    """Open the database and bring it up to date; whoever calls this closes it."""
    database = connect(settings)
    migrate(database, settings.data_dir)
    servers = LabelStudios(settings)
    return Outside(settings, database, _build_images(settings, database, servers), servers)


def connect(settings: Settings) -> Database:
    """The database as it is."""
    url = settings.database_url.get_secret_value() if settings.database_url else None
    return connect_database(settings.data_dir, url)


def build_images(settings: Settings) -> CachedImages:
    """Pixels for a process that does nothing but train: over a database that is up to date already."""
    return _build_images(settings, connect(settings), LabelStudios(settings), FETCH_S)


def _build_images(
    settings: Settings, database: Database, servers: LabelStudios, fetch_s: float = math.inf
) -> CachedImages:
    """Pixels from Label Studio, allowed hosts and allowed folders, over a disk cache."""

    def access(project_id: int) -> ImageAccess:
        with database.read() as connection:
            project = get_project(connection, project_id)
        config, _ = find_config(project.label_config)
        return ImageAccess(
            folder=project.folder,
            image_key=config.image_key if config else DEFAULT_IMAGE_KEY,
            hostname=project.hostname,
            connection=servers.find_connection(project),
            sources=Artifacts(settings.data_dir, project.folder).sources,
        )

    return CachedImages(settings.data_dir / IMAGE_FOLDER, ImageSettings.of(settings), access, fetch_s=fetch_s)
