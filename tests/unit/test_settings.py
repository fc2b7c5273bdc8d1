"""Settings: what cannot work is refused at the start, in words that give the right form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import SecretStr, ValidationError

from ml_backend.command.cli import commands
from ml_backend.config import Settings


@pytest.mark.parametrize("name", ["label_studio_url", "brushloop_url"])
@pytest.mark.parametrize(
    "value",
    ["localhost:8080", "", "ftp://host", "http://", "http://user:pw@host", "http://host?x=1", "http://a b"],
)
def test_an_address_without_the_form_of_one_is_refused_with_the_form(name: str, value: str) -> None:
    with pytest.raises(ValidationError, match="write it as http://host:8080"):
        Settings(**{name: value})


@pytest.mark.parametrize(
    "value",
    ["http://localhost:8080", "https://tools.example.org/label-studio/", "http://[::1]:8080", "http://ls"],
)
def test_an_address_is_kept_without_its_last_slash(value: str) -> None:
    assert Settings(label_studio_url=value).label_studio_url == value.rstrip("/")


@pytest.mark.parametrize(
    "value",
    ["https://b.s3.amazonaws.com", "*.s3.amazonaws.com", "b.s3.amazonaws.com/", "a host", "host:port"],
)
def test_an_image_host_that_can_never_match_is_refused_with_the_form(value: str) -> None:
    with pytest.raises(ValidationError, match="write each as host or host:port"):
        Settings(allowed_image_hosts=(value,))


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("database_url", "mysql://user:secret@host/name", "write it as postgresql://"),
        ("database_url", "secret", "write it as postgresql://"),
        ("redis_url", "http://:secret@host", "write it as redis://"),
        ("redis_url", "secret", "write it as redis://"),
        ("label_studio_api_key", "secret-ключ", "no spaces: copy it anew"),
        ("label_studio_api_key", "secret\r\nX-Other: 1", "no spaces: copy it anew"),
        ("basic_auth_user", "ann:secret", "choose another"),
        ("label_studio_url", "http://host:99999", "write it as http://host:8080"),
        ("web_threads", 100_000, "less than or equal to 1024"),
        ("data_dir", "", "name a folder, or unset it"),
        ("data_dir", " ", "name a folder, or unset it"),
        ("label_studio_venv", "", "name a folder, or unset it"),
        ("quiet_time_s", "inf", "finite number"),
        ("round_budget_s", "inf", "finite number"),
        ("reconcile_every_s", "1e400", "finite number"),
    ],
)
def test_what_can_never_work_is_refused_with_the_remedy(name: str, value: object, remedy: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(**{name: value})  # type: ignore[arg-type]
    (error,) = refused.value.errors(include_input=False)
    assert remedy in error["msg"]
    assert "secret" not in error["msg"]


def test_a_token_is_kept_without_the_line_break_that_it_was_copied_with() -> None:
    key = Settings(label_studio_api_key=SecretStr("a.b-c_d\n")).label_studio_api_key
    assert key is not None
    assert key.get_secret_value() == "a.b-c_d"


@pytest.mark.parametrize("value", ["b.s3.amazonaws.com", "minio:9000", "10.0.0.7", "[::1]:9000", "::1"])
def test_hosts_with_and_without_a_port_are_image_hosts(value: str) -> None:
    read: Any = Settings(allowed_image_hosts=(value,)).allowed_image_hosts
    assert read == (value,)


THEIRS = {
    "MODEL_DIR": "/models",
    "WORKERS": "2",
    "THREADS": "8",
    "LABEL_STUDIO_HOST": "https://ls.example.org/",
}
OURS = {"DATA_DIR": "/ours", "WEB_THREADS": "6", "LABEL_STUDIO_URL": "http://10.0.0.7:8080"}


@pytest.fixture
def set_environment(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Exactly these of the names that have a twin."""

    def set_all(**values: str) -> None:
        for name in {*THEIRS, *OURS}:
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_all


def read_twins() -> tuple[Path, int, str]:
    settings = Settings()
    return settings.data_dir, settings.web_threads, settings.label_studio_url


def test_the_names_of_label_studio_ml_count_where_ours_say_nothing(set_environment: Any) -> None:
    set_environment(**THEIRS)
    assert read_twins() == (Path("/models"), 16, "https://ls.example.org")


def test_our_names_come_first_and_arguments_before_both(set_environment: Any) -> None:
    set_environment(**THEIRS, **OURS)
    assert read_twins() == (Path("/ours"), 6, "http://10.0.0.7:8080")
    assert Settings(data_dir=Path("/given")).data_dir == Path("/given")


def test_empty_names_of_label_studio_ml_say_nothing(set_environment: Any) -> None:
    set_environment(**dict.fromkeys(THEIRS, ""))
    assert read_twins() == (Path(".brushloop"), 16, "http://127.0.0.1:8080")


@pytest.mark.parametrize("host", ["/tools", "0.0.0.0", "ls.example.org"])
def test_a_host_of_label_studio_that_is_no_web_address_says_nothing(set_environment: Any, host: str) -> None:
    set_environment(LABEL_STUDIO_HOST=host)
    assert Settings().label_studio_url == "http://127.0.0.1:8080"


@pytest.mark.parametrize(("workers", "threads", "expected"), [("1", "1", 4), ("", "8", 8), ("4", "", 16)])
def test_threads_are_those_of_all_processes_and_never_too_few_to_serve(
    set_environment: Any, workers: str, threads: str, expected: int
) -> None:
    set_environment(WORKERS=workers, THREADS=threads)
    assert Settings().web_threads == expected


@pytest.mark.parametrize(
    "values", [{"THREADS": "many"}, {"THREADS": "8", "WORKERS": "-1"}, {"WEB_THREADS": "4.5"}]
)
def test_threads_that_are_no_number_are_refused_by_the_names_that_say_them(
    set_environment: Any, values: dict[str, str]
) -> None:
    set_environment(**values)
    with pytest.raises(ValidationError, match="write WEB_THREADS, or WORKERS and THREADS, as whole numbers"):
        Settings()


def test_the_port_is_read_from_the_environment_too() -> None:
    refused = CliRunner(env={"PORT": "99999"}).invoke(commands, ["serve"])
    assert refused.exit_code == 2
    assert "99999 is not in the range" in refused.output
