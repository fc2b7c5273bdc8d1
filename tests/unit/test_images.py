"""Images over a real socket: who gets the credential, what is refused, and what is kept on disk."""

from __future__ import annotations

import base64
import gzip
import io
import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.errors import ImageError
from ingest.turning import turn
from ml_backend.errors import ImageRefusedError, LabelStudioImageError
from ml_backend.label_studio import downloads
from ml_backend.label_studio.connection import Connection
from ml_backend.label_studio.image_cache import ImageCache, write_pixels
from ml_backend.label_studio.images import CachedImages, ImageAccess, ImageSettings
from ml_backend.rounds.troubles import may_pass

KEY = "0123456789abcdef0123456789abcdef01234567"
TOKEN = f"Token {KEY}"
PIXELS = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
UPLOAD = {"image": "/data/upload/1/0a1b2c3d-a.png"}

Answer = Callable[[BaseHTTPRequestHandler], None]


def png(pixels: np.ndarray = PIXELS) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


class Site:
    """A web server on a free port; `routes` maps paths to answers, `seen` keeps path and credential."""

    def __init__(self) -> None:
        self.routes: dict[str, Answer] = {}
        self.seen: list[tuple[str, str | None]] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.seen.append((self.path, self.headers.get("Authorization")))
                answer = site.routes.get(self.path.partition("?")[0], status(404))
                try:
                    answer(self)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def status(code: int, **headers: str) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


def content(body: bytes, **headers: str) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return answer


def guarded(answer: Answer) -> Answer:
    """Only with the right credential, like Label Studio."""
    return lambda request: (answer if request.headers.get("Authorization") == TOKEN else status(401))(request)


@pytest.fixture
def studio() -> Iterator[Site]:
    site = Site()
    site.routes["/data/upload/1/0a1b2c3d-a.png"] = guarded(content(png()))
    yield site
    site.close()


@pytest.fixture
def elsewhere() -> Iterator[Site]:
    site = Site()
    site.routes["/a.png"] = content(png())
    yield site
    site.close()


@pytest.fixture
def make_images(tmp_path: Path, studio: Site) -> Iterator[Callable[..., CachedImages]]:
    opened: list[Any] = []

    def make(*, key: str | None = KEY, access: dict[str, Any] | None = None, **settings: Any) -> CachedImages:
        connection = Connection(studio.url, key) if key else None
        limits = {"max_bytes": 1_000_000, "max_pixels": 1_000_000, "cache_bytes": 10_000_000}
        images = CachedImages(
            tmp_path / "cache",
            ImageSettings(label_studio_url=studio.url, **{**limits, **settings}),
            lambda project_id: ImageAccess(str(project_id), connection=connection, **(access or {})),
        )
        opened.extend([images, *([connection] if connection else [])])
        return images

    yield make
    for resource in opened:
        resource.close()


def cached_files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").rglob("*.npy"))


def test_an_upload_comes_as_a_read_only_memory_map(make_images: Any) -> None:
    pixels = make_images().open(1, 1, UPLOAD)
    assert isinstance(pixels, np.memmap)
    assert not pixels.flags.writeable
    assert np.array_equal(pixels, PIXELS)


def test_an_image_is_fetched_once(make_images: Any, studio: Site) -> None:
    images = make_images()
    for _ in range(3):
        images.open(1, 1, UPLOAD)
    assert images.shape(1, 1, UPLOAD) == (20, 30)
    assert studio.seen == [(UPLOAD["image"], TOKEN)]


def test_two_equal_requests_at_once_fetch_once(make_images: Any, studio: Site) -> None:
    def slow(request: BaseHTTPRequestHandler) -> None:
        time.sleep(0.2)
        content(png())(request)

    studio.routes[UPLOAD["image"]] = slow
    images = make_images()
    threads = [threading.Thread(target=images.open, args=(1, 1, UPLOAD)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(studio.seen) == 1


def test_projects_do_not_share_what_is_kept(make_images: Any, studio: Site, tmp_path: Path) -> None:
    images = make_images()
    images.open(1, 1, UPLOAD)
    images.open(2, 1, UPLOAD)
    assert len(studio.seen) == 2
    assert sorted(path.parent.name for path in cached_files(tmp_path)) == ["1", "2"]


def test_a_401_names_the_credential_and_not_its_value(make_images: Any) -> None:
    with pytest.raises(ImageError, match=r"refuses the credential.*LABEL_STUDIO_API_KEY") as caught:
        make_images(key="f" * 40).open(1, 1, UPLOAD)
    assert "f" * 40 not in str(caught.value)
    with pytest.raises(ImageError, match=r"wants a credential.*LABEL_STUDIO_API_KEY"):
        make_images(key=None).open(1, 1, UPLOAD)


def test_a_missing_upload_is_told_from_a_refused_one(make_images: Any) -> None:
    with pytest.raises(ImageError, match="no such image"):
        make_images().open(1, 1, {"image": "/data/upload/1/gone.png"})


def test_an_allowed_host_gets_no_credential(make_images: Any, elsewhere: Site) -> None:
    images = make_images(allowed_hosts=(f"127.0.0.1:{elsewhere.port}",))
    assert images.open(1, 1, {"image": f"{elsewhere.url}/a.png"}).shape == (20, 30, 3)
    assert elsewhere.seen == [("/a.png", None)]


def test_a_host_that_is_not_allowed_is_never_asked(make_images: Any, elsewhere: Site) -> None:
    with pytest.raises(ImageRefusedError, match="ALLOWED_IMAGE_HOSTS"):
        make_images().open(1, 1, {"image": f"{elsewhere.url}/a.png"})
    assert elsewhere.seen == []


def test_a_redirect_to_an_allowed_host_loses_the_credential(
    make_images: Any, studio: Site, elsewhere: Site
) -> None:
    studio.routes[UPLOAD["image"]] = status(302, Location=f"{elsewhere.url}/a.png")
    images = make_images(allowed_hosts=(f"127.0.0.1:{elsewhere.port}",))
    assert images.open(1, 1, UPLOAD).shape == (20, 30, 3)
    assert studio.seen[0][1] == TOKEN
    assert elsewhere.seen == [("/a.png", None)]


def test_a_redirect_to_another_host_is_refused(make_images: Any, studio: Site, elsewhere: Site) -> None:
    studio.routes[UPLOAD["image"]] = status(302, Location=f"{elsewhere.url}/a.png")
    with pytest.raises(ImageRefusedError, match="redirects"):
        make_images().open(1, 1, UPLOAD)
    assert elsewhere.seen == []


@pytest.mark.parametrize(
    "location",
    ["http://169.254.169.254/latest/", "file:///etc/passwd", "ftp://a/b", "//evil.net/a", "http://[x", ""],
)
def test_a_redirect_to_anything_odd_is_refused(make_images: Any, elsewhere: Site, location: str) -> None:
    elsewhere.routes["/odd.png"] = status(302, Location=location)
    images = make_images(allowed_hosts=(f"127.0.0.1:{elsewhere.port}",))
    with pytest.raises(ImageError):
        images.open(1, 1, {"image": f"{elsewhere.url}/odd.png"})


def test_an_allowed_host_cannot_point_the_credential_at_the_api(
    make_images: Any, studio: Site, elsewhere: Site
) -> None:
    elsewhere.routes["/odd.png"] = status(302, Location=f"{studio.url}/api/users")
    images = make_images(allowed_hosts=(f"127.0.0.1:{elsewhere.port}",))
    with pytest.raises(ImageRefusedError):
        images.open(1, 1, {"image": f"{elsewhere.url}/odd.png"})
    assert studio.seen == []


def test_redirects_in_a_circle_end(make_images: Any, studio: Site) -> None:
    studio.routes[UPLOAD["image"]] = status(302, Location=UPLOAD["image"])
    with pytest.raises(ImageError, match="times"):
        make_images().open(1, 1, UPLOAD)
    assert len(studio.seen) < 10


def test_cloud_storage_is_resolved_by_label_studio(make_images: Any, studio: Site, elsewhere: Site) -> None:
    studio.routes["/tasks/9/resolve/"] = guarded(status(302, Location=f"{elsewhere.url}/a.png"))
    images = make_images(allowed_hosts=(f"127.0.0.1:{elsewhere.port}",))
    assert images.open(1, 9, {"image": "s3://bucket/a.png"}).shape == (20, 30, 3)
    assert (
        studio.seen[0][0]
        == "/tasks/9/resolve/?fileuri=" + base64.urlsafe_b64encode(b"s3://bucket/a.png").decode()
    )
    assert elsewhere.seen == [("/a.png", None)]


def test_the_name_that_label_studio_gives_itself_is_asked_under_the_configured_one(
    make_images: Any, studio: Site
) -> None:
    images = make_images(access={"hostname": "http://label-studio.internal:8080"})
    images.open(1, 1, {"image": f"http://label-studio.internal:8080{UPLOAD['image']}"})
    assert studio.seen == [(UPLOAD["image"], TOKEN)]


def test_a_body_that_announces_too_much_is_not_read(make_images: Any, studio: Site) -> None:
    studio.routes[UPLOAD["image"]] = content(bytes(200_000))
    with pytest.raises(ImageError, match="MAX_IMAGE_MB"):
        make_images(max_bytes=100_000).open(1, 1, UPLOAD)


def test_a_body_without_end_is_cut_off(make_images: Any, studio: Site, tmp_path: Path) -> None:
    sent = []

    def endless(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        for _ in range(10_000):
            request.wfile.write(bytes(10_000))
            sent.append(10_000)

    studio.routes[UPLOAD["image"]] = endless
    with pytest.raises(ImageError, match="MAX_IMAGE_MB"):
        make_images(max_bytes=100_000).open(1, 1, UPLOAD)
    assert sum(sent) < 50_000_000
    assert list((tmp_path / "cache" / "scratch").iterdir()) == []


def test_a_server_that_drips_is_left(make_images: Any, studio: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def drip(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        for _ in range(3000):
            request.wfile.write(b"x")
            request.wfile.flush()
            time.sleep(0.02)

    monkeypatch.setattr(downloads, "TOTAL_TIMEOUT_S", 0.1)
    studio.routes[UPLOAD["image"]] = drip
    started = time.monotonic()
    with pytest.raises(ImageError, match="in time"):
        make_images().open(1, 1, UPLOAD)
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("encoding", ["", "identity", "aws-chunked", "utf-8", "none", "binary"])
def test_odd_words_about_the_encoding_of_a_body_change_nothing(
    make_images: Any, studio: Site, encoding: str
) -> None:
    studio.routes[UPLOAD["image"]] = content(png(), Content_Encoding=encoding)
    assert make_images().open(1, 1, UPLOAD).shape == PIXELS.shape


def test_a_compressed_body_is_unpacked(make_images: Any, studio: Site) -> None:
    studio.routes[UPLOAD["image"]] = content(gzip.compress(png()), Content_Encoding="gzip")
    assert make_images().open(1, 1, UPLOAD).shape == PIXELS.shape


@pytest.mark.parametrize(
    "location",
    ["data:image/png;base64,iVBORw0KGgo=", "about:blank", "mailto:a@b", "urn:x:y", "http://[", "//"],
)
def test_a_redirect_to_no_address_of_the_web_fails_that_image_alone(
    make_images: Any, studio: Site, location: str
) -> None:
    images = make_images()
    studio.routes[UPLOAD["image"]] = status(302, Location=location)
    with pytest.raises(ImageError):
        images.open(1, 1, UPLOAD)
    studio.routes[UPLOAD["image"]] = content(png())
    assert images.open(1, 1, UPLOAD).shape == PIXELS.shape


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<!doctype html><title>Sign in</title>", "HTML page"),
        (b"\n  <HTML><body>", "HTML page"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b'{"detail": "nothing"}', "JSON"),
        (b"%PDF-1.7", "PDF"),
        (b"hello, world", "no format"),
    ],
)
def test_what_is_no_image_is_named_by_what_it_is(
    make_images: Any, studio: Site, body: bytes, kind: str, tmp_path: Path
) -> None:
    studio.routes[UPLOAD["image"]] = content(body)
    with pytest.raises(ImageError, match=kind) as caught:
        make_images().open(1, 1, UPLOAD)
    assert str(tmp_path) not in str(caught.value)
    assert "scratch" not in str(caught.value)


def test_a_compressed_body_is_unpacked_up_to_the_limit(make_images: Any, studio: Site) -> None:
    studio.routes[UPLOAD["image"]] = content(gzip.compress(bytes(50_000_000)), Content_Encoding="gzip")
    with pytest.raises(ImageError, match="MAX_IMAGE_MB"):
        make_images().open(1, 1, UPLOAD)


def test_a_decompression_bomb_is_refused_by_its_header(
    make_images: Any, studio: Site, tmp_path: Path
) -> None:
    studio.routes[UPLOAD["image"]] = content(png(np.zeros((3000, 3000), np.uint8)))
    with pytest.raises(ImageError, match="MAX_IMAGE_MEGAPIXELS"):
        make_images().open(1, 1, UPLOAD)
    assert cached_files(tmp_path) == []


@pytest.mark.parametrize("body", [b"hello", b"%PDF-1.7", png()[:20]])
def test_wrong_content_is_an_image_error(make_images: Any, studio: Site, body: bytes) -> None:
    studio.routes[UPLOAD["image"]] = content(body)
    with pytest.raises(ImageError, match=r"no image that can be read|decoded"):
        make_images().open(1, 1, UPLOAD)


def test_an_empty_answer_and_a_failing_server_are_image_errors(make_images: Any, studio: Site) -> None:
    for answer in (content(b""), status(500), status(204), lambda request: request.connection.close()):
        studio.routes[UPLOAD["image"]] = answer
        with pytest.raises(ImageError, match=r"127\.0\.0\.1"):
            make_images().open(1, 1, UPLOAD)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (content(b"<!doctype html><title>Sign in</title>"), "HTML page"),
        (content(b'{"detail": "nothing"}'), "JSON"),
        (content(b"<Error><Code>SlowDown</Code></Error>"), "XML document"),
        (content(b""), "sent nothing"),
        (status(302, Location=UPLOAD["image"]), "more than 5 times"),
    ],
)
def test_what_a_proxy_says_in_the_place_of_an_image_may_pass(
    make_images: Any, studio: Site, answer: Answer, said: str
) -> None:
    good, images = studio.routes[UPLOAD["image"]], make_images()
    studio.routes[UPLOAD["image"]] = answer
    with pytest.raises(LabelStudioImageError, match=said) as caught:
        images.open(1, 1, UPLOAD)
    assert may_pass(caught.value)
    studio.routes[UPLOAD["image"]] = good
    assert images.open(1, 1, UPLOAD).shape == PIXELS.shape


def test_a_server_that_is_down_is_an_image_error(make_images: Any, elsewhere: Site) -> None:
    port = elsewhere.port + 1 if elsewhere.port < 65_000 else elsewhere.port - 1
    images = make_images(allowed_hosts=(f"127.0.0.1:{port}",))
    with pytest.raises(ImageError, match="cannot be reached"):
        images.open(1, 1, {"image": f"http://127.0.0.1:{port}/a.png"})


def test_a_failed_image_can_be_had_later(make_images: Any, studio: Site) -> None:
    good = studio.routes[UPLOAD["image"]]
    studio.routes[UPLOAD["image"]] = status(500)
    images = make_images()
    with pytest.raises(ImageError):
        images.open(1, 1, UPLOAD)
    studio.routes[UPLOAD["image"]] = good
    assert images.open(1, 1, UPLOAD).shape == (20, 30, 3)


def test_a_data_address_needs_no_network(make_images: Any, studio: Site) -> None:
    images = make_images()
    address = "data:image/png;base64," + base64.b64encode(png()).decode()
    assert np.array_equal(images.open(1, 1, {"image": address}), PIXELS)
    assert studio.seen == []


def test_a_data_address_has_the_same_limits(make_images: Any) -> None:
    address = "data:image/png;base64," + base64.b64encode(png()).decode()
    with pytest.raises(ImageError, match="MAX_IMAGE_MB"):
        make_images(max_bytes=100).open(1, 1, {"image": address})


def test_the_size_of_a_file_is_read_without_decoding_it(make_images: Any, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    images = make_images(allowed_folders=(tmp_path,))
    assert images.shape(1, 1, {"image": f"file://{tmp_path}/a.png"}) == (20, 30)
    assert cached_files(tmp_path) == []


def test_a_file_that_changes_is_read_again(make_images: Any, tmp_path: Path) -> None:
    images = make_images(allowed_folders=(tmp_path,))
    data = {"image": f"{tmp_path}/a.png"}
    for pixels in (PIXELS, PIXELS[:10]):
        (tmp_path / "a.png").write_bytes(png(pixels))
        assert np.array_equal(images.open(1, 1, data), pixels)


def test_the_image_may_sit_deeper_in_the_tasks_data(make_images: Any) -> None:
    images = make_images(access={"image_key": "views.front"})
    assert images.open(1, 1, {"views": {"front": UPLOAD["image"]}}).shape == (20, 30, 3)
    with pytest.raises(ImageError, match=r"views\.front"):
        images.open(1, 1, UPLOAD)


def test_the_least_recently_used_go_when_the_cache_is_full(
    make_images: Any, studio: Site, tmp_path: Path
) -> None:
    size = PIXELS.nbytes + 128  # what an .npy file takes
    images = make_images(cache_bytes=2 * size)
    for i in range(3):
        studio.routes[f"/data/{i}.png"] = content(png(PIXELS + np.uint8(i)))
    first, second = (images.open(1, 1, {"image": f"/data/{i}.png"}) for i in range(2))
    for age, path in enumerate(sorted(cached_files(tmp_path), key=lambda path: path.stat().st_mtime_ns)):
        os.utime(path, (1000 + age, 1000 + age))
    images.open(1, 1, {"image": "/data/0.png"})  # used again: the second is the oldest now
    images.open(1, 1, {"image": "/data/2.png"})
    assert len(cached_files(tmp_path)) == 2
    assert np.array_equal(second, PIXELS + np.uint8(1))  # who has it open can still read it
    n_requests = len(studio.seen)
    images.open(1, 1, {"image": "/data/0.png"})
    assert len(studio.seen) == n_requests
    images.open(1, 1, {"image": "/data/1.png"})
    assert len(studio.seen) == n_requests + 1
    assert np.array_equal(first, PIXELS)


def test_an_image_larger_than_the_cache_is_still_given(make_images: Any, tmp_path: Path) -> None:
    assert make_images(cache_bytes=10).open(1, 1, UPLOAD).shape == (20, 30, 3)
    assert len(cached_files(tmp_path)) == 1


def test_a_damaged_cache_file_is_replaced(make_images: Any, tmp_path: Path) -> None:
    images = make_images()
    images.open(1, 1, UPLOAD)
    (path,) = cached_files(tmp_path)
    for damage in (b"", b"garbage", path.read_bytes()[:200]):
        path.write_bytes(damage)
        assert np.array_equal(images.open(1, 1, UPLOAD), PIXELS)


def test_another_limit_is_another_entry(make_images: Any) -> None:
    make_images().open(1, 1, UPLOAD)
    with pytest.raises(ImageError, match="MAX_IMAGE_MEGAPIXELS"):
        make_images(max_pixels=100).open(1, 1, UPLOAD)


def test_a_cache_that_cannot_be_written_is_an_image_error(make_images: Any, tmp_path: Path) -> None:
    (tmp_path / "cache").symlink_to(tmp_path / "away")  # as of a disk that is not mounted
    with pytest.raises(ImageError, match="read or kept"):
        make_images().open(1, 1, UPLOAD)


def test_what_a_killed_process_left_is_swept_up(make_images: Any, tmp_path: Path) -> None:
    scratch = tmp_path / "cache" / "scratch"
    scratch.mkdir(parents=True)
    (scratch / "old").write_bytes(b"x")
    os.utime(scratch / "old", (1000, 1000))
    (scratch / "new").write_bytes(b"x")
    make_images().open(1, 1, UPLOAD)
    assert [path.name for path in scratch.iterdir()] == ["new"]


@pytest.mark.parametrize("orientation", [1, 4, 6])
def test_pixels_are_kept_whatever_the_order_of_their_memory(tmp_path: Path, orientation: int) -> None:
    pixels = turn(np.arange(700 * 5 * 3, dtype=np.uint16).reshape(700, 5, 3)[:, :, ::-1], orientation)
    stored = ImageCache(tmp_path, 10**9).fill("a", lambda path: write_pixels(path, pixels))
    assert np.array_equal(stored, pixels)
    assert stored.flags.c_contiguous


def test_the_folder_is_looked_through_once_enough_was_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Path] = []
    monkeypatch.setattr(ImageCache, "_make_room", lambda self, newest: looks.append(newest))
    cache = ImageCache(tmp_path, 100_000)
    for number in range(8):
        cache.fill(
            str(number), lambda path: write_pixels(path, np.zeros((20, 25, 1), np.uint8))
        )  # half a percent of the cap each
    assert [path.stem for path in looks] == ["0", "2", "4", "6"]
