"""Label Studio's API over a transport that answers as the real one was seen to."""

from __future__ import annotations

import base64
import gzip
import json
import operator
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import httpx
import pytest

from ml_backend.errors import LabelStudioRefusedError, LabelStudioUnavailableError
from ml_backend.label_studio import client as client_module
from ml_backend.label_studio import connection as connection_module
from ml_backend.label_studio.admin import LabelStudioAdmin, stored_name
from ml_backend.label_studio.client import LabelStudioClient
from ml_backend.label_studio.connection import Connection

URL = "http://studio:8080"
KEY = "0123456789abcdef0123456789abcdef01234567"
PREDICTION = {"result": [], "score": 0.5, "model_version": "v1"}

Handler = Callable[[httpx.Request], httpx.Response]


def jwt(kind: str, serial: int = 0) -> str:
    """A token that looks right; its signature is nobody's business here."""

    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    claims = {"token_type": kind, "exp": 8_102_588_799, "jti": str(serial)}
    return f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims)}.c2lnbmF0dXJl"


def connect(handler: Handler, key: str = KEY, url: str = URL) -> closing[Connection]:
    return closing(Connection(url, key, transport=httpx.MockTransport(handler)))


class Server:
    """Gives fresh access tokens for a personal one; `valid` is the access token that is taken right now."""

    def __init__(self) -> None:
        self.n_refreshed = 0
        self.valid = ""
        self.seen: list[str | None] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/api/token/refresh/"):
            self.n_refreshed += 1
            self.valid = jwt("access", self.n_refreshed)
            return httpx.Response(200, json={"access": self.valid})
        self.seen.append(request.headers.get("Authorization"))
        if self.seen[-1] not in (f"Bearer {self.valid}", f"Token {KEY}"):
            return httpx.Response(401, json={"detail": "Invalid token."})
        return httpx.Response(200, json={"path": request.url.path})


def test_a_legacy_key_is_sent_as_it_is() -> None:
    server = Server()
    with connect(server) as connection:
        assert connection.request("GET", "/api/x") == {"path": "/api/x"}
        assert connection.authorization() == f"Token {KEY}"
    assert server.n_refreshed == 0


def test_a_personal_access_token_is_exchanged_once() -> None:
    server = Server()
    with connect(server, key=jwt("refresh")) as connection:
        for _ in range(3):
            connection.request("GET", "/api/x")
        assert connection.authorization() == f"Bearer {server.valid}"
    assert server.n_refreshed == 1


def test_an_access_token_that_ran_out_is_replaced_and_the_call_repeated() -> None:
    server = Server()
    with connect(server, key=jwt("refresh")) as connection:
        connection.request("GET", "/api/x")
        server.valid = "something newer"
        assert connection.request("GET", "/api/y") == {"path": "/api/y"}
    assert server.n_refreshed == 2


def test_a_path_prefix_of_the_server_is_kept() -> None:
    paths = []

    def handler(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.path)
        return httpx.Response(200, json={"access": jwt("access")})

    with connect(handler, key=jwt("refresh"), url="http://host/studio/") as connection:
        connection.request("GET", "/api/x")
    assert paths == ["/studio/api/token/refresh/", "/studio/api/x"]


@pytest.mark.parametrize("key", [KEY, jwt("refresh")])
def test_a_credential_that_is_refused_is_told_without_being_shown(key: str) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(401, json={"detail": f"Invalid token {key}."})

    with (
        connect(handler, key=key) as connection,
        pytest.raises(LabelStudioRefusedError, match="LABEL_STUDIO_API_KEY") as caught,
    ):
        connection.request("GET", "/api/x")
    assert caught.value.status == 401
    assert key not in str(caught.value)


def test_a_token_that_ran_out_for_good_is_refused_before_any_call() -> None:
    expired = jwt("refresh").split(".")
    claims = base64.urlsafe_b64encode(json.dumps({"token_type": "refresh", "exp": 1000}).encode()).decode()
    expired[1] = claims.rstrip("=")
    with (
        connect(lambda request: httpx.Response(200, json={}), key=".".join(expired)) as connection,
        pytest.raises(LabelStudioRefusedError, match="expired"),
    ):
        connection.request("GET", "/api/x")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, LabelStudioRefusedError),
        (403, LabelStudioRefusedError),
        (404, LabelStudioRefusedError),
        (302, LabelStudioRefusedError),
        (429, LabelStudioUnavailableError),
        (500, LabelStudioUnavailableError),
        (503, LabelStudioUnavailableError),
    ],
)
def test_an_answer_that_is_no_success_becomes_one_of_two_errors(status: int, error: type[Exception]) -> None:
    calls = []

    def handler(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        return httpx.Response(status, json={"detail": "No Project matches the given query."})

    with connect(handler) as connection, pytest.raises(error):
        connection.request("POST", "/api/x", json={})
    assert len(calls) == 1  # what may have been stored is not sent again


@pytest.mark.parametrize(
    "failure", [httpx.ConnectError("refused"), httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("odd")]
)
def test_a_network_that_fails_is_unavailable(failure: Exception) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise failure

    with connect(handler) as connection, pytest.raises(LabelStudioUnavailableError, match="studio:8080"):
        connection.request("GET", "/api/x")


@pytest.mark.parametrize("key", [KEY, jwt("refresh")])
def test_a_page_instead_of_json_is_unavailable(key: str) -> None:
    with (
        connect(lambda request: httpx.Response(200, text="<html>hello</html>"), key=key) as connection,
        pytest.raises(LabelStudioUnavailableError, match="is it Label Studio"),
    ):
        connection.request("GET", "/api/x")


@pytest.mark.parametrize("url", ["studio:8080", "ftp://studio", "http://[broken", "http://studio:123456"])
def test_an_address_that_is_none_is_unavailable(url: str) -> None:
    with closing(Connection(url, KEY)) as connection, pytest.raises(LabelStudioUnavailableError):
        connection.request("GET", "/api/x")


def test_a_long_complaint_is_cut() -> None:
    body = {"detail": "Validation error", "validation_errors": {"non_field_errors": ["x" * 100_000]}}
    with (
        connect(lambda request: httpx.Response(400, json=body)) as connection,
        pytest.raises(LabelStudioRefusedError) as caught,
    ):
        connection.request("GET", "/api/x")
    assert len(str(caught.value)) < 500


class Tasks:
    """The Data Manager's listing, cut by id as it is asked for."""

    def __init__(self, n_tasks: int) -> None:
        self.ids = list(range(1, n_tasks + 1))
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        params = request.url.params
        chosen = self.ids
        for condition in json.loads(params["query"])["filters"]["items"]:
            column: Callable[[int], int] = {
                "filter:tasks:id": lambda i: i,
                "filter:tasks:total_annotations": lambda i: i % 2,
            }[condition["filter"]]
            compare: Callable[[Any, Any], bool] = {
                "greater": operator.gt,
                "equal": operator.eq,
                "in_list": lambda value, wanted: value in wanted,
            }[condition["operator"]]
            chosen = [i for i in chosen if compare(column(i), condition["value"])]
        rows = [self.row(i) for i in chosen[: int(params["page_size"])]]
        return httpx.Response(200, json={"total": len(self.ids), "tasks": rows})

    @staticmethod
    def row(task_id: int) -> dict[str, Any]:
        annotation = {
            "id": 100 + task_id,
            "result": [],
            "completed_by": 1,
            "updated_at": "2026-11-22T00:00:00Z",
        }
        return {
            "id": task_id,
            "project": 3,
            "data": {"image": f"/data/upload/3/{task_id}.png"},
            "updated_at": "2026-11-22T00:00:00Z",
            "annotations": [annotation] if task_id % 2 else [],
        }


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PAGE_SIZE", 4)


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("n_tasks", [0, 1, 3, 4, 5, 8, 11])
def test_all_tasks_are_listed_once_in_their_order(n_tasks: int) -> None:
    with connect(Tasks(n_tasks)) as connection:
        summaries = list(LabelStudioClient(connection).iter_task_summaries(3))
    assert [summary.task_id for summary in summaries] == list(range(1, n_tasks + 1))
    assert all(
        summary.annotation_ids == ((100 + summary.task_id,) if summary.task_id % 2 else ())
        for summary in summaries
    )


@pytest.mark.usefixtures("small_pages")
def test_a_task_deleted_while_listing_hides_no_other() -> None:
    tasks = Tasks(9)
    listed = []
    with connect(tasks) as connection:
        for summary in LabelStudioClient(connection).iter_task_summaries(3):
            listed.append(summary.task_id)
            if summary.task_id == 4:
                tasks.ids.remove(1)
    assert listed == list(range(1, 10))


@pytest.mark.usefixtures("small_pages")
def test_painted_tasks_are_listed_and_known_ones_that_are_there_besides() -> None:
    tasks = Tasks(40)
    with connect(tasks) as connection:
        summaries = list(LabelStudioClient(connection).iter_painted_summaries(3, {1, 2, 4, 8, 20, 38, 50}))
    assert [summary.task_id for summary in summaries] == [*range(1, 40, 2), 2, 4, 8, 20, 38]
    assert [len(summary.annotation_ids) for summary in summaries] == [1] * 20 + [0] * 5
    assert len(tasks.requests) == 6 + 2  # pages of four: painted ones until one is not full, then known ones


@pytest.mark.usefixtures("small_pages")
def test_listing_asks_for_no_region_and_causes_no_prediction() -> None:
    tasks = Tasks(2)
    with connect(tasks) as connection:
        list(LabelStudioClient(connection).iter_task_summaries(3))
    params = tasks.requests[0].url.params
    assert "result" not in params["include"]
    assert params["review"] == "true"  # anything else may make Label Studio call /predict
    assert params["resolve_uri"] == "false"


def test_a_listed_task_is_fetched_without_causing_a_prediction() -> None:
    tasks = Tasks(3)
    with connect(tasks) as connection:
        client = LabelStudioClient(connection)
        list(client.iter_task_summaries(3))
        task = client.get_task(1)
    assert (task.task_id, task.project_id) == (1, 3)
    assert [annotation.annotation_id for annotation in task.annotations] == [101]
    assert {request.url.path for request in tasks.requests} == {"/api/tasks"}


def test_a_listed_task_that_is_gone_is_not_found() -> None:
    tasks = Tasks(3)
    with connect(tasks) as connection:
        client = LabelStudioClient(connection)
        list(client.iter_task_summaries(3))
        tasks.ids.remove(2)
        with pytest.raises(LabelStudioRefusedError) as caught:
            client.get_task(2)
    assert caught.value.status == 404


@pytest.mark.parametrize("answer", [[], {}, {"tasks": [{"id": "x"}]}, {"tasks": [{"id": 1}]}, None])
def test_an_answer_that_makes_no_sense_is_the_servers_failure(answer: Any) -> None:
    with connect(lambda request: httpx.Response(200, json=answer)) as connection:
        client = LabelStudioClient(connection)
        with pytest.raises(LabelStudioUnavailableError):
            list(client.iter_task_summaries(3))
        with pytest.raises(LabelStudioUnavailableError):
            client.get_task(1)
        with pytest.raises(LabelStudioUnavailableError):
            client.get_project(1)


def test_a_project_is_read() -> None:
    row = {"id": 3, "title": "t", "label_config": "<View/>", "created_at": "2026-11-22T07:18:49.192769Z"}
    with connect(lambda request: httpx.Response(200, json=row)) as connection:
        project = LabelStudioClient(connection).get_project(3)
    assert (project.project_id, project.created_at, project.model_version) == (3, "1795331929", None)


class Predictions:
    """The bulk import: wrong items are dropped in silence, an unknown task spoils the whole list."""

    def __init__(self, known: range) -> None:
        self.known = known
        self.kept: list[int] = []
        self.sizes: list[int] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        rows = json.loads(request.content)
        self.sizes.append(len(rows))
        if any(row["task"] not in self.known for row in rows):
            return httpx.Response(400, json={"detail": "Validation error"})
        self.kept += [row["task"] for row in rows if row["result"] != "wrong"]
        return httpx.Response(201, json={"created": sum(row["result"] != "wrong" for row in rows)})


def push(server: Handler, task_ids: range, **changes: Any) -> int:
    with connect(server) as connection:
        rows = [(task_id, {**PREDICTION, **changes}) for task_id in task_ids]
        return LabelStudioClient(connection).push_predictions(3, rows)


def test_predictions_go_out_in_batches() -> None:
    server = Predictions(range(1, 1000))
    assert push(server, range(1, 451)) == 450
    assert server.sizes == [200, 200, 50]


def test_a_batch_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_BATCH_BYTES", 1000)
    server = Predictions(range(1, 10))
    assert push(server, range(1, 6), result=["x" * 600]) == 5
    assert server.sizes == [1] * 5


def test_nothing_to_push_is_no_call() -> None:
    server = Predictions(range(1, 10))
    assert push(server, range(0)) == 0
    assert server.sizes == []


def test_a_task_that_is_gone_costs_only_its_own_prediction() -> None:
    server = Predictions(range(1, 100))
    assert push(server, range(90, 110)) == 10
    assert server.kept == list(range(90, 100))


def test_what_label_studio_drops_is_not_counted() -> None:
    assert push(Predictions(range(1, 10)), range(1, 4), result="wrong") == 0


def test_a_number_that_is_no_number_is_never_sent() -> None:
    with pytest.raises(ValueError, match="JSON"):
        push(Predictions(range(1, 10)), range(1, 2), score=float("nan"))


def test_a_private_address_that_label_studio_refuses_is_explained() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json=[])
        return httpx.Response(403, json={"detail": "URL is forbidden"})

    with connect(handler) as connection:
        admin = LabelStudioAdmin(connection)
        for call in (
            lambda: admin.ensure_backend(1, "http://10.0.0.5:9090"),
            lambda: admin.ensure_webhook(1, "http://10.0.0.5:9090/webhook"),
        ):
            with pytest.raises(LabelStudioRefusedError, match=r"ML_BLOCK_LOCAL_IP.*SSRF_PROTECTION_ENABLED"):
                call()


def test_the_page_may_ask_our_backend_with_its_smart_tools() -> None:
    rows: list[dict[str, Any]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            rows.append({"id": 4, "model_version": "v1", **json.loads(request.content)})
            return httpx.Response(201, json=rows[-1])
        return httpx.Response(200, json=rows)

    with connect(handler) as connection:
        LabelStudioAdmin(connection).ensure_backend(1, "http://us")
    assert rows[0]["is_interactive"] is True


def test_uploaded_files_are_recognised_by_the_name_that_label_studio_gives() -> None:
    assert stored_name("my cell (1).png") == "my_cell_1.png"
    assert stored_name("Zählung-2.tif") == "Zählung-2.tif"


def test_our_backend_gets_the_title_of_the_version_and_keeps_its_password() -> None:
    rows = [
        {"id": 8, "url": "http://us", "title": "Brushloop", "model_version": "v1", "auth_method": "NONE"},
        {"id": 3, "url": "http://sam", "title": "SAM", "model_version": "sam-1", "auth_method": "NONE"},
        {
            "id": 5,
            "url": "http://us",
            "title": "called by hand",
            "model_version": "v1",
            "auth_method": "BASIC_AUTH",
            "basic_auth_user": "me",
        },
    ]
    sent: list[tuple[str, Any]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json=rows)
        sent.append((request.url.path, json.loads(request.content)))
        return httpx.Response(200, json={})

    with connect(handler) as connection:
        LabelStudioClient(connection).name_backend(1, {"v1", "v2"}, "v2", lambda title: False)
    ((path, body),) = sent
    assert path == "/api/ml/5"
    assert body == {
        "url": "http://us",
        "project": 1,
        "title": "v2",
        "auth_method": "BASIC_AUTH",
        "basic_auth_user": "me",
        "basic_auth_pass": "",
    }


def test_a_prediction_that_is_gone_is_left_alone() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(404, json={"detail": "Not found."})

    with connect(handler) as connection:
        client = LabelStudioClient(connection)
        client.delete_prediction(7)
        client.overwrite_prediction(1, 2, 7, PREDICTION)
        with pytest.raises(LabelStudioRefusedError):
            client.set_model_version(1, "v1")


def test_a_listing_without_predictions_is_not_taken_for_an_empty_one() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"tasks": [{"id": 1}]})

    with connect(handler) as connection, pytest.raises(LabelStudioUnavailableError):
        LabelStudioClient(connection).list_predictions(1, [1])


class Endless(httpx.SyncByteStream):
    """A body without an end; `sent` counts what was asked for."""

    def __init__(self) -> None:
        self.sent = 0

    def __iter__(self) -> Iterator[bytes]:
        while True:
            self.sent += 1_000_000
            yield bytes(1_000_000)


@pytest.mark.parametrize("is_packed", [False, True])
def test_an_answer_without_an_end_is_given_up_before_it_takes_all_memory(
    monkeypatch: pytest.MonkeyPatch, is_packed: bool
) -> None:
    monkeypatch.setattr(connection_module, "MOST_ANSWER_MB", 3)
    endless, packed = Endless(), gzip.compress(bytes(10_000_000))

    def answer(_: httpx.Request) -> httpx.Response:
        if is_packed:
            return httpx.Response(200, stream=Pieces(packed), headers={"content-encoding": "gzip"})
        return httpx.Response(200, stream=endless)

    with connect(answer) as connection, pytest.raises(LabelStudioUnavailableError, match="more than 3 MB"):
        connection.request("GET", "/api/tasks")
    assert endless.sent <= 4_000_000


class Pieces(httpx.SyncByteStream):
    """A body that arrives in pieces, as from a socket."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self.body), 1000):
            yield self.body[start : start + 1000]


def test_an_answer_in_pieces_is_read_whole_also_by_the_sdk() -> None:
    server, body = Server(), json.dumps({"tasks": list(range(1000))}).encode()

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/api/token/refresh/"):
            whole = server(request)
            return httpx.Response(200, stream=Pieces(whole.content))
        return httpx.Response(200, stream=Pieces(body))

    with connect(answer, jwt("refresh")) as connection:
        assert len(connection.request("GET", "/api/tasks")["tasks"]) == 1000
        assert connection.authorization().startswith("Bearer ")


@pytest.mark.parametrize("body", [b'{"tasks": [{"id": 1', b"[" * 200_000, b"\xff\xfe", b"<html>"])
def test_an_answer_that_is_cut_off_or_no_json_is_a_failure_of_label_studio(body: bytes) -> None:
    with (
        connect(lambda _: httpx.Response(200, content=body)) as connection,
        pytest.raises(LabelStudioUnavailableError, match="not JSON"),
    ):
        connection.request("GET", "/api/tasks")


@pytest.mark.parametrize("answer", [None, 3, "text", {}, {"detail": "no"}, [3], [{"id": "x"}], [{"data": 1}]])
def test_lists_of_another_shape_are_a_failure_of_label_studio(answer: Any) -> None:
    with connect(lambda _: httpx.Response(200, json=answer)) as connection:
        client = LabelStudioClient(connection)
        calls: list[Callable[[], object]] = [
            lambda: client.keep_tab(1, {"title": "By the model"}),
            lambda: client.name_backend(1, {"v1"}, "v2", lambda title: True),
            lambda: client.list_predictions(1, [1]),
            lambda: client.list_predicted_regions(1, 1),
            lambda: list(client.iter_task_summaries(1)),
            lambda: client.get_project(1),
        ]
        for call in calls:
            with suppress(LabelStudioUnavailableError):  # nothing else comes out of them
                call()


def test_a_listing_that_gives_the_same_page_again_and_again_ends() -> None:
    rows = [
        {"id": number, "updated_at": "2026-01-01T00:00:00Z", "data": {"image": "a"}, "annotations": []}
        for number in range(1, client_module.PAGE_SIZE + 1)
    ]
    with (
        connect(lambda _: httpx.Response(200, json={"tasks": rows})) as connection,
        pytest.raises(LabelStudioUnavailableError, match="the same page"),
    ):
        list(LabelStudioClient(connection).iter_task_summaries(1))


def test_what_label_studio_does_not_know_is_said_with_the_remedy() -> None:
    with (
        connect(lambda _: httpx.Response(404, json={"detail": "Not found."})) as connection,
        pytest.raises(
            LabelStudioRefusedError, match=r"\(404: Not found\.\); see that nobody deleted it"
        ) as caught,
    ):
        connection.request("GET", "/api/projects/1")
    assert caught.value.status == 404
