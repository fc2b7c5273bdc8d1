"""docker-compose.yml and the Dockerfile: complete, scalable, and without a secret."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
import yaml
from compose import (
    COMPOSE_FILE,
    ROOT,
    MissingVariableError,
    find_variables,
    interpolate,
    load_compose,
    read_example,
)

from ml_backend.config import Settings

FILLED_IN = {
    "POSTGRES_PASSWORD": "pgsecret",
    "LABEL_STUDIO_USERNAME": "a@example.org",
    "LABEL_STUDIO_PASSWORD": "lssecret",
    "LABEL_STUDIO_API_KEY": "0" * 40,
    "BASIC_AUTH_USER": "brush",
    "BASIC_AUTH_PASS": "basecret",
}

SERVICE_KEYS = {
    "build", "command", "depends_on", "environment", "healthcheck", "image", "ports", "restart",
    "stop_grace_period", "volumes",
}  # fmt: skip


@pytest.fixture
def compose():
    return load_compose(FILLED_IN)


def test_all_parts_are_there(compose):
    assert set(compose["services"]) == {"label-studio", "postgres", "redis", "web", "worker"}
    assert compose["services"]["label-studio"]["image"] == "heartexlabs/label-studio:1.23.2"


def test_only_known_keys_are_used(compose):
    assert {key for key in compose if not key.startswith("x-")} == {"services", "volumes"}
    for service in compose["services"].values():
        assert set(service) <= SERVICE_KEYS


def test_environments_are_strings_because_yaml_would_turn_false_into_something_else(compose):
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            assert isinstance(value, (str, int)), name
            assert not isinstance(value, bool), name


def test_label_studio_may_call_private_addresses_for_backends_and_for_webhooks(compose):
    environment = compose["services"]["label-studio"]["environment"]
    assert environment["ML_BLOCK_LOCAL_IP"] == environment["SSRF_PROTECTION_ENABLED"] == "false"
    assert environment["LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN"] == "true"
    assert (
        environment["LABEL_STUDIO_USER_TOKEN"]
        == compose["services"]["web"]["environment"]["LABEL_STUDIO_API_KEY"]
    )


def test_workers_can_be_scaled_and_share_all_with_the_web_process(compose):
    web, worker = compose["services"]["web"], compose["services"]["worker"]
    assert not {"container_name", "ports"} & set(worker)
    for shared in ("environment", "image", "volumes"):
        assert web[shared] == worker[shared]
    assert worker["command"] == ["brushloop", "worker"]


def test_every_part_has_a_health_check_or_says_why_not(compose):
    for name, service in compose["services"].items():
        if name == "web":
            assert "HEALTHCHECK" in (ROOT / "Dockerfile").read_text()
        else:
            assert service["healthcheck"], name


def test_who_depends_on_a_part_waits_until_it_is_healthy(compose):
    services = compose["services"]
    for service in services.values():
        for name, how in service.get("depends_on", {}).items():
            assert services[name]["healthcheck"].get("test")
            assert how == {"condition": "service_healthy"}


def test_all_data_is_in_named_volumes(compose):
    named = set()
    for service in compose["services"].values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).is_file()
                assert volume.endswith(":ro")
            else:
                named.add(source)
    assert named == set(compose["volumes"])


def test_the_environment_of_web_and_worker_is_made_of_settings(compose):
    for name, value in compose["services"]["web"]["environment"].items():
        assert name.lower() in Settings.model_fields, name
        Settings(**{name.lower(): value})


@pytest.mark.parametrize("name", FILLED_IN)
def test_a_required_variable_without_a_value_stops_everything(name):
    with pytest.raises(MissingVariableError, match=name):
        load_compose({**FILLED_IN, name: ""})


def test_the_example_names_every_variable_and_gives_no_secret_away():
    example = read_example()
    assert set(example) == find_variables(":?") | find_variables(":-")
    assert find_variables(":?") == set(FILLED_IN)
    assert all(example[name] == "" for name in FILLED_IN)
    assert ".env" in (ROOT / ".gitignore").read_text().split()


def test_no_password_key_or_token_is_written_out():
    for name, service in yaml.safe_load(COMPOSE_FILE.read_text())["services"].items():
        for variable, value in service.get("environment", {}).items():
            if re.search("PASS|TOKEN|KEY|SECRET", variable) and "ENABLE" not in variable:
                assert value.startswith("${"), (name, variable)


def test_interpolation_follows_docker():
    assert interpolate("${A:-b} ${C} ${D:-}", {"C": "c"}) == "b c "
    assert interpolate("${A:-b}", {"A": "a"}) == "a"


def test_docker_itself_accepts_the_file(tmp_path):
    if (
        not shutil.which("docker")
        or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode
    ):
        pytest.skip("Docker's compose plugin is not installed here; the tests above read the file without it")
    (tmp_path / "env").write_text("".join(f"{name}={value}\n" for name, value in FILLED_IN.items()))
    command = ["docker", "compose", "-f", COMPOSE_FILE, "--env-file", tmp_path / "env", "config", "--quiet"]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def test_the_image_runs_as_nobody_special_and_names_no_package_index():
    text = (ROOT / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    assert lines[0].startswith("FROM python:3.11-slim")
    assert next(i for i, line in enumerate(lines) if line.startswith("USER brushloop")) < next(
        i for i, line in enumerate(lines) if line.startswith("CMD")
    )
    assert "-c constraints.txt" in text
    assert not re.search(r"https?://(?!127\.0\.0\.1)", text)


def test_the_image_is_given_every_file_that_it_copies():
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for line in (ROOT / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY "):
            assert set(line.split()[1:-1]) <= allowed


def test_the_image_holds_every_package():
    text = (ROOT / "Dockerfile").read_text()
    for package in sorted(path.parent.name for path in ROOT.glob("*/py.typed")):
        assert f"COPY {package} {package}\n" in text, package
