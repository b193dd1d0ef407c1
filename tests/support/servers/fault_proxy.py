"""An HTTP proxy on loopback before the S3 server, that misbehaves as told: what tests of storage faults talk to.

The client signs requests for the proxy's address; it passes on every header as it came, Host too, and so the server
finds the signature right. Faults are rules: the first one that fits a request and is not used up is applied to it.
"""

from __future__ import annotations

import http.client
import socket
import struct
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, Self
from urllib.parse import urlsplit

Kind = Literal["error", "reset", "truncate", "shorten", "hang", "slow"]


@dataclass
class Rule:
    """What to do to some requests.

    Attributes:
        kind: ``error`` answers ``status`` and ``code``; ``reset`` ends the connection; ``truncate`` stops in the middle
            of the body; ``shorten`` gives half of the body as if it were all; ``hang`` never answers; ``slow`` waits
            ``delay_s`` before it answers.
        times: to how many requests; they count up in `Proxy.applied`.
        method: to requests of this method only; empty for all.
        part: to requests whose path has this in it.
        status: of an ``error``.
        code: S3's error code of an ``error``.
        delay_s: of ``slow``.
    """

    kind: Kind
    times: int = 10**9
    method: str = ""
    part: str = ""
    status: int = 503
    code: str = "SlowDown"
    delay_s: float = 0.0


@dataclass
class Proxy:
    """A running proxy; use it as a context manager.

    Attributes:
        upstream: URL of the server behind it.
        rules: faults, tried in order; change them at any time.
        applied: how often each kind of fault was applied.
        requests: methods and paths of all requests, in order.
    """

    upstream: str
    rules: list[Rule] = field(default_factory=list)
    applied: Counter[str] = field(default_factory=Counter)
    requests: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stopping, self._lock = threading.Event(), threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": self}))
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()

    def lift(self, rule: Rule, *, after_s: float) -> None:
        """Takes a rule back after some seconds."""
        threading.Timer(after_s, lambda: self.rules.remove(rule)).start()

    def rule_for(self, method: str, path: str) -> Rule | None:
        with self._lock:
            self.requests.append((method, path))
            for rule in self.rules:
                if rule.times > 0 and rule.method in ("", method) and rule.part in path:
                    rule.times -= 1
                    self.applied[rule.kind] += 1
                    return rule
        return None


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client, with one of its own to the server."""

    proxy: Proxy
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self._upstream = http.client.HTTPConnection(urlsplit(self.proxy.upstream).netloc, timeout=300)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def finish(self) -> None:
        self._upstream.close()
        super().finish()

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def _relay(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        rule = self.proxy.rule_for(self.command, self.path)
        if rule is not None and rule.kind == "error":
            self._refuse(rule)
        elif rule is not None and rule.kind in ("reset", "hang"):
            if rule.kind == "hang":
                self.proxy.stopping.wait()
            self._end(reset=rule.kind == "reset")
        else:
            if rule is not None and rule.kind == "slow":
                self.proxy.stopping.wait(rule.delay_s)
            self._pass_on(body, rule.kind if rule is not None else None)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _relay

    def _pass_on(self, body: bytes, kind: Kind | None) -> None:
        self._upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() != "expect":
                self._upstream.putheader(name, value)
        self._upstream.endheaders(body or None)
        answer = self._upstream.getresponse()
        data = answer.read()
        if kind == "shorten":
            data = data[: len(data) // 2]
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if kind == "truncate" else data)
        if kind == "truncate":
            self._end(reset=False)

    def _refuse(self, rule: Rule) -> None:
        text = f"<?xml version='1.0'?><Error><Code>{rule.code}</Code><Message>as the test wants it</Message></Error>"
        self.send_response_only(rule.status)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Content-Type", "application/xml")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text.encode())

    def _end(self, *, reset: bool) -> None:
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()
        self.close_connection = True
