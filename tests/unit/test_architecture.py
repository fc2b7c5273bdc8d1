"""Imports point down: the floors of the packages, what is private to a wing, and what no file may do."""

from __future__ import annotations

import ast
import graphlib
import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FLOORS: dict[str, set[str]] = {
    # core: values and functions
    "values": {
        "core.distances",
        "core.errors",
        "core.outlining",
        "core.painting",
        "core.polygons",
        "core.prediction",
        "core.rounds",
        "core.schema",
        "core.synthetic",
        "core.threads",
        "core.tiles",
    },
    "streams, objects, learners": {"core.rle", "core.objects", "core.learners", "core.prompts"},
    "truth, networks, questions": {"core.truth", "core.network", "core.asking"},
    "a round": {"core.training"},
    "base weights": {"core.pretraining"},
    "what stands on the core alone": {"brushloop", "export", "ingest", "simulation"},
    # ml_backend: the service around it
    "words of the service": {
        "ml_backend.config",
        "ml_backend.errors",
        "ml_backend.logs",
        "ml_backend.moments",
        "ml_backend.ports",
        "ml_backend.processes",
    },
    "outside languages": {"ml_backend.label_studio", "ml_backend.storage"},
    "what the wings share": {"ml_backend.parts", "ml_backend.training"},
    "strokes": {"ml_backend.strokes"},
    "rounds": {"ml_backend.rounds"},
    "answers, and what is due": {"ml_backend.due", "ml_backend.suggestions"},
    "review and status": {"ml_backend.review", "ml_backend.status"},
    "the loop": {"ml_backend.learning_loop"},
    "web and queue": {"ml_backend.web", "ml_backend.jobs"},
    "composition": {"ml_backend.bootstrap", "ml_backend.outside"},
    "processes": {"ml_backend.label_studio_ml_adapter", "ml_backend.worker", "ml_backend.wsgi"},
    "the command": {"ml_backend.command", "ml_backend._wsgi"},
}
"""Boxes from the bottom up: a wing (a package inside `core` or `ml_backend`), or a file beside the wings.

A box imports from its own floor and those below. Files inside a wing are not listed here.
"""

OPEN: dict[str, set[str]] = {
    "core.asking": {"acquisition", "diversity", "reason", "regions", "suggestion"},
    "core.learners": {
        "forest",
        "forest_growth",
        "forest_map",
        "pixel_features",
        "tensor_features",
        "tensor_forest",
    },
    "core.network": {
        "base_weights",
        "batch",
        "checkpoint",
        "device",
        "encoder",
        "encoder_copies",
        "feature_maps",
        "head",
        "inference",
        "map_stores",
        "mixture",
        "outputs",
        "pixels",
        "predict",
        "quick",
        "regular_files",
        "timm_network",
        "tuned",
        "unet",
    },
    "core.objects": {"components", "keep_apart", "measure", "of_prediction", "split_blobs"},
    "core.prompts": {"ground", "lab_colours", "prompt", "segment"},
    "core.rle": {"__init__"},
    "core.training": {"consolidation", "metrics", "outlines", "recipe", "stopping", "trainer"},
    "core.truth": {"agreement", "corrections", "holdout", "label_map", "readiness", "thin_strokes"},
    "export": {
        "atomic_files",
        "bioimageio_package",
        "colours",
        "errors",
        "formats",
        "georeference",
        "label_files",
        "model_card",
        "objects_table",
        "ome_tiff",
        "onnx_check",
        "overlay",
        "pixel_size",
        "result",
    },
    "ingest": {
        "coco",
        "frames",
        "mask_files",
        "masks",
        "scaling",
        "stretch",
        "tiff",
        "turning",
        "vendor_formats",
    },
    "ml_backend.command": {"cli"},
    "ml_backend.label_studio": {
        "addresses",
        "admin",
        "client",
        "connection",
        "image_files",
        "image_frame",
        "images",
        "label_config",
        "paintings",
        "payloads",
        "project_order",
        "prompts",
        "results",
        "shape_regions",
        "uploads",
    },
    "ml_backend.review": {"label_studio_order", "ranking", "scoring"},
    "ml_backend.rounds": {
        "concerns",
        "continuing",
        "failing_jobs",
        "lease",
        "orphans",
        "readable",
        "round_process",
        "running",
        "sweeping",
        "troubles",
    },
    "ml_backend.processes": {
        "fair_places",
        "patience",
        "priority",
        "process_identity",
        "remedies",
        "scratch",
    },
    "ml_backend.status": {"overview", "ready", "status_view"},
    "ml_backend.storage": {
        "health",
        "installation",
        "annotations",
        "artifacts",
        "candidates",
        "database",
        "efforts",
        "expiry",
        "kept_maps",
        "label_map_files",
        "models",
        "predictions",
        "projects",
        "reviews",
        "rounds",
        "row_leases",
        "scorings",
        "sent_regions",
        "tables",
        "task_data",
        "tasks",
        "wakeups",
    },
    "ml_backend.strokes": {"build_truth", "damaged_truth", "effort", "reconcile", "recording"},
    "ml_backend.suggestions": {"pictures", "prompting", "push", "suggesting"},
    "ml_backend.web": {"app", "label_studio_routes", "loop", "server"},
    "simulation": {"command"},
}
"""The files of a wing that others may import; all others are private to it, and may change with it alone."""

MOST_ARROWS = {"core": 40, "ml_backend": 119}
"""Arrows between the boxes of a package; the map stays readable as long as they are few."""

TWINS = {
    "errors.py": "the root of each package's own errors, where `except` looks for it",
    "rounds.py": "the values that a round takes and gives, and the rows that remember it",
}
"""Files with equal names, and why; `from x import rounds` should say one thing."""

STRANGERS = [
    ("ml_backend.storage", "ml_backend.label_studio", "a table knows nothing of Label Studio's JSON"),
    ("ml_backend.label_studio", "ml_backend.storage", "a parser stores nothing"),
    ("ml_backend.web", "ml_backend.storage", "the web asks the loop, never the database"),
    ("ml_backend.web", "ml_backend.bootstrap", "an app gets its loop as an argument"),
    ("ml_backend.outside", "ml_backend.bootstrap", "who needs no torch opens this alone"),
    ("brushloop", "ml_backend", "a script needs no server"),
    ("export", "ml_backend", "a file of another tool needs no server"),
    ("ingest", "ml_backend", "a file of a microscope needs no server"),
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

LOG_CALLS = {f"log.{level}" for level in ("debug", "info", "warning", "error", "exception")}
LOG_LINE = re.compile(r"(?![a-z]+(ed|ing)(_| |$))[a-z]+(_[a-z]+)*( [a-z_]+=\S+)*")
"""`verb_noun key=value key=value`: what was done, not what is or was."""

FACES = {
    "core.rle.__init__": "`from core import rle; rle.decode(...)` reads as the field speaks",
    "brushloop.__init__": "what people import",
}
"""Packages that hand out names from inside, and why."""

LONGEST_FILE_LINES = 300


PACKAGES = ("core", "ml_backend", "simulation", "brushloop", "export", "ingest")


def find_modules() -> dict[str, Path]:
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths}


MODULES = find_modules()
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}
INITS = sorted(name for name in MODULES if name.endswith(".__init__"))
FILES = sorted(name for name in MODULES if name not in INITS and not name.startswith(GENERATED))
SOURCES = [*FILES, *sorted(FACES)]
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
    """The files of ours that a file imports; a package's face counts as a file."""
    named = find_imports(name)
    faces = {f"{imported}.__init__" for imported in named} & set(FACES)
    return {imported for imported in named | faces if imported in MODULES and imported != name}


def find_box(name: str) -> str:
    """The wing that a file is in, or the file itself where it stands beside the wings."""
    package, *rest = name.split(".")
    return package if package in ("simulation", "brushloop", "export", "ingest") else f"{package}.{rest[0]}"


def find_calls(name: str) -> set[str]:
    """Names and dotted names that a file calls or reads."""
    return {ast.unparse(node) for node in ast.walk(TREES[name]) if isinstance(node, ast.Attribute | ast.Name)}


def _is_open(name: str) -> bool:
    """Whether files outside its box may import a file; one without a wing is open to all."""
    wing, _, file = name.rpartition(".")
    return file in OPEN.get(wing, ()) or name == find_box(name)


def find_arrows() -> dict[str, set[str]]:
    """Which boxes each box imports."""
    arrows: dict[str, set[str]] = {box: set() for box in FLOOR_OF}
    for name in SOURCES:
        arrows[find_box(name)] |= {find_box(other) for other in find_own_imports(name)} - {find_box(name)}
    return arrows


ARROWS = find_arrows()


def test_every_box_is_on_a_floor_and_every_listed_box_exists() -> None:
    assert {find_box(name) for name in FILES} == set(FLOOR_OF)


def test_no_box_is_on_two_floors() -> None:
    assert sum(len(names) for names in FLOORS.values()) == len(FLOOR_OF)


@pytest.mark.parametrize("name", SOURCES)
def test_imports_point_down(name: str) -> None:
    own_floor = FLOOR_OF[find_box(name)]
    upward = {other for other in find_own_imports(name) if FLOOR_OF[find_box(other)] > own_floor}
    assert not upward, f"{name} is on a floor below {', '.join(sorted(upward))}"


def test_boxes_do_not_import_in_a_circle() -> None:
    tuple(graphlib.TopologicalSorter(ARROWS).static_order())


@pytest.mark.parametrize("package", sorted(MOST_ARROWS))
def test_the_arrows_between_the_boxes_of_a_package_are_few(package: str) -> None:
    arrows = [(one, other) for one, others in ARROWS.items() for other in others]
    n_inside = sum(one.startswith(f"{package}.") and other.startswith(f"{package}.") for one, other in arrows)
    assert n_inside <= MOST_ARROWS[package]


@pytest.mark.parametrize("name", SOURCES)
def test_what_is_private_to_a_wing_is_imported_inside_it_alone(name: str) -> None:
    outside = {other for other in find_own_imports(name) if find_box(other) != find_box(name)}
    private = {other for other in outside if not _is_open(other)}
    assert not private, f"{name} imports {', '.join(sorted(private))}: list it as open, or ask its wing"


@pytest.mark.parametrize("wing", sorted(OPEN))
def test_what_is_open_is_used_outside_its_wing(wing: str) -> None:
    used = {other for name in SOURCES if find_box(name) != wing for other in find_own_imports(name)}
    assert {f"{wing}.{file}" for file in OPEN[wing]} <= used


def test_files_with_equal_names_have_a_reason() -> None:
    paths = defaultdict(set)
    for name in FILES:
        paths[MODULES[name].name].add(name)
    assert {file for file, names in paths.items() if len(names) > 1} == set(TWINS)


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


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("ml_backend.")])
def test_log_lines_begin_with_a_verb_and_go_on_with_keys_and_values(name: str) -> None:
    lines = [
        node.args[0].value
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.Call) and ast.unparse(node.func) in LOG_CALLS
        if isinstance(node.args[0], ast.Constant)
    ]
    odd = [line for line in lines if not LOG_LINE.fullmatch(str(line))]
    assert not odd


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
