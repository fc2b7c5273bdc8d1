"""`brushloop setup`: everything is checked before anything is made, and nothing half-made stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from rich.console import Console

from ml_backend.command import setup_project
from ml_backend.command.folder_of_images import sort_images
from ml_backend.command.import_folder import Imported
from ml_backend.command.setup_project import (
    ProjectPlan,
    read_default_config,
    set_up_project,
)
from ml_backend.config import Settings
from ml_backend.errors import LabelConfigError, LabelStudioRefusedError, ServiceError
from ml_backend.label_studio.admin import BackendRow
from ml_backend.ports import ProjectRecord

BACKEND = "http://backend:9090"
ONE_LABEL = (
    '<View><Image name="image" value="$image"/>'
    '<BrushLabels name="brush" toName="image"><Label value="Crack"/></BrushLabels></View>'
)


class FakeAdmin:
    """What `LabelStudioAdmin` does, over a dictionary of projects."""

    def __init__(self) -> None:
        self.projects: dict[int, ProjectRecord] = {}
        self.uploaded: list[str] = []
        self.is_token_good = True
        self.reaches_backend = True
        self.done: list[str] = []
        self.has_own_instruction = False
        self.backends = (BackendRow(1, BACKEND, "Brushloop", "Connected", None, is_first=True),)

    def check_token(self) -> str:
        if not self.is_token_good:
            raise LabelStudioRefusedError("the token is refused", 401)
        return "ann@example.org"

    def find_project(self, title: str) -> ProjectRecord | None:
        return next((one for one in self.projects.values() if one.title == title), None)

    def ensure_project(self, title: str, label_config: str) -> ProjectRecord:
        known = self.find_project(title)
        number = known.project_id if known else len(self.projects) + 1
        self.projects[number] = ProjectRecord(number, title, label_config, None, "1")
        return self.projects[number]

    def set_project_fields(self, project_id: int, **fields: Any) -> ProjectRecord:
        changes = {name: value for name, value in fields.items() if name == "label_config"}
        self.projects[project_id] = replace(self.projects[project_id], **changes)
        return self.projects[project_id]

    def delete_project(self, project_id: int) -> None:
        del self.projects[project_id]

    def ensure_instruction(self, project_id: int) -> bool:
        return not self.has_own_instruction

    def upload_images(self, project_id: int, paths: Any) -> int:
        self.uploaded += [path.name for path in paths]
        return len(paths)

    def ensure_backend(self, project_id: int, url: str, auth: Any) -> None:
        if not self.reaches_backend:
            raise LabelStudioRefusedError("the health check failed", 400)

    def list_backends(self, project_id: int) -> tuple[BackendRow, ...]:
        return self.backends

    def delete_backend(self, backend_id: int) -> None:
        self.backends = tuple(row for row in self.backends if row.backend_id != backend_id)

    def list_webhooks(self, project_id: int) -> dict[int, str]:
        return {}

    def find_webhook_key(self, project_id: int) -> str:
        return ""

    def ensure_webhook(self, *arguments: Any) -> int:
        return 1


@pytest.fixture
def admin(monkeypatch: pytest.MonkeyPatch) -> FakeAdmin:
    admin = FakeAdmin()
    monkeypatch.setattr(setup_project, "LabelStudioAdmin", lambda connection: admin)
    client = SimpleNamespace(get_project=lambda number: admin.projects[number])
    monkeypatch.setattr(setup_project, "LabelStudioClient", lambda connection: client)
    return admin


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images, one that is none, one that browsers do not show, and a note."""
    picture = np.arange(64, dtype=np.uint8).reshape(8, 8)
    for name in ("a.png", "b.jpg", "deep.tif"):
        cv2.imwrite(str(tmp_path / name), picture)
    (tmp_path / "c.png").write_text("<!doctype html><title>Sign in</title>")
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def run(plan: ProjectPlan) -> list[str]:
    said: list[str] = []
    set_up_project(SimpleNamespace(url="http://ls"), plan, Settings(), said.append)  # type: ignore[arg-type]
    return said


def plan(**changes: Any) -> ProjectPlan:
    return replace(ProjectPlan("Cells", BACKEND, read_default_config()), **changes)


def test_a_mixed_folder_uploads_what_can_be_uploaded_and_lists_the_rest(
    admin: FakeAdmin, folder: Path
) -> None:
    said = run(plan(images=sort_images(folder, Settings())))
    assert admin.uploaded == ["a.png", "b.jpg"]
    left_out = [line for line in said if "left out" in line]
    assert [line.split()[0] for line in left_out] == ["c.png", "deep.tif"]
    assert "save it as PNG" in left_out[1]


def test_a_folder_in_which_nothing_can_be_uploaded_says_why(tmp_path: Path) -> None:
    (tmp_path / "slide.tiff").write_bytes(b"II*\0")
    with pytest.raises(ServiceError, match=r"slide\.tiff: .*PNG"):
        sort_images(tmp_path, Settings())


@pytest.mark.parametrize("broken", ["folder", "token", "setup", "backend"])
def test_nothing_is_left_behind_when_something_is_wrong(
    admin: FakeAdmin, tmp_path: Path, folder: Path, broken: str
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    admin.is_token_good = broken != "token"
    admin.reaches_backend = broken != "backend"
    with pytest.raises(ServiceError):
        run(
            plan(
                images=sort_images(empty if broken == "folder" else folder, Settings()),
                label_config=ONE_LABEL if broken == "setup" else read_default_config(),
            )
        )
    assert admin.projects == {}
    assert admin.uploaded == []


def test_that_a_new_project_is_removed_again_is_said(admin: FakeAdmin) -> None:
    admin.reaches_backend = False
    said: list[str] = []
    with pytest.raises(ServiceError):
        set_up_project(SimpleNamespace(url="http://ls"), plan(), Settings(), said.append)  # type: ignore[arg-type]
    assert said[-1] == "project 1 was new and is removed again, because it could not be connected"


def test_a_project_that_was_there_stays_when_it_cannot_be_connected(admin: FakeAdmin) -> None:
    admin.ensure_project("Cells", read_default_config())
    admin.reaches_backend = False
    with pytest.raises(ServiceError, match="cannot reach"):
        run(plan())
    assert [one.title for one in admin.projects.values()] == ["Cells"]


def test_one_label_without_background_is_said_with_the_mend(admin: FakeAdmin) -> None:
    with pytest.raises(LabelConfigError, match=r"Background.*--add-background"):
        run(plan(label_config=ONE_LABEL))


def test_the_mend_adds_background_to_a_project_that_is_there(admin: FakeAdmin) -> None:
    number = admin.ensure_project("Cracks", ONE_LABEL).project_id
    run(plan(project_id=number, label_config=None, add_background=True))
    assert '<Label value="Background"/><Label value="Crack"/>' in admin.projects[number].label_config


def test_a_setup_that_no_label_can_mend_is_answered_with_another_one(admin: FakeAdmin) -> None:
    with pytest.raises(LabelConfigError, match="--config"):
        run(plan(label_config="<View/>", add_background=True))


def test_an_instruction_that_people_wrote_is_left_alone_and_that_is_said(admin: FakeAdmin) -> None:
    assert any("shows annotators how to paint" in line for line in run(plan()))
    admin.has_own_instruction = True
    (line,) = [line for line in run(plan()) if "instruction" in line]
    assert "keeps the instruction that it has" in line
    assert "empty it" in line


def test_what_import_brings_in_afterwards_is_not_listed_as_left_out(admin: FakeAdmin, folder: Path) -> None:
    found = sort_images(folder, Settings(), imports_rest=True)
    said = run(plan(images=found))
    assert [line.split()[0] for line in said if "left out" in line] == ["c.png"]
    assert [path.name for path in found.to_import] == ["deep.tif"]


def test_setup_hands_to_import_what_label_studio_does_not_take(
    admin: FakeAdmin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slide.tif").write_bytes(b"II*\0")
    handed: list[Any] = []
    monkeypatch.setattr(
        "ml_backend.command.import_command.run_import",
        lambda settings, project_id, folder, choices, only: handed.append((project_id, only)) or Imported(),
    )
    settings = Settings(label_studio_api_key="k")  # type: ignore[arg-type]
    setup_project.run_setup(settings, None, "Cells", None, tmp_path, BACKEND, Console(quiet=True))
    assert handed == [(1, (tmp_path / "slide.tif",))]
    assert admin.uploaded == []


def test_a_backend_that_was_connected_twice_is_connected_once(admin: FakeAdmin) -> None:
    admin.backends += (BackendRow(2, f"{BACKEND}/", "Brushloop", "Connected", None, is_first=False),)
    run(plan())
    assert [row.backend_id for row in admin.backends] == [1]


def test_another_backend_that_is_asked_first_is_named(admin: FakeAdmin) -> None:
    admin.backends = (
        BackendRow(1, "http://sam:9090", "SAM", "Connected", None, is_first=True),
        BackendRow(2, BACKEND, "Brushloop", "Connected", None, is_first=False),
    )
    with pytest.raises(ServiceError, match=r"'SAM' at http://sam:9090, before this one"):
        run(plan())
    assert len(admin.backends) == 2
