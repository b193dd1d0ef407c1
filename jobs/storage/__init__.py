"""Object storage and local files behind one set of functions on URIs: all that others know of either."""

from jobs.storage.arrow import make_worker_environment, open_stream, resolve_filesystem
from jobs.storage.errors import Access, translate_error
from jobs.storage.listing import ObjectInfo, list_between, list_level, list_objects
from jobs.storage.objects import (
    delete,
    delete_tree,
    read,
    read_async,
    read_size_async,
    read_with_etag,
    upload,
    write,
)

__all__ = [
    "Access",
    "ObjectInfo",
    "delete",
    "delete_tree",
    "list_between",
    "list_level",
    "list_objects",
    "make_worker_environment",
    "open_stream",
    "read",
    "read_async",
    "read_size_async",
    "read_with_etag",
    "resolve_filesystem",
    "translate_error",
    "upload",
    "write",
]
