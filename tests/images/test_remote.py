"""Images at URLs: one listing, what is tried again, what is not, and what is never written down."""

from __future__ import annotations

import http.client
import pickle
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from made_servers import Site, cut, serving, status
from tlfeat.errors import BadImage, DataError, UsageError
from tlfeat.images import remote, web
from tlfeat.images.image_set import ImageSet
from tlfeat.images.load import load_images
from tlfeat.images.open_store import is_store, open_store, recorded_store
from tlfeat.images.remote import N_TRIES, RemoteStore
from tlfeat.images.seen import Seen
from tlfeat.images.thumbnails import known_thumbnail
from tlfeat.images.urls import checked_url, holds_secret, url_name

fsspec = pytest.importorskip("fsspec")

FILES = {f"/photos/{label}/{i}.png": f"{label} {i}".encode() * 50 for label in ("cat", "dog") for i in range(3)}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.001)


@pytest.fixture
def site() -> Iterator[Site]:
    with serving({**FILES, "/photos/readme.txt": b"hello"}) as found:
        yield found


@pytest.fixture
def bucket() -> Iterator[str]:
    files = fsspec.filesystem("memory")
    for name, content in FILES.items():
        files.pipe(f"/bucket{name}", content)
    files.pipe("/bucket/photos/notes.txt", b"x")
    yield "memory://bucket/photos"
    files.rm("/bucket", recursive=True)


def images_by_path(images: ImageSet) -> dict[str, bytes]:
    contents = (images.content(i) for i in range(len(images)))
    return {path: content() for path, content in zip(images.paths, contents, strict=True) if callable(content)}


# --- what is listed -------------------------------------------------------------------------------------------


def test_a_bucket_gives_the_images_that_a_folder_with_the_same_files_does(bucket: str, tmp_path: Path) -> None:
    for name, content in {**FILES, "/photos/notes.txt": b"x"}.items():
        (tmp_path / name[1:]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name[1:]).write_bytes(content)
    local, images = load_images(tmp_path / "photos"), load_images(bucket + "/")
    assert (images.paths, images.labels, images.passed_over) == (local.paths, local.labels, local.passed_over)
    assert (images.named, images.place, images.name) == (bucket, bucket, "bucket-photos")
    assert images_by_path(images) == {path: (tmp_path / "photos" / path).read_bytes() for path in local.paths}


def test_index_pages_of_a_server_are_a_folder(site: Site) -> None:
    images = load_images(f"{site.url}/photos")
    assert images.paths == [name.removeprefix("/photos/") for name in FILES]
    assert (images.classes, images.passed_over) == (["cat", "dog"], {".txt": 1})
    assert images_by_path(images)["dog/2.png"] == FILES["/photos/dog/2.png"]
    assert not any("elsewhere" in what for what in site.asked)


def test_names_of_a_server_are_read_without_their_quotes_and_asked_for_with_them() -> None:
    with serving({"/K%C3%A4se%20a/1%202.png": b"x", "/b%23/3%3F.png": b"y"}) as site:
        images = load_images(site.url)
        assert images.paths == ["K\u00e4se a/1 2.png", "b%23/3%3F.png"]
        assert images_by_path(images) == {"K\u00e4se a/1 2.png": b"x", "b%23/3%3F.png": b"y"}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("memory://nothing-here", "No images in memory://nothing-here"),
        ("http://127.0.0.1:1/photos", "cannot be listed: the connection failed"),
        ("ftp://host/photos", "No scheme 'ftp://'. Images are read from s3://"),
        ("s3://", "names no bucket"),
    ],
)
def test_what_cannot_be_listed_is_one_clear_error(url: str, said: str) -> None:
    with pytest.raises((DataError, UsageError), match=said):
        load_images(url)


def test_a_server_that_lists_nothing_is_said(site: Site) -> None:
    site.rules["/photos/"] = status(403)
    with pytest.raises(DataError, match=r"/photos/ cannot be listed: no permission \(403\)"):
        load_images(f"{site.url}/photos")
    site.files["/page/"] = b"{}"
    with pytest.raises(DataError, match=r"is no index page \(it is application/octet-stream\)"):
        load_images(f"{site.url}/page")


# --- reading --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_server_that_is_busy_twice_is_asked_a_third_time(site: Site, code: int) -> None:
    site.rules["/photos/cat/1.png"] = status(code, times=2)
    assert RemoteStore(f"{site.url}/photos").read("cat/1.png") == FILES["/photos/cat/1.png"]
    assert site.asked["GET /photos/cat/1.png"] == 3


def test_a_body_that_is_cut_is_read_again(site: Site) -> None:
    site.rules["/photos/cat/1.png"] = cut(2, body=FILES["/photos/cat/1.png"])
    assert RemoteStore(f"{site.url}/photos").read("cat/1.png") == FILES["/photos/cat/1.png"]


def test_a_cut_body_without_a_length_is_known_by_what_was_listed(site: Site) -> None:
    store = RemoteStore(f"{site.url}/photos")
    assert store.stamps(["cat/1.png"])[0][0] == len(FILES["/photos/cat/1.png"])
    site.rules["/photos/cat/1.png"] = cut(1, body=FILES["/photos/cat/1.png"], with_length=False)
    assert store.read("cat/1.png") == FILES["/photos/cat/1.png"]


def test_what_stays_busy_is_given_up_with_the_reason_after_a_few_tries(site: Site) -> None:
    site.rules["/photos/cat/1.png"] = status(503)
    with pytest.raises(BadImage, match=rf"the server is busy \(503\); tried {N_TRIES} times"):
        RemoteStore(f"{site.url}/photos").read("cat/1.png")
    assert site.asked["GET /photos/cat/1.png"] == N_TRIES


@pytest.mark.parametrize(
    ("code", "why"), [(404, "not there"), (403, "no permission"), (418, "the server answered 418")]
)
def test_what_would_be_the_same_again_is_asked_for_once(site: Site, code: int, why: str) -> None:
    site.rules["/photos/cat/1.png"] = status(code)
    with pytest.raises(BadImage, match=why):
        RemoteStore(f"{site.url}/photos").read("cat/1.png")
    assert site.asked["GET /photos/cat/1.png"] == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/photos", "s3://photos/pets"])
def test_a_server_that_takes_no_connection_is_given_up_after_two_tries(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried_s = []

    def connect(self: http.client.HTTPConnection) -> None:
        tried_s.append(self.timeout)
        raise TimeoutError("timed out")

    monkeypatch.setattr(http.client.HTTPConnection, "connect", connect)
    if url.startswith("s3"):
        s3fs = pytest.importorskip("s3fs", reason="images of S3 need s3fs: pip install 'tlfeat[s3]'")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "of-the-test")
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(DataError, match=f"{url}/? cannot be listed: the server does not answer"):
        load_images(url)
    assert tried_s == [8.0, 8.0]


def test_a_server_that_does_not_answer_in_time_is_tried_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "TIMEOUT_S", 0.1)
    n_slow = []

    def slow(handler: object, n: int) -> bool:
        n_slow.append(n)
        time.sleep(0.3 if n == 1 else 0)
        return False

    site.rules["/photos/cat/1.png"] = slow
    assert RemoteStore(f"{site.url}/photos").read("cat/1.png") == FILES["/photos/cat/1.png"]
    assert n_slow == [1, 2]


def test_a_body_that_comes_a_byte_now_and_then_is_given_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_MOST_S", 0.05)
    monkeypatch.setattr(web, "_BYTES_PER_S", 1e9)

    def drip(handler: object, n: int) -> bool:
        handler.send_response(200)  # type: ignore[attr-defined]
        handler.send_header("Content-Length", "10")  # type: ignore[attr-defined]
        handler.end_headers()  # type: ignore[attr-defined]
        for _ in range(10):
            time.sleep(0.02)
            handler.wfile.write(b"x")  # type: ignore[attr-defined]
        return True

    site.rules["/photos/cat/1.png"] = drip
    monkeypatch.setattr(remote, "N_TRIES", 2)
    with pytest.raises(BadImage, match="no answer in time; tried 2 times"):
        RemoteStore(f"{site.url}/photos").read("cat/1.png")


def test_an_image_that_changed_since_it_was_listed_is_read_once_more_and_then_told(site: Site) -> None:
    site.etags["/photos/cat/1.png"] = "one"
    store = RemoteStore(f"{site.url}/photos")
    store.stamps(["cat/1.png"])
    site.etags["/photos/cat/1.png"] = "two"
    with pytest.raises(BadImage, match="changed since it was listed"):
        store.read("cat/1.png")
    assert site.asked["GET /photos/cat/1.png"] == 2


def test_one_that_is_longer_than_listed_has_changed(bucket: str) -> None:
    images = load_images(bucket)
    fsspec.filesystem("memory").pipe("/bucket/photos/cat/0.png", b"another")
    with pytest.raises(BadImage, match="changed since it was listed: 7 bytes in place of 250"):
        images_by_path(images)


def test_an_object_that_was_deleted_after_the_listing_is_not_there(bucket: str) -> None:
    images = load_images(bucket)
    fsspec.filesystem("memory").rm("/bucket/photos/cat/0.png")
    assert images.store is not None
    with pytest.raises(BadImage, match="not there"):
        images.store.read("cat/0.png")


def test_a_huge_object_is_refused_unread(bucket: str, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "MAX_FILE_BYTES", 100)
    images = load_images(bucket)
    assert images.store is not None
    with pytest.raises(BadImage, match="too large"):
        images.store.read("cat/0.png")
    with pytest.raises(BadImage, match="too large"):
        RemoteStore(f"{site.url}/photos").read("cat/1.png")


def test_a_server_that_is_gone_stops_the_run_and_not_each_image(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_MOST_LOST", 3)
    site.rules = {path: status(503) for path in FILES if "cat" in path}
    store = RemoteStore(f"{site.url}/photos")
    for name in ("cat/0.png", "cat/1.png"):
        with pytest.raises(BadImage):
            store.read(name)
    store.read("dog/0.png")  # it is there: the count begins again
    with pytest.raises(BadImage):
        store.read("cat/0.png")
    with pytest.raises(BadImage):
        store.read("cat/1.png")
    with pytest.raises(DataError, match="3 images in a row could not be read") as caught:
        store.read("cat/2.png")
    assert not isinstance(caught.value, BadImage)


def test_a_page_asks_a_server_that_is_gone_for_two_pictures_and_no_more(site: Site) -> None:
    site.rules = {path: status(503) for path in FILES if "cat" in path}
    store = RemoteStore(f"{site.url}/photos")
    assert [known_thumbnail(store, f"cat/{i}.png", "", 8) for i in range(3)] == [b""] * 3
    assert [site.asked[f"GET /photos/cat/{i}.png"] for i in range(3)] == [N_TRIES, N_TRIES, 0]
    store.read("dog/0.png")  # it is there again
    known_thumbnail(store, "cat/2.png", "", 8)
    assert site.asked["GET /photos/cat/2.png"] == N_TRIES


def test_redirects_are_followed_within_a_host_and_to_no_other(site: Site) -> None:
    site.rules["/photos/old.png"] = status(302, Location="/photos/cat/1.png")
    site.rules["/photos/away.png"] = status(302, Location="http://localhost:1/secret?sig=abcdef")
    store = RemoteStore(f"{site.url}/photos")
    assert store.read("old.png") == FILES["/photos/cat/1.png"]
    with pytest.raises(BadImage, match=r"sends on to another host \(localhost\), which is not followed$"):
        store.read("away.png")


def test_the_address_where_clouds_keep_credentials_is_not_asked() -> None:
    with pytest.raises(BadImage, match="link-local"):
        RemoteStore("http://169.254.169.254/latest").read("meta-data/x.png")


def test_a_connection_is_kept_and_renewed_where_the_server_hung_up(site: Site) -> None:
    store = RemoteStore(f"{site.url}/photos")

    def hang_up(handler: object, n: int) -> bool:
        handler.close_connection = True  # type: ignore[attr-defined]
        return False

    site.rules["/photos/cat/1.png"] = hang_up
    for name in ("cat/1.png", "cat/2.png", "cat/0.png"):
        assert store.read(name) == FILES[f"/photos/{name}"]
    assert site.asked["GET /photos/cat/2.png"] == 1


# --- stamps ---------------------------------------------------------------------------------------------------


def test_stamps_change_with_the_object_and_with_nothing_else(bucket: str) -> None:
    def stamps() -> list[tuple[int, int]]:
        images = load_images(bucket)
        assert images.store is not None
        return images.store.stamps(images.paths)

    first = stamps()
    assert first == stamps()
    assert all(size == 250 and 0 < stamp < 2**63 for size, stamp in first)
    fsspec.filesystem("memory").pipe("/bucket/photos/cat/2.png", FILES["/photos/dog/2.png"])  # the same size
    assert [a == b for a, b in zip(first, stamps(), strict=True)] == [True, True, False, True, True, True]


def test_a_server_without_etags_is_trusted_by_its_own_clock_and_only_when_a_change_has_settled(site: Site) -> None:
    changed, now = "Thu, 26 Nov 2026 10:00:00 GMT", "Thu, 26 Nov 2026 10:00:02 GMT"

    def rule(date: str) -> object:
        def answer(handler: object, n: int) -> bool:
            handler.send_response_only(200)  # type: ignore[attr-defined]
            for name, value in (("Date", date), ("Last-Modified", changed), ("Content-Length", "7")):
                handler.send_header(name, value)  # type: ignore[attr-defined]
            handler.end_headers()  # type: ignore[attr-defined]
            return True

        return answer

    def stamp() -> tuple[int, int]:
        return RemoteStore(f"{site.url}/photos").stamps(["cat/1.png"])[0]

    site.rules["/photos/cat/1.png"] = rule(now)  # type: ignore[assignment]
    assert stamp() == (7, 0)
    site.rules["/photos/cat/1.png"] = rule(now.replace(":02", ":09"))  # type: ignore[assignment]
    settled = stamp()
    assert settled[1] > 0
    changed = changed.replace(":00 GMT", ":01 GMT")
    site.rules["/photos/cat/1.png"] = rule(now.replace(":02", ":09"))  # type: ignore[assignment]
    assert stamp()[1] not in (0, settled[1])


def test_of_two_names_with_one_hash_nothing_is_known() -> None:
    class Same(str):
        __slots__ = ()

        def __hash__(self) -> int:
            return 5

    seen = Seen()
    assert list(seen.names_of([(Same("a"), 1, 11), ("b", 2, 22), (Same("c"), 3, 33)])) == ["a", "b", "c"]
    assert [seen.get(Same("a")), seen.get("b"), seen.get("d")] == [(-1, 0), (2, 22), (-1, 0)]


# --- URLs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "https://me:secretword@host/photos",
        "s3://KEY:secretword@bucket/photos",
        "https://token@host/photos",
        "https://host/a.png?X-Amz-Signature=secretword",
        "https://account.blob.example/a.png?sv=2024&sig=secretword",
        "https://host/a.png?access_token=secretword",
        "https://host/a.png?w=3;token=secretword",
        "https://host/a.png?h=secretwordsecretwordsecretword",
        "s3://bucket/a.png?Signature=secretword",
    ],
)
def test_a_url_that_grants_access_is_refused_and_not_repeated(url: str, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text(f"path,label\n{url},cat\n")
    for source in (url, table):
        with pytest.raises((UsageError, DataError), match=r"is not taken: .* the environment, ~/.aws") as caught:
            load_images(source)
        assert "secretword" not in str(caught.value)
        assert "KEY" not in str(caught.value)


def test_harmless_urls_are_taken() -> None:
    assert not holds_secret("host/a.png?w=224&h=224&id=12345")
    assert checked_url("S3A://bucket/a@b:c/") == "s3://bucket/a@b:c"
    assert checked_url("abfss://box@account.example/x") == "abfs://box@account.example/x"
    assert (url_name("s3://bucket"), url_name("gs://b/x/train"), url_name("https://h/t.csv")) == (
        "bucket",
        "b-train",
        "t",
    )


def test_a_drive_and_a_path_are_no_stores() -> None:
    assert not any(map(is_store, ("c://photos", "photos", Path("/a/b"), "a:b", "photos.zip")))
    assert is_store("s3://bucket")


def test_a_store_is_made_without_asking_anything_and_travels_as_its_url() -> None:
    store = open_store("s3://nobody-has-this-bucket/x")
    assert store.url == pickle.loads(pickle.dumps(store)).url == "s3://nobody-has-this-bucket/x"


def test_a_store_of_a_cache_that_cannot_be_opened_gives_no_image_and_says_why() -> None:
    store = recorded_store("gopher://me:secretword@host")
    with pytest.raises(BadImage, match="No scheme 'gopher://'"):
        store.read("cat/1.png")
    assert (store.stamps(["cat/1.png"]), store.url) == ([(0, 0)], "")


@pytest.mark.parametrize(
    ("url", "extra"), [("s3://b", "tlfeat[s3]"), ("gs://b", "tlfeat[gcs]"), ("az://b", "tlfeat[azure]")]
)
def test_a_package_that_is_missing_is_named(url: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("s3fs", "gcsfs", "adlfs"):
        monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(UsageError, match=f"needs one more package: pip install '{extra}'".replace("[", r"\[")):
        load_images(url)


# --- tables ---------------------------------------------------------------------------------------------------


def test_a_table_on_a_server_counts_its_paths_from_its_folder(site: Site) -> None:
    rows = ["path,label,split", "photos/cat/1.png,kitten,train", "./photos/dog/2.png,puppy,test"]
    rows += [f"{site.url}/photos/x/../cat/0.png,kitten,val"]
    site.files["/t/../table.csv".replace("/t/..", "")] = "\n".join(rows).encode()
    images = load_images(f"{site.url}/table.csv")
    assert (images.paths, images.labels) == (["cat/1.png", "dog/2.png", "cat/0.png"], ["kitten", "puppy", "kitten"])
    assert (images.splits, images.name) == (["train", "test", "val"], "table")
    assert images_by_path(images)["dog/2.png"] == FILES["/photos/dog/2.png"]


def test_a_local_table_may_name_urls_of_several_buckets_or_servers(bucket: str, tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe("/other/9.png", b"nine")
    table = tmp_path / "table.csv"
    table.write_text("file,class,group\nmemory://bucket/photos/cat/1.png,cat,a\nmemory://other/9.png,dog,b\n")
    images = load_images(table)
    assert (images.place, images.paths) == ("memory://", ["bucket/photos/cat/1.png", "other/9.png"])
    assert (images.labels, images.groups, images.named) == (["cat", "dog"], ["a", "b"], str(table))
    assert images_by_path(images) == {images.paths[0]: FILES["/photos/cat/1.png"], "other/9.png": b"nine"}
    assert images.store is not None
    assert [size for size, _ in images.store.stamps(images.paths)] == [250, 4]


def test_a_table_of_several_web_servers_is_read(site: Site, tmp_path: Path) -> None:
    with serving({"/a/b.png": b"second"}) as second:
        table = tmp_path / "table.tsv"
        table.write_text(f"path\tlabel\n{site.url}/photos/cat/1.png?w=7\tcat\n{second.url}/a/b.png\tdog\n")
        site.files["/photos/cat/1.png?w=7"] = b"narrow"
        images = load_images(table)
        assert images.place == "http://"
        assert list(images_by_path(images).values()) == [b"narrow", b"second"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("memory://b/a.png,x\nphotos/1.png,y", "row 3: a path among URLs"),
        ("memory://b/a.png,x\ns3://b/c.png,y", "One scheme a table"),
        ("memory://b/../../c.png,y", "row 2: the path leads out of memory://b"),
        ("memory://b,y", "row 2: the URL names no image"),
        ("memory://b/a.png,x\n,y", "row 3: the path is empty"),
    ],
)
def test_a_table_that_is_unclear_is_refused_with_its_row(rows: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"path,label\n{rows}\n")
    with pytest.raises(DataError, match=said):
        load_images(tmp_path / "t.csv")


def test_a_table_that_is_not_there_is_said(site: Site) -> None:
    with pytest.raises(DataError, match=r"table.csv cannot be read: not there \(404\)"):
        load_images(f"{site.url}/table.csv")
