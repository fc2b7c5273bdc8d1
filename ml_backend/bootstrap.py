"""The one place that chooses implementations: settings in, a working learning loop out."""

from __future__ import annotations

import logging
import math
import threading

from flask import Flask

from core.network.device import choose_compute
from ml_backend import jobs
from ml_backend.config import Settings
from ml_backend.errors import LabelStudioRefusedError
from ml_backend.label_studio.client import LabelStudioClient
from ml_backend.label_studio.connection import Connection
from ml_backend.label_studio.images import DEFAULT_IMAGE_KEY, CachedImages, ImageAccess, ImageSettings
from ml_backend.label_studio.label_config import find_config
from ml_backend.learning_loop import LearningLoop
from ml_backend.parts import Parts
from ml_backend.ports import ImageSource, LabelStudio
from ml_backend.rounds.lease import name_owner
from ml_backend.rounds.round_process import ProcessTrainer
from ml_backend.storage.artifacts import Artifacts, sweep_projects
from ml_backend.storage.database import Database, connect_database, migrate
from ml_backend.storage.projects import Project, get_project
from ml_backend.web.app import create_app

log = logging.getLogger(__name__)

UNAUTHORIZED = 401
IMAGE_FOLDER = "images"
FETCH_S = 10.0
"""Seconds that a training process may fetch images, all together: it holds a place that other projects want.
What is missing then is fetched before the next try (`rounds/fetching.py`)."""


def build_loop(settings: Settings) -> LearningLoop:
    """Put the learning loop together; any number of processes may do so with the same settings."""
    return LearningLoop(build_parts(settings))


def build_app(settings: Settings) -> Flask:
    """The web application around a learning loop of its own."""
    return create_app(build_loop(settings), settings)


def build_parts(settings: Settings) -> Parts:
    """Open the database, bring it up to date, and choose everything else.

    A `DEVICE` or an `ENGINE` that is not there ends the process at its start, with a `DeviceError`, and not
    some round.
    """
    choose_compute(settings.device, settings.engine)
    database = connect(settings)
    migrate(database, settings.data_dir)
    servers = LabelStudios(settings)
    images = _build_images(settings, database, servers)
    _sweep(settings, images)
    return Parts(
        settings=settings,
        database=database,
        images=images,
        label_studio=servers.client,
        trainer=ProcessTrainer(settings, build_images),
        clock=database.clock,
        owner=name_owner(),
        queue_problem=jobs.watch_queue(lambda: jobs.find_problem(settings)),
    )


def build_images(settings: Settings) -> ImageSource:
    """Pixels for a process that does nothing but train: over a database that is up to date already."""
    return _build_images(settings, connect(settings), LabelStudios(settings), FETCH_S)


def connect(settings: Settings) -> Database:
    url = settings.database_url.get_secret_value() if settings.database_url else None
    return connect_database(settings.data_dir, url)


class LabelStudios:
    """Ways to the configured Label Studio, one per credential.

    The address is the configured one, whatever `/setup` names: a credential goes nowhere else. The
    configured credential comes first, because Label Studio refuses those of `/setup` by default.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connections: dict[str, Connection] = {}
        self._lock = threading.Lock()

    def client(self, project: Project) -> LabelStudio:
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


def _sweep(settings: Settings, images: CachedImages) -> None:
    """Remove what killed processes left unfinished; what cannot be removed now keeps nobody from working."""
    try:
        sweep_projects(settings.data_dir)
        images.sweep()
    except OSError as error:
        log.warning("skip_sweep cause=%r", str(error))


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
