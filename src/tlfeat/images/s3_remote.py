"""Images of S3: s3fs finds credentials, region and address; objects are then read by plain signed requests.

One object by way of s3fs costs three times the processor time of a signed request, and a name of a listing twenty
times (docs/benchmarks/remote.md). Whatever such a request is refused goes by way of s3fs once more, which follows a
bucket to its region and renews credentials; where that helps three times, all goes that way.
"""

from __future__ import annotations

import os
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote

from tlfeat.errors import BadImage, DataError
from tlfeat.images.fsspec_remote import FsspecRemote, listing_error, read_error
from tlfeat.images.seen import Entry, stamp_of
from tlfeat.images.web import Answer, Passing, Unreached, Untrusted, Web, raise_for

#: Seconds for which credentials are taken as they are; those of a role are renewed minutes before they end.
_CREDENTIALS_S = 60.0

#: Of one page of a listing: a thousand names of at most 1,024 characters.
_MAX_PAGE_BYTES = 32 << 20

_MAX_DETOURS = 3


class S3Remote(FsspecRemote):
    """The `seen.Remote` of a bucket, or of a part of one."""

    def __init__(self, url: str, files: Any) -> None:
        super().__init__(url, files)
        self._web = Web(os.environ.get("AWS_CA_BUNDLE", ""))
        self._lock = threading.Lock()
        self._signers: dict[str, _Signer] = {}
        self._n_detours = 0

    def entries(self) -> Iterator[Entry]:
        """List all objects below the URL, a thousand at a time."""
        bucket, _, prefix = self.base.partition("/")
        prefix = f"{prefix}/" if prefix else ""
        token, is_first = "", True
        while is_first or token:
            try:
                found, token = self._page(bucket, prefix, token)
            except DataError:
                raise
            except Exception as error:
                raise listing_error(self.url, error) from error
            is_first = False
            for key, size, etag in found:
                if key != prefix:
                    yield key[len(prefix) :], size, stamp_of("etag", etag, size)

    def fetch(self, path: str, max_bytes: int) -> tuple[bytes, int]:
        """Read one object."""
        try:
            answer = self._direct(self.full(path), "", max_bytes)
        except (Passing, BadImage):
            raise
        except Exception as error:  # of s3fs, which finds credentials and address
            raise read_error(error) from error
        if answer is None or answer.status not in (200, 404):
            if answer is not None and answer.status in (429, 500, 502, 503, 504):
                raise_for(answer.status, answer.headers.get("retry-after", ""))
            found = super().fetch(path, max_bytes)
            self._n_detours += answer is not None
            return found
        if answer.status == 404:
            raise_for(404)
        etag = answer.headers.get("etag", "")
        return answer.body, stamp_of("etag", etag, len(answer.body)) if etag else 0

    def _page(self, bucket: str, prefix: str, token: str) -> tuple[list[tuple[str, int, str]], str]:
        """Return key, size and ETag of up to a thousand objects, and what to ask for the next ones."""
        query = f"encoding-type=url&list-type=2&prefix={quote(prefix, safe='')}"
        if token:
            query = f"continuation-token={quote(token, safe='')}&{query}"
        answer = None
        for is_last in (False, True):
            try:
                answer = self._direct(f"{bucket}/", query, _MAX_PAGE_BYTES)
            except Unreached as error:
                if is_last:
                    raise DataError(f"{self.url} cannot be listed: {error}. Is there a network?") from error
                continue
            except (Passing, BadImage):
                pass  # s3fs tries again
            break
        if answer is not None and answer.status == 200:
            return _parsed(answer.body)
        options = {"ContinuationToken": token} if token else {}
        out = self.files.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **options)
        found = [(each["Key"], int(each["Size"]), str(each.get("ETag", ""))) for each in out.get("Contents", [])]
        return found, str(out.get("NextContinuationToken", ""))

    def _direct(self, full: str, query: str, max_bytes: int) -> Answer | None:
        """Ask by a signed request; None where that cannot be done here."""
        if self._n_detours >= _MAX_DETOURS:
            return None
        bucket, _, key = full.partition("/")
        with self._lock:
            if (signer := self._signers.get(bucket)) is None:
                signer = self._signers[bucket] = _Signer.of(self.files, bucket)
        if not signer.is_ready:
            return None
        url = signer.base + quote(key, safe="/~", errors="surrogateescape")
        url += f"?{query}" if query else ""
        try:
            return self._web.ask(url, signer.headers(url), max_bytes=max_bytes)
        except Untrusted:  # s3fs brings certificates of its own
            return None


class _Signer:
    """The address of a bucket, and headers that prove who asks for an object of it."""

    def __init__(self, files: Any = None, base: str = "", client: Any = None) -> None:
        self.base, self._files, self._client = base, files, client
        self._auth: Any = None
        self._due_s = 0.0
        self.is_ready = bool(base)

    @classmethod
    def of(cls, files: Any, bucket: str) -> _Signer:
        """Ask s3fs how it reaches a bucket; the rare ways (access points, own certificates) are left to it."""
        is_rare = bucket.startswith("arn:") or bucket.endswith("--x-s3")
        if is_rare or files.client_kwargs.get("verify") is not None or files.req_kw:
            return cls()
        try:
            address = str(files.sign(f"{bucket}/x")).partition("?")[0]
            signer = cls(files, address.removesuffix("x"), files.s3)
            signer.headers(address)
        except AttributeError:  # another version of aiobotocore keeps them elsewhere
            return cls()
        return signer

    def headers(self, url: str) -> dict[str, str]:
        """Return the headers of a GET; none where nobody signs."""
        from botocore.awsrequest import AWSRequest

        if time.monotonic() > self._due_s:
            self._renew()
        if self._auth is None:
            return {}
        request = AWSRequest("GET", url)
        self._auth.add_auth(request)
        return dict(request.headers.items())

    def _renew(self) -> None:
        import fsspec.asyn
        from botocore.auth import S3SigV4Auth

        maker = self._client._request_signer
        if self._files.anon or maker._credentials is None:
            self._auth = None
        else:
            frozen = fsspec.asyn.sync(self._files.loop, maker._credentials.get_frozen_credentials)
            self._auth = S3SigV4Auth(frozen, "s3", maker._region_name)
        self._due_s = time.monotonic() + _CREDENTIALS_S


def _parsed(page: bytes) -> tuple[list[tuple[str, int, str]], str]:
    """Return the objects of a page of a listing, and the token of the next page."""
    root = ET.fromstring(page)
    space = root.tag.rpartition("}")[0]
    space = f"{space}}}" if space else ""
    found, is_quoted = [], root.findtext(f"{space}EncodingType") == "url"
    for each in root.iter(f"{space}Contents"):
        values = {child.tag: child.text or "" for child in each}
        key = values[f"{space}Key"]
        key = unquote(key.replace("+", " "), errors="surrogateescape") if is_quoted else key
        found.append((key, int(values[f"{space}Size"]), values.get(f"{space}ETag", "")))
    return found, root.findtext(f"{space}NextContinuationToken") or ""
