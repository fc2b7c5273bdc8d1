"""Imports point down: the floors of both packages, and what no file may do."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FLOORS: dict[str, set[str]] = {
    # core: values and functions
    "words of the core": {
        "core.errors",
        "core.network.device",
        "core.schema",
        "core.painting",
        "core.prediction",
        "core.rounds",
        "core.network.pixels",
        "core.threads",
        "core.tiles",
        "core.synthetic",
    },
    "brush streams": {"core.rle._kernels", "core.rle._bytes", "core.rle._header", "core.rle.stream"},
    "strokes become truth": {
        "core.truth.claims",
        "core.objects.keep_apart",
        "core.objects.components",
        "core.objects.split_blobs",
        "core.truth.agreement",
        "core.truth.silence",
        "core.truth.label_map",
        "core.objects.measure",
        "core.truth.corrections",
        "core.truth.holdout",
        "core.truth.readiness",
    },
    "the network": {
        "core.network.unet",
        "core.network.outputs",
        "core.network.timm_network",
        "core.training.loss",
        "core.training.outlines",
        "core.training.augmentation",
        "core.training.sampling",
        "core.training.metrics",
        "core.network.uncertainty",
        "core.training.calibration",
        "core.network.checkpoint",
        "core.network.embedding",
        "core.network.encoder",
        "core.network.inference",
    },
    "learners beside it": {
        "core.learners._feature_kernels",
        "core.learners._forest_kernels",
        "core.learners.forest",
        "core.learners.pixel_features",
    },
    "base weights": {
        "core.network.base_weights",
        "core.pretraining.convert_encoder",
        "core.pretraining.shapes",
        "core.pretraining.looks",
        "core.pretraining.pretrain",
    },
    "a round": {
        "core.training.beginning",
        "core.training.evaluation",
        "core.training.optimiser",
        "core.training.round_report",
        "core.training.consolidation",
        "core.training.stopping",
        "core.training.trainer",
    },
    "a suggestion": {
        "core.asking.acquisition",
        "core.asking.diversity",
        "core.network.predict",
        "core.asking.region_grid",
        "core.asking.regions",
        "core.objects.of_prediction",
        "core.asking.suggestion",
    },
    "a simulation": {
        "simulation.brush",
        "simulation.perception",
        "simulation.annotator",
        "simulation.learning_curves",
    },
    # ml_backend: the service around it
    "words of the service": {
        "ml_backend.config",
        "ml_backend.errors",
        "ml_backend.ports",
        "ml_backend.logs",
        "ml_backend.moments",
        "ml_backend.priority",
        "ml_backend.suggestions.single_flight",
    },
    "outside languages": {
        "ml_backend.label_studio.admin",
        "ml_backend.label_studio.addresses",
        "ml_backend.label_studio.downloads",
        "ml_backend.label_studio.file_kinds",
        "ml_backend.label_studio.image_cache",
        "ml_backend.label_studio.image_files",
        "ml_backend.label_studio.image_frame",
        "ml_backend.label_studio.images",
        "ml_backend.label_studio.tiff_files",
        "ml_backend.label_studio.client",
        "ml_backend.label_studio.connection",
        "ml_backend.label_studio.label_config",
        "ml_backend.label_studio.setup_tags",
        "ml_backend.label_studio.brush_regions",
        "ml_backend.label_studio.paintings",
        "ml_backend.label_studio.payloads",
        "ml_backend.label_studio.project_order",
        "ml_backend.label_studio.results",
        "ml_backend.label_studio.rows",
        "ml_backend.storage.annotations",
        "ml_backend.storage.artifacts",
        "ml_backend.storage.candidates",
        "ml_backend.storage.row_leases",
        "ml_backend.storage.database",
        "ml_backend.storage.efforts",
        "ml_backend.storage.models",
        "ml_backend.storage.predictions",
        "ml_backend.storage.projects",
        "ml_backend.storage.reviews",
        "ml_backend.storage.rounds",
        "ml_backend.storage.scorings",
        "ml_backend.storage.tables",
        "ml_backend.storage.tasks",
        "ml_backend.storage.upserts",
        "ml_backend.storage.wakeups",
    },
    "parts of the loop": {
        "ml_backend.training",
        "ml_backend.parts",
        "ml_backend.status.advice",
        "ml_backend.strokes.effort",
        "ml_backend.rounds.encoder_weights",
        "ml_backend.rounds.lease",
        "ml_backend.rounds.troubles",
        "ml_backend.due",
        "ml_backend.strokes.recording",
        "ml_backend.strokes.reconcile",
        "ml_backend.strokes.combining",
        "ml_backend.strokes.copies",
        "ml_backend.strokes.build_truth",
        "ml_backend.rounds.publishing",
        "ml_backend.suggestions.predictors",
        "ml_backend.suggestions.answers",
        "ml_backend.suggestions.suggesting",
        "ml_backend.suggestions.push",
        "ml_backend.review.score_choice",
        "ml_backend.review.scoring",
        "ml_backend.review.ranking",
        "ml_backend.review.label_studio_order",
        "ml_backend.suggestions.pictures",
        "ml_backend.status.overview",
    },
    "the loop": {"ml_backend.learning_loop"},
    "the web": {
        "ml_backend.web.api_routes",
        "ml_backend.web.app",
        "ml_backend.web.auth",
        "ml_backend.web.bodies",
        "ml_backend.web.charts",
        "ml_backend.web.dashboard",
        "ml_backend.web.thread_places",
        "ml_backend.web.label_studio_routes",
        "ml_backend.web.loop",
        "ml_backend.web.prometheus",
        "ml_backend.web.server",
    },
    "composition": {"ml_backend.jobs", "ml_backend.rounds.round_process", "ml_backend.bootstrap"},
    "processes": {"ml_backend.worker", "ml_backend.wsgi"},
    "the command": {
        "ml_backend.command.child_process",
        "ml_backend.command.service_client",
        "ml_backend.status.status_view",
        "ml_backend.command.demo_project",
        "ml_backend.command.local_label_studio",
        "ml_backend.command.setup_project",
        "ml_backend.command.local_stack",
        "simulation.arm",
        "simulation.command",
        "simulation.ground_truth",
        "simulation.journal",
        "simulation.plots",
        "simulation.report",
        "simulation.settings",
        "simulation.study",
        "simulation.summary",
        "simulation.visits",
        "ml_backend.command.cli",
        "ml_backend._wsgi",
    },
    # brushloop: what people import
    "the public face": {"brushloop.model"},
}
"""From the bottom up. A file may import from its own floor and those below; nobody imports in a circle."""

STRANGERS = [
    ("ml_backend.storage", "ml_backend.label_studio", "a table knows nothing of Label Studio's JSON"),
    ("ml_backend.label_studio", "ml_backend.storage", "a parser stores nothing"),
    ("ml_backend.web", "ml_backend.storage", "the web asks the loop, never the database"),
    ("ml_backend.web", "ml_backend.bootstrap", "an app gets its loop as an argument"),
    ("brushloop", "ml_backend", "a script needs no server"),
]
"""Neighbours that must not import one another, and why."""

GENERATED = "ml_backend.storage.migrations"
"""Alembic's scripts come and go with the tables, and nobody imports them."""

CLOSED_TO_CORE = {
    "asyncio",
    "datetime",
    "flask",
    "httpx",
    "label_studio_sdk",
    "logging",
    "multiprocessing",
    "os",
    "pydantic",
    "random",
    "requests",
    "socket",
    "sqlalchemy",
    "subprocess",
    "time",
    "urllib",
}
"""Network, environment, clock, logging, global chance, frameworks: what the core needs is an argument."""

MAY_READ_ENVIRONMENT = {
    "ml_backend.config": "the one place where settings are read",
    "ml_backend._wsgi": "starts as Label Studio's backends do: its arguments become settings",
}

MAY_PRINT: set[str] = set()

FACES = {
    "core.rle.__init__": "`from core import rle; rle.decode(...)` reads as the field speaks",
    "brushloop.__init__": "what people import",
}
"""Packages that hand out names from inside, and why."""

LONGEST_FILE_LINES = 300


PACKAGES = ("core", "ml_backend", "simulation", "brushloop")


def find_modules() -> dict[str, Path]:
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths}


MODULES = find_modules()
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}
INITS = sorted(name for name in MODULES if name.endswith(".__init__"))
FILES = sorted(name for name in MODULES if name not in INITS and not name.startswith(GENERATED))
FLOOR_OF = {name: number for number, names in enumerate(FLOORS.values()) for name in names}


def find_imports(name: str) -> set[str]:
    """Every module that a file names in an import, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively in line {node.lineno}"
            module = node.module or ""
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def find_own_imports(name: str) -> set[str]:
    return {imported for imported in find_imports(name) if imported in MODULES and imported != name}


def find_calls(name: str) -> set[str]:
    """Names and dotted names that a file calls or reads."""
    return {ast.unparse(node) for node in ast.walk(TREES[name]) if isinstance(node, ast.Attribute | ast.Name)}


def test_every_file_is_on_a_floor_and_every_listed_file_exists() -> None:
    assert set(FILES) == set(FLOOR_OF)


def test_no_file_is_on_two_floors() -> None:
    assert sum(len(names) for names in FLOORS.values()) == len(FLOOR_OF)


@pytest.mark.parametrize("name", FILES)
def test_imports_point_down(name: str) -> None:
    upward = {other for other in find_own_imports(name) if FLOOR_OF.get(other, -1) > FLOOR_OF[name]}
    assert not upward, f"{name} is on a floor below {', '.join(sorted(upward))}"


def test_nothing_imports_in_a_circle() -> None:
    tuple(graphlib.TopologicalSorter({name: find_own_imports(name) for name in FILES}).static_order())


@pytest.mark.parametrize(("package", "stranger", "why"), STRANGERS)
def test_strangers_do_not_import_one_another(package: str, stranger: str, why: str) -> None:
    met = {
        name: other
        for name in FILES
        if name.startswith(f"{package}.")
        for other in find_imports(name)
        if other == stranger or other.startswith(f"{stranger}.")
    }
    assert not met, f"{met}: {why}"


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("core.")])
def test_the_core_knows_nothing_of_the_world_outside(name: str) -> None:
    roots = {imported.split(".")[0] for imported in find_imports(name)}
    assert "ml_backend" not in roots
    assert not roots & CLOSED_TO_CORE


@pytest.mark.parametrize("name", FILES)
def test_nothing_prints_or_changes_globals(name: str) -> None:
    assert not any(isinstance(node, ast.Global) for node in ast.walk(TREES[name])), "a `global` statement"
    assert name in MAY_PRINT or "print" not in find_calls(name)


@pytest.mark.parametrize("name", FILES)
def test_the_environment_is_read_in_one_place(name: str) -> None:
    reads = find_calls(name) & {"os.environ", "os.environb", "os.getenv", "os.putenv"}
    from_os = find_imports(name) & {"os.environ", "os.environb", "os.getenv", "os.putenv"}
    assert name in MAY_READ_ENVIRONMENT or not reads | from_os


@pytest.mark.parametrize("name", INITS)
def test_packages_hold_nothing_but_their_description(name: str) -> None:
    body = TREES[name].body
    assert len(body) <= 1 or name in FACES
    assert ast.get_docstring(TREES[name])


@pytest.mark.parametrize("name", FILES)
def test_files_have_a_description_and_stay_readable(name: str) -> None:
    assert ast.get_docstring(TREES[name])
    assert len(MODULES[name].read_text().splitlines()) <= LONGEST_FILE_LINES
