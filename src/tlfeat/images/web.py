"""Bytes from a web server, with few layers: a connection for each thread, no redirect to another host.

`http.client` costs a fifth of the processor time that the usual clients take for one small object (measured in
docs/benchmarks/remote.md), and reading images from a server is nothing but that.
"""

from __future__ import annotations

import base64
import http.client
import ipaddress
import ssl
import threading
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from urllib.parse import unquote, urljoin, urlsplit

from tlfeat.errors import BadImage
from tlfeat.images.urls import split_web

#: Seconds until a connection stands: longer is a firewall that drops what is sent, or no network.
CONNECT_S = 8.0

#: Seconds without a byte; and how slow a body may come, beside the first minute.
TIMEOUT_S, _MOST_S, _BYTES_PER_S = 30.0, 60.0, 20_000

#: Statuses that pass by themselves.
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})

_REDIRECTS = frozenset({301, 302, 303, 307, 308})

#: Connections that a thread keeps: a table may name many servers.
_MAX_KEPT = 4

_CHUNK = 1 << 20


class Passing(Exception):
    """What may go well when it is tried again; the message is the reason, `after_s` what the server asked to wait."""

    def __init__(self, why: str, after_s: float = 0.0) -> None:
        super().__init__(why)
        self.after_s = after_s


class Unreached(Passing):
    """No connection came about: nobody is there, or the network is not."""


class Untrusted(BadImage):
    """The certificate of a server is not accepted."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered: the status, its headers, and the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Kept(dict[str, http.client.HTTPConnection]):
    """The connections of a thread, closed when it ends."""

    def __del__(self) -> None:
        for connection in self.values():
            connection.close()


class Web:
    """Requests to web servers; may be used from any number of threads.

    Parameters
    ----------
    ca_file : str
        Certificates to accept, in place of those of the system.
    """

    def __init__(self, ca_file: str = "") -> None:
        self._local = threading.local()
        self._ca_file = ca_file

    def get(self, url: str, headers: Mapping[str, str] | None = None, *, max_bytes: int, method: str = "GET") -> Answer:
        """Return the answer of status 200 of a server, redirects within the host followed.

        Raises
        ------
        Passing
            Busy, cut off, not reachable: try again.
        BadImage
            What would be the same again: not there, no permission, too large, a redirect to another host.
        """
        answer = self.ask(url, headers, max_bytes=max_bytes, method=method)
        for _ in range(5):
            if answer.status not in _REDIRECTS:
                break
            url = _next_hop(url, answer.headers.get("location", ""))
            answer = self.ask(url, headers, max_bytes=max_bytes, method=method)
        if answer.status != 200:
            raise_for(answer.status, answer.headers.get("retry-after", ""))
        return answer

    def ask(self, url: str, headers: Mapping[str, str] | None, *, max_bytes: int, method: str = "GET") -> Answer:
        """Return whatever a server answers to one request."""
        base, path = split_web(url)
        kept: _Kept = self._local.__dict__.setdefault("kept", _Kept())
        connection = kept.pop(base, None)
        is_reused = connection is not None
        if connection is None:
            connection = _connection(base, self._ca_file)
        try:
            try:
                response = _send(connection, base, path, headers, method)
            except (ConnectionError, http.client.BadStatusLine):
                if not is_reused:
                    raise
                connection.close()  # the server had hung up meanwhile, which says nothing of this request
                response = _send(connection, base, path, headers, method)
            body = _body(response, max_bytes) if method != "HEAD" else response.read()
        except (BadImage, Unreached):
            connection.close()
            raise
        except http.client.IncompleteRead as error:
            connection.close()
            raise Passing("cut short") from error
        except ssl.SSLCertVerificationError as error:
            connection.close()
            raise Untrusted(f"its certificate is not accepted: {error.verify_message}") from error
        except TimeoutError as error:
            connection.close()
            raise Passing("no answer in time") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            why = getattr(error, "strerror", None) or type(error).__name__
            raise Passing(f"the connection failed: {why}") from error
        if response.will_close:
            connection.close()
        kept[base] = connection
        while len(kept) > _MAX_KEPT:
            kept.pop(next(iter(kept))).close()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, body)


def raise_for(status: int, retry_after: str = "") -> None:
    """Raise what a status other than 200 means."""
    if status in _PASSING:
        raise Passing(_MEANING.get(status, f"the server is busy ({status})"), _seconds(retry_after))
    raise BadImage(_MEANING.get(status, f"the server answered {status}"))


_MEANING = {
    401: "no permission (401)",
    403: "no permission (403)",
    404: "not there (404)",
    410: "not there (410)",
    500: "the server failed (500)",
}


def _seconds(retry_after: str) -> float:
    return min(float(retry_after), 30.0) if retry_after.isdecimal() else 0.0


def _send(
    connection: http.client.HTTPConnection, base: str, path: str, headers: Mapping[str, str] | None, method: str
) -> http.client.HTTPResponse:
    if connection.sock is None:
        try:
            connection.connect()
        except TimeoutError as error:
            raise Unreached("the server does not answer") from error
        if connection.sock is not None:
            connection.sock.settimeout(TIMEOUT_S)
    sent = {"Accept-Encoding": "identity", **_proxy_headers(base), **(headers or {})}
    connection.request(method, base + path if _is_proxied(base) else path, headers=sent)
    return connection.getresponse()


def _body(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    if (response.length or 0) > max_bytes:
        raise BadImage(f"too large: the limit is {max_bytes / 1e9:.1f} GB")
    if response.headers.get("Content-Encoding", "identity").lower() not in ("", "identity"):
        raise BadImage("the server sends it packed, which was not asked for")
    n_stated = response.length
    due_s = time.monotonic() + _MOST_S + (n_stated or 0) / _BYTES_PER_S
    parts, n = [], 0
    while chunk := response.read1(_CHUNK):  # not `read`: a byte now and then would hold it for ever
        parts.append(chunk)
        n += len(chunk)
        if n > max_bytes:
            raise BadImage(f"too large: the limit is {max_bytes / 1e9:.1f} GB")
        if time.monotonic() > due_s:
            raise TimeoutError
    response.close()  # the connection stays open
    if n_stated is not None and n < n_stated:
        raise http.client.IncompleteRead(b"", n_stated - n)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _next_hop(url: str, location: str) -> str:
    """Return where a redirect leads, where that is the same host; a server must not send us to any other."""
    target = urljoin(url, location)
    old, new = urlsplit(url), urlsplit(target)
    is_same = (old.scheme, old.netloc) == (new.scheme, new.netloc)
    is_upgrade = (old.scheme, new.scheme) == ("http", "https") and old.netloc == new.netloc
    if not location or "@" in new.netloc or not (is_same or is_upgrade):
        host = f" ({new.hostname})" if new.hostname else ""
        raise BadImage(f"the server sends on to another host{host}, which is not followed")
    return target


def _connection(base: str, ca_file: str) -> http.client.HTTPConnection:
    parts = urlsplit(base)
    host, port = parts.hostname or "", parts.port
    if _is_link_local(host):
        raise BadImage("an address of this machine's own network that serves no images (link-local)")
    proxy = _proxy_of(parts.scheme, parts.netloc)
    if not proxy:
        if parts.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=CONNECT_S, context=_tls(ca_file))
        return http.client.HTTPConnection(host, port, timeout=CONNECT_S)
    by = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if parts.scheme == "http":
        return http.client.HTTPConnection(by.hostname or "", by.port or 80, timeout=CONNECT_S)
    tunnel = http.client.HTTPSConnection(by.hostname or "", by.port or 80, timeout=CONNECT_S, context=_tls(ca_file))
    tunnel.set_tunnel(host, port or 443, headers=_proxy_login(proxy))
    return tunnel


def _is_link_local(host: str) -> bool:
    """Whether a table sends us to where clouds keep the credentials of a machine (169.254.169.254)."""
    try:
        return ipaddress.ip_address(host).is_link_local
    except ValueError:
        return False


@cache
def _tls(ca_file: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_file or None)


def _proxy_of(scheme: str, netloc: str) -> str:
    """Return the proxy that the environment names for a host, "" for none."""
    proxies = urllib.request.getproxies()
    return "" if not proxies or urllib.request.proxy_bypass(netloc) else proxies.get(scheme, "")


@cache
def _is_proxied(base: str) -> bool:
    parts = urlsplit(base)
    return parts.scheme == "http" and bool(_proxy_of("http", parts.netloc))


@cache
def _proxy_headers(base: str) -> dict[str, str]:
    return _proxy_login(_proxy_of("http", urlsplit(base).netloc)) if _is_proxied(base) else {}


def _proxy_login(proxy: str) -> dict[str, str]:
    by = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if not by.username:
        return {}
    login = f"{unquote(by.username)}:{unquote(by.password or '')}".encode()
    return {"Proxy-Authorization": "Basic " + base64.b64encode(login).decode()}
