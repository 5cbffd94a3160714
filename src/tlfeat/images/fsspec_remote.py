"""Images of whatever fsspec reads: buckets by the packages s3fs, gcsfs and adlfs, and what is in memory.

Credentials and settings come from where those packages look: the environment, ~/.aws, the role of a machine, fsspec's
own configuration (``FSSPEC_S3_ANON=true``). tlfeat never sees them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from tlfeat.errors import BadImage, DataError, UsageError, short_reason
from tlfeat.images.seen import Entry, stamp_of
from tlfeat.images.urls import scheme_of
from tlfeat.images.web import CONNECT_S, Passing, raise_for

#: Scheme to the package that reads it, and how it is installed.
PACKAGES: Mapping[str, tuple[str, str]] = {
    "s3": ("s3fs", "tlfeat[s3]"),
    "gs": ("gcsfs", "tlfeat[gcs]"),
    "az": ("adlfs", "tlfeat[azure]"),
    "abfs": ("adlfs", "tlfeat[azure]"),
}

#: What listings say of a version of an object, the best first.
_MARKS = ("ETag", "etag", "generation", "VersionId", "version_id", "md5Hash", "crc32c", "checksum", "content_md5")

_TIMES = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")


def open_files(url: str) -> Any:
    """Return the file system of fsspec for a URL; a `UsageError` where its package is missing."""
    scheme = scheme_of(url)
    package, extra = PACKAGES.get(scheme, ("fsspec", "fsspec"))
    options: dict[str, Any] = {} if scheme == "memory" else {"use_listings_cache": False}
    if scheme == "s3":
        options["config_kwargs"] = {"max_pool_connections": 64, "connect_timeout": CONNECT_S}
    try:
        import fsspec

        import_module(package)
        return fsspec.filesystem("abfs" if scheme == "az" else scheme, **options)
    except ImportError as error:
        raise UsageError(f"Reading {scheme}:// needs one more package: pip install '{extra}' ({package})") from error
    except Exception as error:
        raise DataError(f"{url} cannot be opened: {reason(error)}.") from error


class FsspecRemote:
    """The `seen.Remote` of a file system of fsspec."""

    lists_stamps = True

    def __init__(self, url: str, files: Any) -> None:
        self.url, self.files = url, files
        self.base = str(files._strip_protocol(url)).rstrip("/")

    def entries(self) -> Iterator[Entry]:
        """List all objects below the URL."""
        try:
            found = self.files.find(self.base, detail=True)
        except Exception as error:
            raise listing_error(self.url, error) from error
        top = f"{self.base}/" if self.base else ""
        while found:
            name, info = found.popitem()  # by and by, as the entries are made
            if name.startswith(top) and info.get("type") != "directory":
                yield name[len(top) :], _size(info), stamp_of_info(info)

    def entry(self, path: str) -> Entry:
        """Ask for one object."""
        try:
            info = self.files.info(self.full(path))
        except Exception as error:
            raise read_error(error) from error
        return path, _size(info), stamp_of_info(info)

    def fetch(self, path: str, max_bytes: int) -> tuple[bytes, int]:
        """Read one object."""
        try:
            data = self.files.cat_file(self.full(path))
        except Exception as error:
            raise read_error(error) from error
        if len(data) > max_bytes:
            raise BadImage(f"too large: the limit is {max_bytes / 1e9:.1f} GB")
        return data, 0

    def full(self, path: str) -> str:
        """Return a path as the file system takes it."""
        return f"{self.base}/{path}" if self.base else path


def _size(info: Mapping[str, Any]) -> int:
    size = info.get("size")
    return -1 if size is None else int(size)


def stamp_of_info(info: Mapping[str, Any]) -> int:
    """Return the stamp of an object by what a listing says of it, 0 where that is nothing."""
    for name in _MARKS:
        if info.get(name):
            return stamp_of(name.lower(), info[name], _size(info))
    times = [info[name] for name in _TIMES if info.get(name)]
    return stamp_of("time", times[0], _size(info)) if times else 0


def status_of(error: BaseException | None) -> int:
    """Return the HTTP status that an error of any of these packages holds, 0 where there is none."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, Mapping):  # botocore
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if isinstance(status, int):
                return status
        for name in ("status_code", "status", "code"):
            if isinstance(status := getattr(error, name, None), int) and 100 <= status < 600:
                return status
        error = error.__cause__ or error.__context__
    return 0


_PASSING_NAMES = ("Timeout", "Connection", "Disconnected", "Incomplete", "Payload", "Throttl", "SlowDown", "ServiceRe")


def read_error(error: Exception) -> BadImage | Passing:
    """Return what an error of reading means: worth another try, or not."""
    if isinstance(error, FileNotFoundError):
        return BadImage("not there (404)")
    if isinstance(error, PermissionError):
        return BadImage("no permission (403)")
    if status := status_of(error):
        try:
            raise_for(status)
        except (BadImage, Passing) as meaning:
            return meaning
    names = [kind.__name__ for each in (error, error.__cause__) if each is not None for kind in type(each).__mro__]
    if isinstance(error, TimeoutError | ConnectionError) or any(p in n for p in _PASSING_NAMES for n in names):
        return Passing(f"the connection failed: {type(error).__name__}")
    return BadImage(f"cannot be read: {reason(error)}")


def listing_error(url: str, error: Exception) -> DataError:
    """Return the `DataError` that says why there is no listing, and what helps."""
    status, name = status_of(error), type(error).__name__
    if "NoCredentials" in name or "DefaultCredentials" in name or "CredentialsError" in name:
        return DataError(
            f"{url}: no credentials were found. Set them as your provider says (docs/remote.md), or, for a public "
            f"bucket, FSSPEC_{scheme_of(url).upper()}_ANON=true."
        )
    if isinstance(error, PermissionError) or status in (401, 403):
        return DataError(f"{url}: no permission to list it. The credentials in use may not read this bucket.")
    if isinstance(error, FileNotFoundError) or status == 404:
        return DataError(f"{url}: there is no such bucket or folder.")
    return DataError(f"{url} cannot be listed: {reason(error)}.")


def reason(error: Exception) -> str:
    """Return the first line of an error without what stands behind a ``?``: that of a URL may be a signature."""
    words = short_reason(error).split(" ")
    return " ".join(word.partition("?")[0].strip("\"'") if "://" in word else word for word in words)
