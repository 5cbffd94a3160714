"""The commands on a bucket: what they print and write, and that nothing of what grants access is in it."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from made_servers import serving
from tlfeat.cli.app import app
from tlfeat.images import remote

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.chdir(tmp_path)
    files = fsspec.filesystem("memory")
    for i in range(24):
        Image.new("RGB", (12, 10), (10 * i, 200 if i % 2 else 20, 3 * i)).save("one.png")
        files.pipe(f"/pets/{'cat' if i % 2 else 'dog'}/{i:02}.png", Path("one.png").read_bytes())
    Path("one.png").unlink()
    yield "memory://pets"
    files.rm("/pets", recursive=True)


def run(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, [*words])
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout if "--json" in words else result.output


def test_a_bucket_goes_through_extract_fit_audit_and_predict(bucket: str, tmp_path: Path) -> None:
    said = run("extract", bucket, "--backbone", "pixels")
    assert f"24 images, 2 classes from {bucket}" in said
    assert [path.name for path in (tmp_path / "cache").glob("*.h5")] == ["pets-pixels-" + cache_digest(tmp_path)]
    assert "24 known already" in run("extract", bucket, "--backbone", "pixels")
    assert "0 embedded" in run("extract", "--cache", str(next((tmp_path / "cache").glob("*.h5"))))
    run("fit-sklearn", "--model", "lda")
    assert bucket in json.loads(run("cache", "info", "--json"))["source"]
    run("similar", "cat/01.png", "--output", "out")
    assert (tmp_path / "out" / "similar.html").read_text().count("data:image/jpeg") > 3
    found = json.loads(run("predict", f"{bucket}/cat/01.png", f"{bucket}/dog", "--json"))
    assert [each["path"] for each in found][:2] == [f"{bucket}/cat/01.png", f"{bucket}/dog/00.png"]
    assert {each["label"] for each in found} == {"cat", "dog"}
    assert not (tmp_path / "memory:").exists()


def cache_digest(folder: Path) -> str:
    return next((folder / "cache").glob("*.h5")).name.rpartition("-")[2]


def test_pages_of_a_bucket_that_is_gone_leave_its_pictures_out(bucket: str, tmp_path: Path) -> None:
    run("extract", bucket, "--backbone", "pixels")
    fsspec.filesystem("memory").rm("/pets/cat", recursive=True)
    run("audit", "--output", "out")
    run("similar", "dog/00.png", "--output", "out")
    assert "data:image/jpeg" in (tmp_path / "out" / "similar.html").read_text()


def test_nothing_that_grants_access_is_written_or_said(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "verysecretword"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", f"id-{secret}")
    files = {path: fsspec.filesystem("memory").cat(path) for path in fsspec.filesystem("memory").find("/pets")}
    with serving(files) as site:
        monkeypatch.setenv("http_proxy", f"http://me:{secret}@127.0.0.1:{site.url.rpartition(':')[2]}")
        monkeypatch.setenv("no_proxy", "")
        # the server stands for a proxy, too: it is asked for whole URLs
        site.files |= {f"http://pets.example{path}": content for path, content in files.items()}
        Path("t.csv").write_text("path,label\n" + "".join(f"http://pets.example{p},{p[6:9]}\n" for p in files))
        said = run("extract", "t.csv", "--backbone", "pixels", "-v")
        assert any("Proxy-Authorization" in headers for headers in site.headers)
    for url in (f"s3://a:{secret}@b/c", f"https://h/x.png?sig={secret}", f"http://{secret}@h/t.csv"):
        said += run("extract", url, "--backbone", "pixels", code=2)
        said += run("predict", "m", url, code=2)
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.001)
    run("similar", "cat/01.png", "--output", "out")  # of a server that is gone
    assert secret not in said
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path
            assert os.fsencode(secret) not in os.fsencode(path)


def test_texts_in_a_bucket_are_refused_in_one_line(bucket: str) -> None:
    said = run("extract", bucket, "--backbone", "minilm", "--weights", "w", code=2)
    assert f"copy {bucket} here first" in said


def test_single_images_of_a_bucket_and_of_an_archive_are_found_and_predicted(bucket: str, tmp_path: Path) -> None:
    files = fsspec.filesystem("memory")
    with zipfile.ZipFile("new.zip", "w") as archive:
        archive.writestr("new/cat.png", files.cat("/pets/cat/21.png"))
    run("extract", bucket, "--backbone", "pixels", "--classes", "cat,dog")
    found = json.loads(run("similar", f"{bucket}/cat/01.png", "new.zip/new/cat.png", "-k", "2", "--json"))["images"]
    assert [each["known_as"] for each in found] == [["cat/01.png"], ["cat/21.png"]]
    assert [each["neighbours"][0]["label"] for each in found] == ["cat", "cat"]
    page = next((tmp_path / "cache").rglob("similar.html")).read_text()
    assert page.count("data:image/jpeg") == 6
    assert "memory://pets/gone.png: not there (404)" in run("similar", f"{bucket}/gone.png", code=3)
    run("fit-sklearn", "--model", "lda")
    (predicted,) = json.loads(run("predict", "new.zip/new/cat.png", "--json"))
    assert (predicted["path"], predicted["label"]) == ("new.zip/new/cat.png", "cat")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("audit", "--write", "s3://b/clean.csv"), "write: s3:/b/clean.csv is a URL"),
        (("extract", "--cache", "gs://b/c.h5"), "cache: gs:/b/c.h5 is a URL"),
        (("compare", "--cache", "a.h5", "--cache", "https://b/c.h5"), "cache: https:/b/c.h5 is a URL"),
    ],
)
def test_what_is_written_lies_on_this_machine(
    words: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in run(*words, code=2)
    assert not list(tmp_path.iterdir())
