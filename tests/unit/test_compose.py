"""docker-compose.yml and the Dockerfile: complete, scalable, and without a secret."""

from __future__ import annotations

import fnmatch
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

DOCKERFILE = (ROOT / "Dockerfile").read_text()

SERVICE_KEYS = {
    "build", "cap_drop", "command", "depends_on", "deploy", "environment", "healthcheck", "image", "logging",
    "ports", "profiles", "read_only", "restart", "security_opt", "stop_grace_period", "tmpfs", "volumes",
}  # fmt: skip


@pytest.fixture
def compose():
    return load_compose(FILLED_IN)


def test_all_parts_are_there(compose):
    assert set(compose["services"]) == {"label-studio", "postgres", "redis", "web", "worker", "worker-cuda"}
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


def test_only_who_asks_for_cuda_gets_it(compose):
    services = compose["services"]
    assert "ARG TORCH_BACKEND=cpu" in DOCKERFILE
    assert services["web"]["build"] == services["worker"]["build"] == "."
    cuda = services["worker-cuda"]
    assert cuda["profiles"] == ["cuda"]
    assert cuda["build"]["args"]["TORCH_BACKEND"].startswith("cu1")
    for shared in ("command", "environment", "volumes", "read_only"):
        assert cuda[shared] == services["worker"][shared]


def test_our_containers_write_to_their_volume_and_to_memory_alone(compose):
    for name in ("web", "worker", "worker-cuda"):
        service = compose["services"][name]
        assert service["read_only"] is True
        assert service["tmpfs"] == ["/tmp"]
        assert service["volumes"] == ["brushloop-data:/data"]
        assert service["environment"]["DATA_DIR"] == "/data"
        assert service["cap_drop"] == ["ALL"]


def test_the_image_runs_as_nobody_special_and_names_no_package_index():
    lines = [line for line in DOCKERFILE.splitlines() if line and not line.lstrip().startswith("#")]
    last = max(number for number, line in enumerate(lines) if line.startswith("FROM "))
    user, command = (
        next(number for number, line in enumerate(lines) if number > last and line.startswith(start))
        for start in ("USER brushloop", "CMD")
    )
    assert user < command
    assert "useradd --create-home --uid 1000 brushloop" in DOCKERFILE
    assert "-c constraints.txt" in DOCKERFILE
    assert not re.search(r"https?://(?!127\.0\.0\.1)", DOCKERFILE)


def test_the_image_is_made_of_whole_packages_and_nothing_else():
    """No package is named in the Dockerfile, so none can be forgotten; what is left out, is named."""
    assert "COPY . .\n" in DOCKERFILE
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    given = {path for path in tracked.stdout.split() if not is_ignored(path)}
    packages = {path.parent.name for path in ROOT.glob("*/py.typed")}
    assert {path.split("/")[0] for path in given if "/" in path} == packages
    assert {"pyproject.toml", "constraints.txt", "README.md", "LICENSE"} <= given
    for package in packages:
        assert any(path.startswith(f"{package}/") for path in given)


@pytest.mark.parametrize(
    "path",
    [".env", ".git/config", ".venv/bin/python", ".venv-label-studio/bin/python", ".brushloop/login.json",
     "tests/conftest.py", "core/__pycache__/rle.pyc", "brushloop.egg-info/PKG-INFO", "build/lib/core/rle.py",
     "dist/brushloop.whl", "test-artifacts/1.png"],
)  # fmt: skip
def test_secrets_data_and_what_tools_left_stay_out_of_the_image(path):
    assert is_ignored(path)


def is_ignored(path: str) -> bool:
    """What Docker does with .dockerignore, as far as ours goes: the last pattern that fits decides."""
    ignored = False
    parts = path.split("/")
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        anywhere = pattern.startswith("**/")
        names = parts if anywhere else parts[:1]
        if any(fnmatch.fnmatchcase(name, pattern.removeprefix("**/")) for name in names):
            ignored = not line.startswith("!")
    return ignored


def test_what_each_service_says_has_a_cap(compose):
    for service in compose["services"].values():
        options = service["logging"]["options"]
        assert options["max-size"].endswith("m")
        assert int(options["max-file"]) * int(options["max-size"].rstrip("m")) <= 100
