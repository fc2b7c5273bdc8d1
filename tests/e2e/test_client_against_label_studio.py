"""The client against the real Label Studio: what its docstrings claim was seen, and is seen again here."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.asking.regions import Region
from core.asking.suggestion import SuggestedMask, Suggestion
from core.painting import Box
from ml_backend.errors import LabelStudioRefusedError
from ml_backend.label_studio.admin import LabelStudioAdmin
from ml_backend.label_studio.client import LabelStudioClient
from ml_backend.label_studio.connection import Connection
from ml_backend.label_studio.images import CachedImages, ImageAccess, ImageSettings
from ml_backend.label_studio.label_config import parse_label_config
from ml_backend.label_studio.paintings import parse_painting
from ml_backend.label_studio.results import to_prediction
from ml_backend.review.label_studio_order import describe_tab

CONFIG_XML = (Path(__file__).parents[2] / "label_config.xml").read_text(encoding="utf-8")
CONFIG = parse_label_config(CONFIG_XML)
SHAPE = (48, 64)
VERSION = "r0001-0a1b2c3d"


class SmallBackend:
    """Answers Label Studio as an ML backend does; `calls` keeps (path, authorization, body)."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str | None, Any]] = []
        backend = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                backend.calls.append(
                    (self.path, self.headers.get("Authorization"), json.loads(body or b"null"))
                )
                reply = {"status": "UP", "model_version": VERSION, "results": [[]]}
                content = json.dumps(reply).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = answer  # noqa: N815 - the names that the server looks for

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()

    def paths(self) -> list[str]:
        return [path for path, _, _ in self.calls]

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def backend() -> Iterator[SmallBackend]:
    with closing(SmallBackend()) as backend:
        yield backend


@pytest.fixture(params=["legacy key", "personal access token"])
def connection(request: pytest.FixtureRequest, label_studio: Any) -> Iterator[Connection]:
    is_legacy = request.param == "legacy key"
    key = label_studio.api_key if is_legacy else label_studio.personal_access_token
    with closing(Connection(label_studio.url, key)) as connection:
        yield connection


@pytest.fixture
def admin(connection: Connection) -> LabelStudioAdmin:
    return LabelStudioAdmin(connection)


@pytest.fixture
def client(connection: Connection) -> LabelStudioClient:
    return LabelStudioClient(connection)


@pytest.fixture
def project_id(request: pytest.FixtureRequest, connection: Connection) -> Iterator[int]:
    """A project of its own, without images."""
    project_id = LabelStudioAdmin(connection).ensure_project(request.node.name[:50], CONFIG_XML).project_id
    yield project_id
    connection.request("DELETE", f"/api/projects/{project_id}/")


def save_images(folder: Path, names: Sequence[str]) -> list[Path]:
    for index, name in enumerate(names):
        Image.fromarray(np.full((*SHAPE, 3), 40 * index, np.uint8)).save(folder / name)
    return [folder / name for name in names]


@pytest.fixture
def task_ids(
    admin: LabelStudioAdmin, client: LabelStudioClient, project_id: int, tmp_path: Path
) -> list[int]:
    """Three tasks with uploaded images."""
    admin.upload_images(project_id, save_images(tmp_path, ["a.png", "b.png", "c.png"]))
    return [summary.task_id for summary in client.iter_task_summaries(project_id)]


def rectangle(label: str, region_id: str = "r1") -> dict[str, Any]:
    box = {"x": 0, "y": 0, "width": 50, "height": 50, "rotation": 0, "rectanglelabels": [label]}
    names = {"from_name": "uncertain", "to_name": "image", "type": "rectanglelabels"}
    size = {"original_width": SHAPE[1], "original_height": SHAPE[0], "image_rotation": 0}
    return {"id": region_id, **names, **size, "value": box, "origin": "manual"}


def suggest(task_id: int) -> dict[str, Any]:
    mask = SuggestedMask(1, np.eye(9, dtype=bool), 3, 4, 0.8)
    question = Region(Box(20, 20, 10, 12), 0.6, 1, 0, 0.55)
    prediction, _ = to_prediction(Suggestion(SHAPE, (mask,), (question,), 0.4), CONFIG, VERSION, str(task_id))
    return prediction


def test_the_token_is_known(admin: LabelStudioAdmin) -> None:
    assert "@" in admin.check_token()


def test_a_wrong_token_is_refused_with_what_to_do(label_studio: Any) -> None:
    with (
        closing(Connection(label_studio.url, "f" * 40)) as connection,
        pytest.raises(LabelStudioRefusedError, match="LABEL_STUDIO_API_KEY") as caught,
    ):
        LabelStudioAdmin(connection).check_token()
    assert caught.value.status == 401


def test_a_project_is_made_once_and_repaired(
    admin: LabelStudioAdmin, client: LabelStudioClient, project_id: int
) -> None:
    title = client.get_project(project_id).title
    assert admin.ensure_project(title, CONFIG_XML).project_id == project_id
    changed = CONFIG_XML.replace('value="Nucleus"', 'value="Cell"')
    assert admin.ensure_project(title, changed).project_id == project_id
    assert parse_label_config(client.get_project(project_id).label_config).schema.names[1] == "Cell"


def test_images_are_uploaded_once(
    admin: LabelStudioAdmin, client: LabelStudioClient, project_id: int, tmp_path: Path
) -> None:
    paths = save_images(tmp_path, ["a.png", "my cell (1).png"])
    assert admin.upload_images(project_id, paths) == 2
    assert admin.upload_images(project_id, [*paths, *save_images(tmp_path, ["new.png"])]) == 1
    summaries = list(client.iter_task_summaries(project_id))
    assert len(summaries) == 3
    assert all(summary.data["image"].startswith(f"/data/upload/{project_id}/") for summary in summaries)


def test_an_uploaded_image_is_read(
    client: LabelStudioClient, connection: Connection, project_id: int, task_ids: list[int], tmp_path: Path
) -> None:
    settings = ImageSettings(connection.url, max_bytes=10**7, max_pixels=10**6, cache_bytes=10**7)
    images = CachedImages(
        tmp_path / "cache", settings, lambda project: ImageAccess(str(project), connection=connection)
    )
    with closing(images):
        for index, summary in enumerate(client.iter_task_summaries(project_id)):
            pixels = images.open(project_id, summary.task_id, summary.data)
            assert np.array_equal(pixels, np.full((*SHAPE, 3), 40 * index))


def test_a_digest_moves_with_every_change_of_an_annotation(
    client: LabelStudioClient, connection: Connection, project_id: int, task_ids: list[int]
) -> None:
    def summaries() -> dict[int, Any]:
        return {summary.task_id: summary for summary in client.iter_task_summaries(project_id)}

    def create(body: dict[str, Any]) -> int:
        return int(connection.request("POST", f"/api/tasks/{task_ids[0]}/annotations/", json=body)["id"])

    seen = [summaries()]
    annotation_id = create({"result": [rectangle("Reviewed")]})
    seen.append(summaries())
    changed = {"result": [rectangle("Reviewed"), rectangle("Uncertain", "r2")]}
    connection.request("PATCH", f"/api/annotations/{annotation_id}/", json=changed)
    seen.append(summaries())
    skipped_id = create({"result": [], "was_cancelled": True})
    seen.append(summaries())
    connection.request("DELETE", f"/api/annotations/{annotation_id}/")
    seen.append(summaries())
    selected = {"selectedItems": {"all": False, "included": [task_ids[0]]}}
    action = {"project": project_id, "id": "delete_tasks_annotations"}
    connection.request("POST", "/api/dm/actions", params=action, json=selected)
    seen.append(summaries())

    first = [summary[task_ids[0]] for summary in seen]
    assert [summary.annotation_ids for summary in first] == [
        (),
        (annotation_id,),
        (annotation_id,),
        (annotation_id, skipped_id),
        (skipped_id,),
        (),
    ]
    assert len({summary.updated_at for summary in first}) == len(first)
    assert all(summary[task_ids[1]] == seen[0][task_ids[1]] for summary in seen)


def test_painted_tasks_are_listed_alone(
    client: LabelStudioClient, connection: Connection, project_id: int, task_ids: list[int]
) -> None:
    def painted(*known: int) -> list[int]:
        return [summary.task_id for summary in client.iter_painted_summaries(project_id, known)]

    first, second, third = task_ids
    assert client.get_project(project_id).n_tasks == 3
    assert painted() == []
    body = {"result": [rectangle("Reviewed")]}
    annotation_id = connection.request("POST", f"/api/tasks/{second}/annotations/", json=body)["id"]
    assert painted() == [second]
    assert painted(first, second, 10_000_000) == [second, first]
    (summary,) = client.iter_painted_summaries(project_id, ())
    assert summary in list(client.iter_task_summaries(project_id))
    assert summary.annotation_ids == (annotation_id,)
    connection.request("DELETE", f"/api/annotations/{annotation_id}/")
    assert painted() == []
    assert painted(second) == [second]
    connection.request("DELETE", f"/api/tasks/{third}/")
    assert client.get_project(project_id).n_tasks == 2
    assert painted(third) == []


def test_a_task_comes_with_its_annotations(
    client: LabelStudioClient, connection: Connection, project_id: int, task_ids: list[int]
) -> None:
    region = rectangle("Reviewed")
    body = {"result": [region], "lead_time": 2.5}
    created = connection.request("POST", f"/api/tasks/{task_ids[0]}/annotations/", json=body)
    for get_task in (client.get_task, LabelStudioClient(connection).get_task):  # listed before, and not
        task = get_task(task_ids[0])
        (annotation,) = task.annotations
        assert (task.task_id, task.project_id, annotation.task_id) == (task_ids[0], project_id, task_ids[0])
        assert annotation.updated_at == created["updated_at"]
        assert annotation.user_id == created["completed_by"]
        assert list(annotation.result) == [region]
        assert annotation.lead_time_s == 2.5
        assert task.updated_at == next(iter(client.iter_task_summaries(project_id))).updated_at


def test_predictions_are_pushed_in_bulk_without_moving_a_digest(
    client: LabelStudioClient, admin: LabelStudioAdmin, project_id: int, task_ids: list[int]
) -> None:
    before = list(client.iter_task_summaries(project_id))
    gone = 10_000_000
    rows = [(task_id, suggest(task_id)) for task_id in [task_ids[0], gone, *task_ids[1:]]]
    assert client.push_predictions(project_id, rows) == 3
    assert list(client.iter_task_summaries(project_id)) == before
    (placed,) = client.list_predictions(project_id, task_ids[:1])[task_ids[0]]
    assert (placed.model_version, placed.score) == (VERSION, 0.4)
    for _ in range(2):  # what is gone is left alone
        client.delete_prediction(placed.prediction_id)
    found = client.list_predictions(project_id, [*task_ids[:2], gone])
    assert {task_id: len(rows) for task_id, rows in found.items()} == {task_ids[0]: 0, task_ids[1]: 1}


def test_an_open_task_can_be_submitted_after_its_prediction_was_overwritten(
    client: LabelStudioClient, connection: Connection, project_id: int, task_ids: list[int]
) -> None:
    client.push_predictions(project_id, [(task_id, suggest(task_id)) for task_id in task_ids[:2]])
    shown = {
        i: rows[0].prediction_id for i, rows in client.list_predictions(project_id, task_ids[:2]).items()
    }
    newer = {**suggest(task_ids[0]), "model_version": "r0002-0a1b2c3d", "score": 0.7}
    client.overwrite_prediction(project_id, task_ids[0], shown[task_ids[0]], newer)
    (placed,) = client.list_predictions(project_id, task_ids[:1])[task_ids[0]]
    assert (placed.model_version, placed.score) == ("r0002-0a1b2c3d", 0.7)
    assert placed.prediction_id == shown[task_ids[0]]
    client.delete_prediction(shown[task_ids[1]])

    def submit(task_id: int) -> None:
        body = {"result": [rectangle("Reviewed")], "parent_prediction": shown[task_id]}
        connection.request("POST", f"/api/tasks/{task_id}/annotations/", json=body)

    submit(task_ids[0])
    with pytest.raises(LabelStudioRefusedError):  # why no prediction is deleted that may be open
        submit(task_ids[1])


def test_copies_of_predictions_come_back_as_predictions(
    client: LabelStudioClient, connection: Connection, project_id: int, task_ids: list[int]
) -> None:
    foreign = suggest(task_ids[1])
    for region in foreign["result"]:
        del region["origin"]  # as other tools send them
    client.push_predictions(project_id, [(task_ids[0], suggest(task_ids[0])), (task_ids[1], foreign)])
    action = {"project": project_id, "id": "predictions_to_annotations"}
    connection.request(
        "POST", "/api/dm/actions", params=action, json={"selectedItems": {"all": True, "excluded": []}}
    )
    for task_id in task_ids[:2]:
        (annotation,) = client.get_task(task_id).annotations
        painting = parse_painting(annotation.result, CONFIG, SHAPE)
        assert [region.origin for region in painting.regions] == ["prediction"]
        assert painting.reviewed == painting.findings == ()


def test_project_fields_and_the_review_tab_can_be_set_again_and_again(
    client: LabelStudioClient,
    admin: LabelStudioAdmin,
    connection: Connection,
    project_id: int,
    task_ids: list[int],
) -> None:
    client.push_predictions(project_id, [(task_ids[0], suggest(task_ids[0]))])
    admin.set_project_fields(project_id, model_version=VERSION)
    assert client.get_project(project_id).model_version == VERSION
    connection.request(
        "POST", "/api/dm/views", json={"project": project_id, "data": {"title": "Review round"}}
    )
    connection.request(
        "POST", "/api/dm/views", json={"project": project_id, "data": {"title": "Review round"}}
    )
    for version in ("r0009-0a1b2c3d", VERSION):
        client.keep_tab(project_id, describe_tab(version))
    views = connection.request("GET", "/api/dm/views", params={"project": project_id})
    (tab,) = [row for row in views if row["data"]["title"] == "Review round"]
    assert tab["data"]["ordering"] == ["tasks:predictions_score"]
    (condition,) = tab["data"]["filters"]["items"]
    assert condition["value"] == VERSION
    listed = connection.request("GET", "/api/tasks", params={"project": project_id, "view": tab["id"]})
    assert [row["id"] for row in listed["tasks"]] == task_ids[:1]


def test_a_backend_is_connected_once_and_its_webhook_gets_the_header(
    admin: LabelStudioAdmin,
    client: LabelStudioClient,
    connection: Connection,
    backend: SmallBackend,
    project_id: int,
    task_ids: list[int],
) -> None:
    row = admin.ensure_backend(project_id, backend.url, ("user", "pass"))
    assert row.is_first
    assert {"/health", "/setup"} <= set(backend.paths())
    assert client.get_project(project_id).model_version == row.title == "Brushloop"
    for _ in range(2):
        client.name_backend(project_id, {VERSION}, VERSION, lambda title: False)
        assert client.get_project(project_id).model_version == VERSION
    again = admin.ensure_backend(project_id, backend.url + "/", ("user", "pass"))
    assert again.backend_id == row.backend_id
    assert again.title == VERSION, "a set-up that is repeated leaves the order alone"

    hook_id = admin.ensure_webhook(
        project_id, f"{backend.url}/webhook", {"Authorization": "Basic dXNlcjpwYXNz"}
    )
    connection.request(
        "POST", "/api/webhooks/", json={"project": project_id, "url": f"{backend.url}/webhook"}
    )
    assert admin.ensure_webhook(project_id, f"{backend.url}/webhook", {"Authorization": "Basic x"}) == hook_id
    assert list(admin.list_webhooks(project_id)) == [hook_id]

    backend.calls.clear()
    created = {"result": [rectangle("Reviewed")]}
    connection.request("POST", f"/api/tasks/{task_ids[0]}/annotations/", json=created)
    hooks = [call for call in backend.calls if call[0] == "/webhook"]
    assert [(auth, body["action"]) for _, auth, body in hooks] == [("Basic x", "ANNOTATION_CREATED")]

    admin.delete_backend(row.backend_id)
    assert admin.list_backends(project_id) == ()
    assert list(admin.list_webhooks(project_id)) == [hook_id]  # Label Studio leaves it behind
    admin.delete_webhook(hook_id)
    assert admin.list_webhooks(project_id) == {}


def test_reading_everything_of_a_project_never_makes_label_studio_ask_for_predictions(
    admin: LabelStudioAdmin,
    client: LabelStudioClient,
    connection: Connection,
    backend: SmallBackend,
    project_id: int,
    task_ids: list[int],
) -> None:
    admin.ensure_backend(project_id, backend.url)
    admin.set_project_fields(
        project_id, show_collab_predictions=True, evaluate_predictions_automatically=True
    )
    backend.calls.clear()
    for summary in client.iter_task_summaries(project_id):
        client.get_task(summary.task_id)
    client.get_project(project_id)
    assert "/predict" not in backend.paths()
    connection.request("GET", f"/api/tasks/{task_ids[0]}")  # the trap that this is about
    assert "/predict" in backend.paths()


def test_a_project_that_is_gone_is_not_found(client: LabelStudioClient) -> None:
    for call in (
        lambda: client.get_project(10_000_000),
        lambda: list(client.iter_task_summaries(10_000_000)),
        lambda: client.get_task(10_000_000),
    ):
        with pytest.raises(LabelStudioRefusedError) as caught:
            call()
        assert caught.value.status == 404
