"""Images of S3, from a real server on loopback (moto): listing, reading, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import skip_without
from tlfeat.errors import BadImage, DataError
from tlfeat.images import remote
from tlfeat.images.load import load_images
from tlfeat.images.remote import RemoteStore
from tlfeat.images.s3_remote import S3Remote

skip_without(
    "s3fs", "moto", "flask", reason="images of S3 need tlfeat[s3], and their server moto: pip install 'moto[s3]'"
)

ODD = "K\u00e4se + a/1 2+3%20?#&=.png"


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """A client of a server; the environment says how both are reached."""
    import boto3
    import s3fs
    from moto import server as moto_server

    running = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    host, port = running.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "AKIAOFTHETEST",
            "AWS_SECRET_ACCESS_KEY": "secretofthetest",
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_DEFAULT_REGION": "eu-central-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        yield boto3.client("s3")
        s3fs.S3FileSystem.clear_instance_cache()
    running.stop()


@pytest.fixture
def s3(client: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The client, with a bucket of five objects."""
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.001)
    client.create_bucket(Bucket="photos", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    for i, name in enumerate(("cat/1.png", "cat/2.png", "dog/1.png", ODD, "dog/notes.txt")):
        client.put_object(Bucket="photos", Key=f"pets/{name}", Body=bytes([i]) * (100 + i))
    client.put_object(Bucket="photos", Key="pets/", Body=b"")  # as a console makes folders
    yield client
    for each in client.list_objects_v2(Bucket="photos")["Contents"]:
        client.delete_object(Bucket="photos", Key=each["Key"])
    client.delete_bucket(Bucket="photos")


def opened(store: Any) -> S3Remote:
    return store._opened()


@pytest.fixture
def nobody(s3: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No credentials anywhere."""
    import s3fs

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    s3fs.S3FileSystem.clear_instance_cache()
    yield
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("way", ["signed requests", "s3fs"])
def test_a_bucket_is_listed_and_read_with_names_of_any_kind(s3: Any, way: str) -> None:
    store = RemoteStore("s3://photos/pets")
    if way == "s3fs":
        opened(store)._n_detours = 3
    names = store.names()
    assert sorted(names) == sorted(["cat/1.png", "cat/2.png", "dog/1.png", ODD, "dog/notes.txt"])
    assert store.read(ODD) == b"\3" * 103
    sizes, stamps = zip(*store.stamps(["cat/1.png", ODD, "nothing.png"]), strict=True)
    assert (sizes, stamps[2]) == ((100, 103, 0), 0)
    assert opened(store).entry("cat/1.png") == ("cat/1.png", 100, stamps[0])


def test_both_ways_give_the_same_stamps(s3: Any) -> None:
    direct, detour = RemoteStore("s3://photos/pets"), RemoteStore("s3://photos/pets")
    opened(detour)._n_detours = 3
    paths = sorted(direct.names())
    assert paths == sorted(detour.names())
    assert direct.stamps(paths) == detour.stamps(paths)


def test_images_of_a_bucket_have_the_classes_of_its_folders(s3: Any) -> None:
    images = load_images("s3://photos/pets/")
    assert images.classes == ["K\u00e4se + a", "cat", "dog"]
    assert images.passed_over == {".txt": 1}


def test_a_listing_goes_on_over_pages(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = RemoteStore("s3://photos/pets")
    ask = opened(store)._direct
    asked: list[str] = []

    def two_a_page(full: str, query: str, max_bytes: int) -> Any:
        asked.append(query)
        return ask(full, f"{query}&max-keys=2" if query else "", max_bytes)

    monkeypatch.setattr(opened(store), "_direct", two_a_page)
    assert len(store.names()) == 5
    assert len(asked) == 3


@pytest.mark.parametrize("url", ["s3://no-such-bucket-here", "s3://no-such-bucket-here/inside"])
def test_a_bucket_that_is_not_there_is_said(s3: Any, url: str) -> None:
    with pytest.raises(DataError, match=rf"^{url}: there is no such bucket or folder.$"):
        load_images(url)


@pytest.mark.usefixtures("nobody")
def test_no_credentials_are_said_with_what_helps() -> None:
    with pytest.raises(DataError, match=r"no credentials were found\. .* FSSPEC_S3_ANON=true"):
        load_images("s3://photos/pets")


@pytest.mark.usefixtures("nobody")
def test_a_public_object_is_read_without_credentials_where_fsspec_is_told_so_and_no_other(
    s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put_object_acl(Bucket="photos", Key="pets/cat/2.png", ACL="public-read")
    monkeypatch.setitem(__import__("fsspec").config.conf, "s3", {"anon": True})
    store = load_images("s3://photos/pets").store
    assert store is not None
    assert store.read("cat/2.png") == b"\1" * 101
    with pytest.raises(BadImage, match="no permission"):
        store.read("cat/1.png")


def test_no_permission_to_list_is_said(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = RemoteStore("s3://photos/pets")

    def refused(*args: object, **options: object) -> object:
        raise PermissionError("Access Denied")

    class Denied:
        status, headers, body = 403, {}, b""

    monkeypatch.setattr(opened(store)._web, "ask", lambda *args, **options: Denied())
    monkeypatch.setattr(opened(store).files, "call_s3", refused)
    with pytest.raises(DataError, match="s3://photos/pets: no permission to list it"):
        store.names()


def test_a_signed_request_that_is_refused_goes_by_way_of_s3fs_and_after_three_all_do(s3: Any) -> None:
    store = RemoteStore("s3://photos/pets")
    store.names()
    asked = []

    class Moved:
        status, headers, body = 301, {}, b""

    opened(store)._web.ask = lambda url, *args, **options: asked.append(url) or Moved()  # type: ignore[method-assign,func-returns-value,assignment]
    for _ in range(5):
        assert store.read("cat/2.png") == b"\1" * 101
    assert len(asked) == 3


def test_an_object_that_was_deleted_or_changed_after_the_listing_is_told(s3: Any) -> None:
    store = RemoteStore("s3://photos/pets")
    store.names()
    s3.delete_object(Bucket="photos", Key="pets/cat/1.png")
    s3.put_object(Bucket="photos", Key="pets/cat/2.png", Body=b"\7" * 101)  # as long as before
    with pytest.raises(BadImage, match="not there"):
        store.read("cat/1.png")
    with pytest.raises(BadImage, match=r"^changed since it was listed$"):
        store.read("cat/2.png")
    store.names()
    assert store.read("cat/2.png") == b"\7" * 101
