"""The errors that end a job, and the exit codes they carry."""

from __future__ import annotations

import errno
import sys
import tempfile

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_BAD_REQUEST = 2
EXIT_TOO_MANY_UNREADABLE = 3


class JobError(Exception):
    """The job could not finish: one line that says what was needed, what came and what to do."""

    exit_code = EXIT_FAILED


class RequestError(JobError):
    """The request itself is wrong (arguments, configuration, missing inputs), found before any cluster work."""

    exit_code = EXIT_BAD_REQUEST


class EmptyArchiveError(RequestError):
    """The archive holds no object."""


class StorageError(JobError):
    """Object storage refused or could not be reached."""


class MissingBucketError(StorageError):
    """The bucket is not there: a wrong name in the request, not an object that may come and go."""

    exit_code = EXIT_BAD_REQUEST


class MissingObjectError(StorageError):
    """The object is not there."""


class DamagedFileError(StorageError):
    """The file is there, and is not what its name says: cut off, or overwritten."""


class DeniedError(StorageError):
    """The credentials may not do this."""


class ArchivedObjectError(StorageError):
    """The object lies in a cold storage class and must be restored before it can be read."""


class EncryptionError(StorageError):
    """The key that the object is encrypted with cannot be used."""


class RefusedError(StorageError):
    """The storage refuses the object for another reason, which it names."""


class TooLargeError(StorageError):
    """The object has more bytes than the caller takes.

    Attributes:
        size_bytes: how many.
    """

    def __init__(self, uri: str, *, size_bytes: int, max_bytes: int) -> None:
        """Says both sizes."""
        super().__init__(f"{uri} has {size_bytes} bytes: at most {max_bytes} are read")
        self.size_bytes = size_bytes


class CredentialsError(StorageError):
    """The credentials have run out or are none at all: true of every object, so it ends the run."""


class ConflictError(StorageError):
    """A conditional write lost: the object exists already or has changed."""


def explain_missing_module(error: ModuleNotFoundError) -> str:
    """Says what to do about a module that cannot be imported, in one line."""
    package = (error.name or "").split(".")[0]
    if package in ("jobs", "model", "tuning"):
        stranger = getattr(sys.modules.get(package), "__file__", None) or f"another {package}"
        return (
            f"{stranger} hides our package {package}: call `attentdiffernet` instead of `python -m`, or change folder"
        )
    return (
        f"{sys.executable} lacks {package}: install this project into it (`pip install .`), or call .venv/bin/python, "
        "which `make demo` sets up"
    )


def explain_missing_extra(error: ImportError, *, extra: str) -> str:
    """Says which of the project's extras has what could not be imported, in one line."""
    return f"{error}: install attentdiffernet-ray[{extra}]"


def one_line(error: BaseException) -> str:
    """Returns an error's message without its line breaks, as a row, a log or stderr takes it."""
    return " ".join(str(error).split())


def make_printable(text: str) -> str:
    """Returns ``text`` with control characters escaped: names come from storage and could command a terminal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def is_disk_full(error: BaseException) -> bool:
    """Tells whether an error says that a local disk, or the user's share of it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


_REMEDIES = {
    errno.EACCES: "give this user the right to it, or run as another user",
    errno.EPERM: "give this user the right to it, or run as another user",
    errno.EROFS: "it is mounted read-only: name a place that can be written, or set TMPDIR to one",
    errno.EMFILE: "raise the number of files that a process may open, `ulimit -n`",
    errno.ENFILE: "this machine has too many files open: end what is not needed",
    errno.ENOMEM: "free memory, or ask for less at once",
    errno.ENOENT: "it was there a moment ago, or is made by nobody: correct its name, or set TMPDIR to a folder",
}


def explain_os_error(error: OSError) -> str:
    """Says what the operating system refused, where, and what to do, in one line."""
    if is_disk_full(error):
        place = error.filename or f"a local disk, such as that of {tempfile.gettempdir()}"
        return f"no room is left on {place}: make room, or set TMPDIR to a larger disk"
    named = [str(name) for name in (error.filename, error.filename2) if name is not None]
    said = f"{' and '.join(named)}: {error.strerror or error}" if named else error.strerror or one_line(error)
    remedy = _REMEDIES.get(error.errno or 0, "")
    return f"{said}: {remedy}" if remedy else f"{said or type(error).__name__} ({type(error).__name__})"
