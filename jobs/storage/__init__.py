"""Object storage and local files behind one set of functions on URIs: all that others know of either."""

from jobs.storage.arrow import arrow_filesystem, open_stream, worker_environment
from jobs.storage.errors import as_storage_error
from jobs.storage.objects import (
    ObjectInfo,
    delete,
    delete_tree,
    list_between,
    list_level,
    list_objects,
    read,
    read_async,
    read_with_etag,
    upload,
    write,
)

__all__ = [
    "ObjectInfo",
    "arrow_filesystem",
    "as_storage_error",
    "delete",
    "delete_tree",
    "list_between",
    "list_level",
    "list_objects",
    "open_stream",
    "read",
    "read_async",
    "read_with_etag",
    "upload",
    "worker_environment",
    "write",
]
