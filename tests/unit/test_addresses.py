"""Image addresses: what is read, from where, and that everything else is refused."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from core.errors import ImageError
from ml_backend.errors import ImageRefusedError
from ml_backend.label_studio.addresses import (
    Address,
    AddressPolicy,
    FileAddress,
    InlineAddress,
    WebAddress,
    locate,
)

POLICY = AddressPolicy(
    "http://studio:8080",
    hostname="http://localhost:8080",
    allowed_hosts=("images.example.org", "10.0.0.7:9000"),
)
TASK = 5


def web(address: str, policy: AddressPolicy = POLICY) -> tuple[str, bool]:
    located = locate(address, TASK, policy)
    assert isinstance(located, WebAddress)
    return str(located.url), located.is_label_studio


def test_an_upload_is_read_from_the_configured_server() -> None:
    assert web("/data/upload/1/0a1b2c3d-a.png") == ("http://studio:8080/data/upload/1/0a1b2c3d-a.png", True)


def test_local_files_keep_their_query() -> None:
    assert web("/data/local-files/?d=a/b%20c.png") == (
        "http://studio:8080/data/local-files/?d=a/b%20c.png",
        True,
    )


def test_the_servers_own_absolute_addresses_get_the_credential() -> None:
    assert web("http://studio:8080/data/upload/1/a.png")[1]
    assert web("HTTP://STUDIO:8080/data/upload/1/a.png")[1]


def test_the_name_that_label_studio_gives_itself_is_read_as_the_configured_one() -> None:
    address = "http://localhost:8080/data/local-files/?d=a.png"
    assert web(address) == ("http://studio:8080/data/local-files/?d=a.png", True)


def test_a_path_prefix_is_kept_and_not_doubled() -> None:
    policy = AddressPolicy("https://host/studio", hostname="http://inside:8080")
    expected = ("https://host/studio/data/upload/1/a.png", True)
    assert web("/data/upload/1/a.png", policy) == expected
    assert web("/studio/data/upload/1/a.png", policy) == expected
    assert web("https://host/studio/data/upload/1/a.png", policy) == expected
    assert web("http://inside:8080/data/upload/1/a.png", policy) == expected


def test_cloud_storage_goes_through_label_studios_resolve_address() -> None:
    url, is_label_studio = web("s3://bucket/some key?.png")
    fileuri = base64.urlsafe_b64encode(b"s3://bucket/some key?.png").decode()
    assert url == f"http://studio:8080/tasks/5/resolve/?fileuri={fileuri}"
    assert is_label_studio


def test_an_allowed_host_is_read_without_credential() -> None:
    assert web("https://images.example.org/a.png") == ("https://images.example.org/a.png", False)
    assert web("http://10.0.0.7:9000/a.png?sig=1") == ("http://10.0.0.7:9000/a.png?sig=1", False)


@pytest.mark.parametrize(
    "address",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1/a.png",
        "http://127.0.0.1:8080/a.png",
        "http://[::1]:8080/a.png",
        "http://2130706433/a.png",
        "http://localhost/a.png",
        "https://images.example.org:8443/a.png",
        "https://images.example.org.evil.net/a.png",
        "https://evil.net/images.example.org/a.png",
        "https://evil.net#@images.example.org/a.png",
        "https://evil.net\\@images.example.org/a.png",
        "https://studio:8080@evil.net/a.png",
        "https://user:secret@images.example.org/a.png",
        "http://10.0.0.7/a.png",
        "https://studio:8080/data/upload/1/a.png",
        "http://studio/data/upload/1/a.png",
        "http://studio:8081/data/upload/1/a.png",
        "//evil.net/data/upload/a.png",
        "//studio:8080/data/upload/a.png",
        "ftp://images.example.org/a.png",
        "gopher://studio:8080/data/x",
        "javascript:alert(1)",
        "http:///data/upload/1/a.png",
        "http://[broken/a.png",
        "http://studio:99999/data/a.png",
        "upload/a.png",
        "",
        " /data/upload/1/a.png",
        "https://images.example.org\x00/a.png",
    ],
)
def test_every_other_host_is_refused(address: str) -> None:
    with pytest.raises(ImageRefusedError):
        locate(address, TASK, POLICY)


@pytest.mark.parametrize(
    "address",
    [
        "/api/users",
        "/api/projects/1/export?exportType=JSON",
        "/user/account",
        "/projects/1/delete",
        "/projects/1/data",
        "/projects/1/resolve/../delete",
        "/projects/x/resolve/",
        "/tasks/1/delete",
        "/data/",
        "/data",
        "http://studio:8080/projects/1/delete",
        "/",
        "/data/../api/users",
        "/data/%2e%2e/api/users",
        "/data/%252e%252e/api/users",
        "/data/..%2fapi/users",
        "/data/..\\api/users",
        "/%64ata/../api",
        "http://studio:8080/api/users",
        "http://localhost:8080/api/users",
        "http://studio:8080/data/../api/users",
    ],
)
def test_label_studios_api_is_out_of_reach(address: str) -> None:
    with pytest.raises(ImageRefusedError):
        locate(address, TASK, POLICY)


@pytest.mark.parametrize(
    "address",
    ["/label-studio/data/upload/4/x.png", "https://tools.example.org/label-studio/data/upload/4/x.png"],
)
def test_the_prefix_of_the_address_that_people_use_is_left_out(address: str) -> None:
    policy = AddressPolicy("http://label-studio:8080", hostname="https://tools.example.org/label-studio")
    located = locate(address, TASK, policy)
    assert isinstance(located, WebAddress)
    assert str(located.url) == "http://label-studio:8080/data/upload/4/x.png"
    assert located.is_label_studio


def test_label_studio_behind_another_scheme_is_a_setting_to_correct() -> None:
    with pytest.raises(ImageRefusedError, match=r"set LABEL_STUDIO_URL to https://studio:8080/ls$"):
        locate("https://studio:8080/data/a.png", TASK, AddressPolicy("http://studio:8080/ls"))


def test_no_advice_takes_the_encryption_from_the_credential() -> None:
    with pytest.raises(ImageRefusedError) as caught:
        locate("http://studio/data/a.png", TASK, AddressPolicy("https://studio"))
    assert "LABEL_STUDIO_HOST" in str(caught.value)
    assert "set LABEL_STUDIO_URL" not in str(caught.value)


def test_a_refused_address_is_told_without_its_query() -> None:
    with pytest.raises(ImageRefusedError) as caught:
        locate("s4://bucket/a.png?X-Amz-Signature=hunter2", TASK, POLICY)
    assert "hunter2" not in str(caught.value)


@pytest.fixture
def folders(tmp_path: Path) -> AddressPolicy:
    (tmp_path / "pictures" / "inner").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    for place in ("pictures/a b.png", "pictures/inner/c.png", "secret/d.png"):
        (tmp_path / place).write_bytes(b"x")
    (tmp_path / "pictures" / "link.png").symlink_to(tmp_path / "secret" / "d.png")
    (tmp_path / "pictures" / "good_link.png").symlink_to(tmp_path / "pictures" / "inner" / "c.png")
    return AddressPolicy("http://studio:8080", allowed_folders=(tmp_path / "pictures",))


def file_of(address: str, policy: AddressPolicy) -> str:
    located: Address = locate(address, TASK, policy)
    assert isinstance(located, FileAddress)
    return located.path.name


def test_files_of_an_allowed_folder_are_read(tmp_path: Path, folders: AddressPolicy) -> None:
    assert file_of(f"{tmp_path}/pictures/a b.png", folders) == "a b.png"
    assert file_of(f"file://{tmp_path}/pictures/a%20b.png", folders) == "a b.png"
    assert file_of(f"file://localhost{tmp_path}/pictures/inner/c.png", folders) == "c.png"
    assert file_of(f"{tmp_path}/pictures/inner/../a b.png", folders) == "a b.png"
    assert file_of(f"{tmp_path}/pictures/good_link.png", folders) == "c.png"


@pytest.mark.parametrize(
    "place",
    [
        "secret/d.png",
        "pictures/link.png",
        "pictures/../secret/d.png",
        "pictures/inner/../../secret/d.png",
        "pictures2/d.png",
        "pictures/%2e%2e/secret/d.png",
        "pictures/\x00.png",
    ],
)
def test_no_path_leaves_its_folder(tmp_path: Path, folders: AddressPolicy, place: str) -> None:
    for start in ("", "file://"):
        with pytest.raises(ImageRefusedError):
            locate(f"{start}{tmp_path}/{place}", TASK, folders)


def test_without_allowed_folders_no_file_is_read() -> None:
    for address in ("file:///etc/passwd", "/etc/passwd", "file://server/share/a.png", "file:a.png"):
        with pytest.raises(ImageRefusedError):
            locate(address, TASK, POLICY)


def test_a_missing_file_and_a_folder_are_said_to_be_no_file(tmp_path: Path, folders: AddressPolicy) -> None:
    for place in ("pictures/none.png", "pictures/inner"):
        with pytest.raises(ImageError, match="no file"):
            locate(f"file://{tmp_path}/{place}", TASK, folders)


def test_a_data_address_holds_its_image() -> None:
    address = "data:image/png;base64," + base64.b64encode(b"pixels").decode()
    assert locate(address, TASK, POLICY) == InlineAddress(b"pixels")


@pytest.mark.parametrize("address", ["data:image/png;base64,***", "data:image/svg+xml,<svg/>", "data:"])
def test_other_data_addresses_are_refused(address: str) -> None:
    with pytest.raises(ImageRefusedError):
        locate(address, TASK, POLICY)
