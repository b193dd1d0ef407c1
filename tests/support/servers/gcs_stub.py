"""A stub of Google's XML API, as far as obstore calls it: a conditional write names a generation, as Google's does."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

PAGE_OBJECTS = 5


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    objects: dict[str, tuple[int, bytes]]
    parts: dict[tuple[str, int], bytes]
    lock: threading.Lock

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def answer(self, code: int, body: bytes = b"", **headers: str) -> None:
        """Sends one answer."""
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, code: int, name: str) -> None:
        """Sends one of Google's errors."""
        self.answer(code, f"<Error><Code>{name}</Code><Message>{name}</Message></Error>".encode())

    def describe(self, key: str) -> dict[str, str]:
        """Returns the headers of an object."""
        generation, data = self.objects[key]
        digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
        modified = "Sun, 01 Nov 2026 00:00:00 GMT"
        return {"ETag": f'"{digest}"', "x-goog-generation": str(generation), "Last-Modified": modified}

    def do_GET(self) -> None:
        """Answers a read, a look or a listing."""
        url = urlsplit(self.path)
        bucket, _, key = unquote(url.path).lstrip("/").partition("/")
        if bucket == "no-such-bucket":
            return self.refuse(404, "NoSuchBucket")
        with self.lock:
            if not key:
                return self.list_objects(parse_qs(url.query))
            if key not in self.objects:
                return self.refuse(404, "NoSuchKey")
            return self.send_object(key)

    def send_object(self, key: str) -> None:
        """Sends an object, or the range of it that was asked for."""
        data, asked = self.objects[key][1], re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not asked:
            return self.answer(200, data, **self.describe(key))
        first, last = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
        place = {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
        return self.answer(206, data[first : last + 1], **self.describe(key), **place)

    do_HEAD = do_GET  # noqa: N815  # as http.server names it

    def do_PUT(self) -> None:
        """Answers a write, whose condition is a generation: 0 for none."""
        url = urlsplit(self.path)
        key, query = unquote(url.path).lstrip("/").partition("/")[2], parse_qs(url.query)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.lock:
            if "uploadId" in query:
                self.parts[query["uploadId"][0], int(query["partNumber"][0])] = body
                return self.answer(200, ETag=f'"{query["partNumber"][0]}"')
            now = self.objects.get(key, (0, b""))[0]
            asked = self.headers.get("x-goog-if-generation-match")
            if asked is not None and int(asked) != now:
                return self.refuse(412, "PreconditionFailed")
            if self.headers.get("If-Match"):
                return self.refuse(400, "InvalidArgument")
            type(self).generation = getattr(type(self), "generation", 0) + 1
            self.objects[key] = (type(self).generation, body)
            return self.answer(200, **self.describe(key))

    def do_POST(self) -> None:
        """Answers the beginning and the end of an upload in parts."""
        url = urlsplit(self.path)
        key, query = unquote(url.path).lstrip("/").partition("/")[2], parse_qs(url.query)
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "uploadId" not in query:
            begun = f"<Bucket>photos</Bucket><Key>{escape(key)}</Key><UploadId>{escape(key)}</UploadId>"
            answer = f"<InitiateMultipartUploadResult>{begun}</InitiateMultipartUploadResult>"
            return self.answer(200, answer.encode(), Content_Type="application/xml")
        with self.lock:
            mine = sorted(part for part in self.parts if part[0] == query["uploadId"][0])
            type(self).generation = getattr(type(self), "generation", 0) + 1
            self.objects[key] = (type(self).generation, b"".join(self.parts.pop(part) for part in mine))
            etag = escape(self.describe(key)["ETag"])
            done = f"<CompleteMultipartUploadResult><ETag>{etag}</ETag></CompleteMultipartUploadResult>"
            return self.answer(200, done.encode(), Content_Type="application/xml", **self.describe(key))

    def do_DELETE(self) -> None:
        """Answers a deletion."""
        with self.lock:
            self.objects.pop(unquote(urlsplit(self.path).path).lstrip("/").partition("/")[2], None)
        self.answer(204)

    def list_objects(self, query: dict[str, list[str]]) -> None:
        """Answers a page of a listing, of one level where a delimiter is asked for."""
        prefix, folders, contents = query.get("prefix", [""])[0], [], ""
        is_url = query.get("encoding-type") == ["url"]  # else XML would change some characters
        after = query.get("continuation-token", query.get("start-after", [""]))[0]
        found = sorted(key for key in self.objects if key.startswith(prefix) and key > after)
        is_cut = "delimiter" not in query and len(found) > PAGE_OBJECTS
        for key in found[:PAGE_OBJECTS] if is_cut else found:
            if "delimiter" in query and "/" in key[len(prefix) :]:
                folder = prefix + key[len(prefix) :].split("/")[0] + "/"
                folders += [] if folder in folders else [folder]
                continue
            generation, data = self.objects[key]
            etag, name = self.describe(key)["ETag"], quote(key) if is_url else escape(key)
            contents += (
                f"<Contents><Key>{name}</Key><LastModified>2026-11-01T00:00:00.000Z</LastModified>"
                f"<ETag>{escape(etag)}</ETag><Size>{len(data)}</Size><Generation>{generation}</Generation></Contents>"
            )
        names = [quote(name) if is_url else escape(name) for name in folders]
        contents += "".join(f"<CommonPrefixes><Prefix>{name}</Prefix></CommonPrefixes>" for name in names)
        if is_cut:
            contents += f"<NextContinuationToken>{escape(found[PAGE_OBJECTS - 1])}</NextContinuationToken>"
        head = f"<EncodingType>{'url' if is_url else ''}</EncodingType><IsTruncated>{str(is_cut).lower()}</IsTruncated>"
        body = f"<ListBucketResult>{head}{contents}</ListBucketResult>"
        self.answer(200, body.encode(), Content_Type="application/xml")


@contextmanager
def serve_gcs() -> Iterator[str]:
    """Serves an empty storage; yields its address."""
    handler = type("Handler", (_Handler,), {"objects": {}, "parts": {}, "lock": threading.Lock()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
