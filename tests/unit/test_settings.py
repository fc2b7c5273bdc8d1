"""Settings: what cannot work is refused at the start, in words that give the right form."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

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


@pytest.mark.parametrize("value", ["b.s3.amazonaws.com", "minio:9000", "10.0.0.7", "[::1]:9000", "::1"])
def test_hosts_with_and_without_a_port_are_image_hosts(value: str) -> None:
    read: Any = Settings(allowed_image_hosts=(value,)).allowed_image_hosts
    assert read == (value,)
