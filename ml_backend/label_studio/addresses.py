"""Where a task's image may come from: every address is checked here, and again after each redirect.

==============================  =====================================================================
address                         read from
==============================  =====================================================================
``/data/upload/…`` and others   the configured Label Studio, with its credential
``http(s)://label-studio/…``    the same; only scheme, host and port together make it Label Studio
``s3://…``, ``gs://…`` …        Label Studio's resolve address, which proxies or redirects
``http(s)://host/…``            hosts of `ALLOWED_IMAGE_HOSTS`, without any credential
``/folder/…``, ``file://…``     folders of `ALLOWED_IMAGE_FOLDERS`, after following every link
``data:image/…;base64,…``       the address itself
``brushloop-source:….tif``       what `brushloop import` kept in the data folder of this project
==============================  =====================================================================

Everything else is refused. The address that a project's Label Studio calls itself by (`hostname` of `/setup`)
is read as the configured one, which is the only one that ever gets the credential.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import httpx

from core.errors import ImageError
from ml_backend.errors import ImageRefusedError

LABEL_STUDIO_FILES = re.compile(
    r"/data/.+|/static/.+|/storage-data/.+|/(tasks|projects)/[0-9]{1,18}/(resolve|presign)/?"
)
"""What Label Studio serves as files. Its pages and its API are no images, and never get our credential."""

SOURCE_SCHEME = "brushloop-source"
SOURCE_NAME = re.compile(r"[0-9a-f]{32}\.tif")
"""Named by content, so an address never changes what it means."""

STORAGE_SCHEMES = ("s3", "gs", "azure-blob", "azure-spi", "redis", "dbfs")
DEFAULT_PORTS = {"http": 80, "https": 443}
LONGEST_SHOWN = 120


@dataclass(frozen=True)
class WebAddress:
    """A page to fetch. `is_label_studio`: the credential may go there."""

    url: httpx.URL
    is_label_studio: bool


@dataclass(frozen=True)
class FileAddress:
    path: Path


@dataclass(frozen=True)
class InlineAddress:
    content: bytes


Address = WebAddress | FileAddress | InlineAddress


@dataclass(frozen=True)
class AddressPolicy:
    """What the settings allow. `hostname` is what Label Studio calls itself, if that is another name.

    `sources` is where the project's own originals are kept.
    """

    label_studio_url: str
    hostname: str = ""
    allowed_hosts: tuple[str, ...] = ()
    allowed_folders: tuple[Path, ...] = ()
    sources: Path | None = None


def locate(address: str, task_id: int, policy: AddressPolicy) -> Address:
    """Decide where an image is read from; raises `ImageRefusedError` when no setting allows it."""
    scheme = address.partition(":")[0].lower() if ":" in address else ""
    if scheme == "data":
        return _inline(address)
    if scheme == SOURCE_SCHEME:
        return _source(address, policy)
    if scheme == "file":
        return _file(_path_of(address), policy)
    if scheme in ("http", "https"):
        return check_web(_parse(address), policy)
    if scheme in STORAGE_SCHEMES and "://" in address:
        encoded = base64.urlsafe_b64encode(address.encode()).decode()
        return WebAddress(
            _parse(f"{policy.label_studio_url}/tasks/{task_id}/resolve/?fileuri={encoded}"), True
        )
    if address.startswith("/") and not address.startswith("//"):
        return _local(address, policy)
    raise ImageRefusedError(f"the image address {_shown(address)} is of a kind that is not read")


def check_web(url: httpx.URL, policy: AddressPolicy) -> WebAddress:
    """Check an absolute web address, the first or one that a redirect names."""
    if url.scheme not in DEFAULT_PORTS or not url.host:
        raise ImageRefusedError(f"the image address {_shown(str(url))} is not of the web")
    if url.userinfo:
        raise ImageRefusedError(f"an image address at {url.host} holds a user name; put no credentials there")
    if policy.hostname and _origin(url) == _origin(_parse(policy.hostname)):
        return _at_label_studio(_without_prefix(url, policy.hostname), policy)
    if _origin(url) == _origin(_parse(policy.label_studio_url)):
        return _at_label_studio(_without_prefix(url, policy.label_studio_url), policy)
    if _is_allowed(url, policy.allowed_hosts):
        return WebAddress(url, is_label_studio=False)
    raise ImageRefusedError(_advise(url, policy))


def _advise(url: httpx.URL, policy: AddressPolicy) -> str:
    """Why an address is refused, and the setting that changes it.

    Label Studio's own host under another scheme or port is a setting to correct: an entry in
    `ALLOWED_IMAGE_HOSTS` would fetch its images without the credential they need. A change from https to
    http is never advised, because it would send the credential in the clear.
    """
    server = _parse(policy.label_studio_url)
    if url.host.rstrip(".") != server.host.rstrip("."):
        return f"images of the host {url.host} are not read; add it to ALLOWED_IMAGE_HOSTS to allow it"
    origin = f"{url.scheme}://{url.netloc.decode('ascii')}"
    if server.scheme == "https" and url.scheme == "http":
        return (
            f"Label Studio at {policy.label_studio_url} names its images as {origin}, without encryption: "
            "correct LABEL_STUDIO_HOST, the address that Label Studio itself is started with"
        )
    if server.scheme == "http" and url.scheme == "https":
        return (
            f"Label Studio at {policy.label_studio_url} sends its images by way of {origin}: "
            f"set LABEL_STUDIO_URL to {origin}{server.path.rstrip('/')}"
        )
    return (
        f"images at {origin} are not read, LABEL_STUDIO_URL is {policy.label_studio_url}: correct it if they "
        f"are of the same Label Studio, or add {url.netloc.decode('ascii')} to ALLOWED_IMAGE_HOSTS"
    )


def _local(address: str, policy: AddressPolicy) -> Address:
    """A path: inside an allowed folder when it exists there, else at Label Studio."""
    if "?" not in address and _is_inside(Path(address), policy) and Path(address).is_file():
        return _file(Path(address), policy)
    url = _parse(address)
    # Uploads are stored with the prefix of the address that people use, which may not be ours.
    for server in filter(None, (policy.label_studio_url, policy.hostname)):
        target = _without_prefix(url, server)
        if target != url.raw_path.decode("ascii"):
            return _at_label_studio(target, policy)
    return _at_label_studio(url.raw_path.decode("ascii"), policy)


def _without_prefix(url: httpx.URL, server: str) -> str:
    """Path and query of a Label Studio that may live below a prefix."""
    target = url.raw_path.decode("ascii")
    prefix = _parse(server).path.rstrip("/")
    return target.removeprefix(prefix) if prefix and target.startswith(prefix + "/") else target


def _at_label_studio(target: str, policy: AddressPolicy) -> WebAddress:
    """Only where Label Studio serves files, and no way around that."""
    path = unquote(unquote(target.partition("?")[0])).replace("\\", "/")
    if ".." in path.split("/"):
        raise ImageRefusedError("an image address climbs out of its folder")
    if not LABEL_STUDIO_FILES.fullmatch(path):
        raise ImageRefusedError(f"Label Studio serves no images at {_shown(path)}")
    return WebAddress(_parse(policy.label_studio_url + target), is_label_studio=True)


def _file(path: Path, policy: AddressPolicy) -> FileAddress:
    if not _is_inside(path, policy):
        raise ImageRefusedError(
            f"the file {_shown(str(path))} is in no allowed folder; see ALLOWED_IMAGE_FOLDERS"
        )
    real = Path(os.path.realpath(path))
    if not real.is_file():
        raise ImageError(f"there is no file {_shown(str(path))}")
    return FileAddress(real)


def _source(address: str, policy: AddressPolicy) -> FileAddress:
    """An original that `brushloop import` kept; no name leads out of its folder."""
    name = address.partition(":")[2]
    if policy.sources is None or not SOURCE_NAME.fullmatch(name):
        raise ImageRefusedError(f"the source {_shown(address)} is none that `brushloop import` kept")
    path = policy.sources / name
    if not path.is_file():
        raise ImageError(
            f"the original {name} is not in the data folder: run `brushloop import` again with "
            "the DATA_DIR of this server"
        )
    return FileAddress(path)


def _is_inside(path: Path, policy: AddressPolicy) -> bool:
    """True when the file, all links followed, lies below an allowed folder."""
    try:
        real = Path(os.path.realpath(path))
        return any(real.is_relative_to(os.path.realpath(folder)) for folder in policy.allowed_folders)
    except (OSError, ValueError):  # a null byte, a name too long
        return False


def _path_of(address: str) -> Path:
    """`file:///folder/a%20b.png`; a host other than this one is refused."""
    host, slash, rest = address[len("file:") :].removeprefix("//").partition("/")
    if not slash or host not in ("", "localhost"):
        raise ImageRefusedError(f"the file address {_shown(address)} must begin with file:///")
    return Path("/" + unquote(rest))


def _inline(address: str) -> InlineAddress:
    head, comma, content = address.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise ImageRefusedError("a data: address must hold base64")
    try:
        return InlineAddress(base64.b64decode(unquote(content), validate=True))
    except (binascii.Error, ValueError):
        raise ImageRefusedError("a data: address holds broken base64") from None


def _parse(address: str) -> httpx.URL:
    try:
        return httpx.URL(address)
    except (httpx.InvalidURL, ValueError):
        raise ImageRefusedError(f"the image address {_shown(address)} cannot be read") from None


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host.rstrip("."), url.port or DEFAULT_PORTS.get(url.scheme)


def _is_allowed(url: httpx.URL, hosts: tuple[str, ...]) -> bool:
    """`host` allows the usual ports, `host:port` that port alone."""
    scheme, host, port = _origin(url)
    bracketed = f"[{host}]" if ":" in host else host
    names = {f"{bracketed}:{port}", f"{host}:{port}"}
    if port == DEFAULT_PORTS[scheme]:
        names |= {host, bracketed}
    return any(allowed.casefold() in names for allowed in hosts)


def _shown(text: str) -> str:
    """An address for a message: without its query, which may be signed, and not too long."""
    return repr(text.partition("?")[0][:LONGEST_SHOWN])
