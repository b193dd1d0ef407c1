"""What Ray's client makes of servers that are no head, or do not let it in: one line each, and an end or patience."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator

import pytest

from jobs.errors import JobError, RequestError
from jobs.nights.head import RayHead, UnreachableHeadError


@pytest.fixture
def serve() -> Iterator[Callable[[int, str], str]]:
    """Starts a server that answers everything alike; returns its URL."""
    servers: list[http.server.HTTPServer] = []

    def start(code: int, body: str) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(code)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, format: str, *args: object) -> None:
                """Says nothing."""

        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("code", "body", "kind", "said"),
    [
        (200, "<html>", RequestError, r"answers, but not as the head of a Ray cluster does .*: correct --head"),
        (200, "{}", RequestError, r"answers, but not as the head of a Ray cluster does \(KeyError\)"),
        (200, "[]", RequestError, r"answers, but not as the head of a Ray cluster does \(TypeError\)"),
        (401, "", RequestError, "wants a token, or another one than it got: set RAY_AUTH_MODE=token"),
        (403, "", RequestError, "wants a token, or another one than it got: set RAY_AUTH_MODE=token"),
        (404, "", JobError, "refuses: Version check returned 404"),
        (503, "", UnreachableHeadError, "does not answer: 503"),
    ],
    ids=["a page", "other JSON", "a list", "no token", "a wrong token", "another API", "starting"],
)
def test_a_server_that_is_no_head_is_told_from_one_that_starts(
    serve: Callable[[int, str], str], code: int, body: str, kind: type[JobError], said: str
) -> None:
    with pytest.raises(JobError, match=said) as stopped:
        RayHead(serve(code, body)).read_state("nightly-2026-11-29-1")
    assert type(stopped.value) is kind


def test_where_nobody_listens_a_head_may_be_starting() -> None:
    with pytest.raises(UnreachableHeadError, match="does not answer"):
        RayHead("http://127.0.0.1:1").read_state("nightly-2026-11-29-1")
