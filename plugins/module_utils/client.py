# Copyright: The Hostler developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hub's REST API for plugins: one request at a time, bearer token, JSON both ways.

Only Ansible's own urls and the standard library are used. A refused connection or a 503 is tried
again with backoff, where doing so cannot do anything twice. Redirects are not followed and no
netrc is read: the token goes to hub_url and nowhere else.
"""

from __future__ import annotations

import json
import socket
import time
from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode, urlsplit

from ansible.module_utils.urls import open_url
from ansible_collections.hostler.fleet.plugins.module_utils.errors import (
    HubUnreachable,
    Misconfigured,
    UnexpectedAnswer,
    from_answer,
)

API = "/api/v1"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
# Five tries in about three seconds: long enough for a hub that restarts, short for one that is down.
BACKOFF_S = (0.1, 0.3, 0.8, 1.6)
BACKOFF_CAP_S = 5.0


def check_url(url):
    """Return url without a trailing slash; raise Misconfigured when no hub can be there."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Misconfigured("hub_url: %r is no http(s) URL such as http://127.0.0.1:8010" % url)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise Misconfigured(
            "hub_url: give only scheme, host and port (a token belongs in hub_token_file)"
        )
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise Misconfigured(
            "hub_url: %s would carry the token in the clear; use https://"
            " (http:// is for this machine's loopback only)" % url
        )
    return url.rstrip("/")


class Client(object):
    """Talks to one hub.

    timeout_s bounds each request; ca_file is a PEM bundle for https, or None for the system's.
    Every method raises a HubError. sleep is there for tests.
    """

    def __init__(self, url, token, timeout_s=30, ca_file=None, sleep=time.sleep):
        self.url = check_url(url)
        self._token = token
        self._timeout_s = timeout_s
        self._ca_file = ca_file
        self._sleep = sleep
        self._use_proxy = urlsplit(self.url).hostname not in LOOPBACK

    def get(self, path, query=None):
        return self._json("GET", path, query=query)[0]

    def wait_get(self, path, wait_s):
        """GET that the hub may hold for wait_s seconds until there is something to tell."""
        timeout_s = wait_s + self._timeout_s
        return self._json("GET", path, query={"wait_s": wait_s}, timeout_s=timeout_s)[0]

    def post(self, path, body):
        """POST of an order that may safely be given twice, as orders to workers may."""
        return self._json("POST", path, body=body)[0]

    def post_new(self, path, body, headers):
        """POST made idempotent by its headers; returns (what is there now, whether it is new)."""
        content, status = self._json("POST", path, body=body, headers=headers)
        return content, status == 201

    def post_once(self, path, body):
        """POST that is sent once, whatever happens."""
        return self._json("POST", path, body=body, once=True)[0]

    def post_file(self, path, file, size_bytes):
        """POST an open binary file as it is."""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size_bytes)}
        return self._json("POST", path, file=file, headers=headers)[0]

    def delete(self, path):
        return self._json("DELETE", path)[0]

    def read(self, path, query=None):
        """GET bytes; returns (bytes, headers with lower-case names)."""
        response = self._send("GET", path, query=query)
        return response.read(), {k.lower(): v for k, v in response.headers.items()}

    def pieces(self, path, size_bytes):
        """GET bytes of any number, piece by piece."""
        response = self._send("GET", path)
        try:
            while True:
                piece = response.read(size_bytes)
                if not piece:
                    return
                yield piece
        except (OSError, HTTPException) as failure:
            raise self._unreachable(failure) from None

    def _json(self, method, path, **request):
        """Returns (the decoded answer, the HTTP status)."""
        response = self._send(method, path, **request)
        content = response.read()
        try:
            return json.loads(content) if content else None, response.getcode()
        except ValueError:
            raise UnexpectedAnswer(
                "%s %s%s%s answered something that is no JSON; hub_url may name something else"
                % (method, self.url, API, path)
            ) from None

    def _send(self, method, path, once=False, **request):
        """Send, and again after a refused connection or a 503; returns the open response."""
        waits_s = iter(() if once else BACKOFF_S)
        while True:
            try:
                return self._once(method, path, **request)
            except _NotReady as not_ready:  # noqa: PERF203  (at most five times)
                wait_s = next(waits_s, None)
                if wait_s is None:
                    raise not_ready.error from None
                self._sleep(max(wait_s, not_ready.retry_after_s))

    def _once(self, method, path, body=None, query=None, headers=None, timeout_s=None, file=None):
        where = "%s %s%s%s" % (method, self.url, API, path)
        url = self.url + API + quote(path)
        if query:
            url += "?" + urlencode(query, doseq=True)
        data = None if body is None else json.dumps(body).encode("utf-8")
        if file is not None:
            file.seek(0)  # the try before may have got somewhere
            data = file
        try:
            return open_url(
                url,
                method=method,
                data=data,
                headers=self._headers(headers),
                timeout=timeout_s or self._timeout_s,
                follow_redirects="none",
                use_netrc=False,
                use_proxy=self._use_proxy,
                ca_path=self._ca_file,
                http_agent="hostler.fleet",
            )
        except HTTPError as answer:
            error = from_answer(where, answer.code, answer.read())
            if answer.code == 503:
                raise _NotReady(error, answer.headers.get("Retry-After")) from None
            raise error from None
        except (URLError, OSError) as failure:
            raise self._unreachable(failure) from None

    def _headers(self, extra):
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = "Bearer " + self._token
        headers.update(extra or {})
        return headers

    def _unreachable(self, failure):
        """The error for a request that got no answer; _NotReady when nothing was even sent."""
        reason = getattr(failure, "reason", failure)
        if isinstance(reason, (socket.timeout, TimeoutError)):
            return HubUnreachable(
                "the hub at %s did not answer within %s s; see its log, or raise hub_timeout"
                % (self.url, self._timeout_s)
            )
        error = HubUnreachable(
            "the hub at %s cannot be reached (%s); is it running, and is hub_url right?"
            % (self.url, reason)
        )
        return _NotReady(error) if isinstance(reason, ConnectionRefusedError) else error


class _NotReady(Exception):
    """Nothing was done, so the same request may be sent again."""

    def __init__(self, error, retry_after=None):
        super().__init__(error.message)
        self.error = error
        known = retry_after is not None and str(retry_after).isdigit()
        self.retry_after_s = min(float(retry_after), BACKOFF_CAP_S) if known else 0.0
