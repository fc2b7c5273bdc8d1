"""The model class for label-studio-ml's server: recorded calls get the answers that our own routes give.

The server is the real one where the package is installed, and else one of the same signatures.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from loop_fakes import CREATED, make_bench
from painted import LABEL_CONFIG

from ml_backend.config import Settings
from ml_backend.label_studio.payloads import WEBHOOK_KEY_HEADER
from ml_backend.web.app import create_app

ROOT = Path(__file__).parents[2]
ADAPTER = ROOT / "ml_backend" / "label_studio_ml_adapter.py"
STAND_INS = ROOT / "tests" / "support" / "stand_ins"
IS_INSTALLED = importlib.util.find_spec("label_studio_ml") is not None

SETUPS = ("setup", "setup_basic_auth_extra_params")
PREDICTS = ("predict_open_task", "predict_batch", "predict_localfiles", "predict_interactive")
PASSED_ON = ("ANNOTATION_CREATED", "ANNOTATION_CREATED_skipped", "ANNOTATION_UPDATED", "START_TRAINING")
KEPT_BACK = (
    "ANNOTATIONS_CREATED",
    "ANNOTATIONS_DELETED",
    "TASKS_CREATED",
    "TASKS_DELETED",
    "PROJECT_UPDATED",
)

pytestmark = pytest.mark.filterwarnings("ignore:Support for class-based `config`:DeprecationWarning")


def load_adapter() -> Any:
    """The file by itself, as the server imports its copy."""
    spec = importlib.util.spec_from_file_location("label_studio_ml_adapter", ADAPTER)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def forget_modules() -> None:
    for name in [name for name in sys.modules if name.split(".")[0].startswith("label_studio_ml")]:
        del sys.modules[name]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    """label-studio-ml's `api`, which keeps its notes in a folder of this test."""
    forget_modules()
    monkeypatch.setenv("MODEL_DIR", str(tmp_path))
    if not IS_INSTALLED:
        monkeypatch.syspath_prepend(str(STAND_INS))
    yield importlib.import_module("label_studio_ml.api")
    forget_modules()


@pytest.fixture
def adapter(server: ModuleType, loop: Any) -> Any:
    module = load_adapter()
    module._built["service"] = module.Service(loop, Settings())
    return module


@pytest.fixture
def other(server: Any, adapter: Any) -> Any:
    """A client of label-studio-ml's server with our model class."""
    return server.init_app(adapter.Brushloop).test_client()


def replay(client: Any, request: dict[str, Any], **headers: str) -> Any:
    return client.open(request["path"], method=request["method"], json=request["body"], headers=headers)


@pytest.mark.parametrize("name", SETUPS)
def test_setup_gets_the_same_answer_and_connects_the_same_project(
    client: Any, other: Any, loop: Any, recorded: Any, name: str
) -> None:
    ours, theirs = replay(client, recorded(name)), replay(other, recorded(name))
    assert (theirs.status_code, theirs.json) == (ours.status_code, ours.json)
    assert loop.connected[0] == loop.connected[1]


@pytest.mark.parametrize("name", PREDICTS)
def test_predict_gets_the_same_answer(client: Any, other: Any, loop: Any, recorded: Any, name: str) -> None:
    loop.answers = [
        None,
        {"result": recorded_regions(recorded), "score": 0.625, "model_version": "r0007-0a1b2c3d"},
    ]
    ours, theirs = replay(client, recorded(name)), replay(other, recorded(name))
    assert (theirs.status_code, theirs.json) == (ours.status_code, ours.json)
    assert loop.asked[0][:3] == loop.asked[1][:3]
    assert loop.asked[1][3] - loop.asked[0][3] < 80  # the same time to answer in, from each call's beginning


def recorded_regions(recorded: Any) -> list[Any]:
    """What a person painted, with every key that a region has on the wire."""
    regions: list[Any] = recorded("webhook_ANNOTATION_CREATED")["body"]["annotation"]["result"]
    assert regions
    return regions


def test_a_prediction_that_would_cost_the_batch_is_left_out_there_too(
    client: Any, other: Any, loop: Any, recorded: Any
) -> None:
    loop.answers = [{"result": [], "score": None, "model_version": "v"}]
    assert replay(other, recorded("predict_batch")).json == {"results": [[], []]}


@pytest.fixture
def trained(tmp_path: Path) -> Iterator[Any]:
    """A learning loop whose project has a model."""
    bench = make_bench(tmp_path / "data")
    bench.submit(1, 2)
    bench.loop.build_truth(1)
    bench.loop.run_round(1)
    yield bench
    bench.close()


@pytest.mark.parametrize("task_ids", [(1,), (2, 3)])
def test_a_trained_model_says_the_same_through_both(
    server: Any, trained: Any, task_ids: tuple[int, ...]
) -> None:
    module, settings = load_adapter(), Settings()
    module._built["service"] = module.Service(trained.loop, settings)
    apps = create_app(trained.loop, settings), server.init_app(module.Brushloop)
    for task_id in task_ids:
        if task_id not in trained.server.tasks:
            trained.server.add_task(task_id)
    tasks = [{"id": task_id, "data": dict(trained.task(task_id).data)} for task_id in task_ids]
    body = {"tasks": tasks, "project": f"1.{CREATED}", "label_config": LABEL_CONFIG, "params": {}}
    ours, theirs = (app.test_client().post("/predict", json=body) for app in apps)
    assert theirs.status_code == ours.status_code == 200
    assert all(one["result"] and one["model_version"].startswith("r0001-") for one in ours.json["results"])
    assert [without_ids(one) for one in theirs.json["results"]] == [
        without_ids(one) for one in ours.json["results"]
    ]


def without_ids(answer: dict[str, Any]) -> dict[str, Any]:
    """Regions get new names with each answer; all else is compared, stroke streams with it."""
    return {**answer, "result": [{**entry, "id": ""} for entry in answer["result"]]}


@pytest.mark.parametrize("name", PASSED_ON)
def test_an_event_is_recorded_alike(client: Any, other: Any, loop: Any, recorded: Any, name: str) -> None:
    ours, theirs = (replay(c, recorded(f"webhook_{name}")) for c in (client, other))
    assert theirs.status_code == ours.status_code
    assert theirs.json == {"result": ours.json, "status": "ok"}
    assert loop.events[0] == loop.events[1]


@pytest.mark.parametrize("name", KEPT_BACK)
def test_events_that_the_other_server_keeps_back_are_left_to_the_next_comparison(
    other: Any, loop: Any, recorded: Any, name: str
) -> None:
    assert replay(other, recorded(f"webhook_{name}")).status_code == 200
    assert not loop.events


@pytest.mark.parametrize("name", [*PASSED_ON, *KEPT_BACK])
def test_fit_answers_as_our_route_for_every_event(
    client: Any, adapter: Any, loop: Any, recorded: Any, name: str
) -> None:
    request = recorded(f"webhook_{name}")
    ours = replay(client, request).json
    data = {key: value for key, value in request["body"].items() if key != "action"}
    model = adapter.Brushloop("1", label_config=request["body"]["project"]["label_config"])
    assert model.fit(request["body"]["action"], data, job_id="7") == ours
    assert loop.events[0] == loop.events[1]


def test_the_key_of_a_webhook_reaches_the_loop(
    other: Any, loop: Any, recorded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: list[str] = []
    monkeypatch.setattr(loop, "record", lambda event, key="": keys.append(key))
    replay(other, recorded("webhook_ANNOTATION_CREATED"), **{WEBHOOK_KEY_HEADER: "secret"})
    assert keys == ["secret"]


def test_health_names_the_class(client: Any, other: Any, recorded: Any) -> None:
    assert replay(other, recorded("health")).json == replay(client, recorded("health")).json


def test_the_loop_is_built_once_for_all_models(
    adapter: Any, monkeypatch: pytest.MonkeyPatch, loop: Any
) -> None:
    built = []
    adapter._built.clear()
    monkeypatch.setattr("ml_backend.bootstrap.build_loop", lambda settings: built.append(settings) or loop)
    assert adapter.find_service() is adapter.find_service()
    assert len(built) == 1


def test_without_the_package_the_file_can_be_imported_and_a_model_names_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forget_modules()
    monkeypatch.setitem(sys.modules, "label_studio_ml", None)
    with pytest.raises(ImportError, match=r"pip install git\+https://.*, or do without it: brushloop serve"):
        load_adapter().Brushloop("1")
    forget_modules()
