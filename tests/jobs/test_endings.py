"""Whatever the operating system refuses a command ends it with one line and exit code 1."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Sequence

import pytest

from jobs.cli import run_command


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/a"), "/a: Permission denied: give this user the right"),
        (OSError(errno.EROFS, "Read-only file system", "/a"), "/a: Read-only file system: it is mounted read-only"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files: raise the number of files"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "Cannot allocate memory: free memory"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/a\n"), r"/a\\n: No such file: it was there a moment ago"),
        (OSError(errno.EXDEV, "Invalid link", "/a", None, "/b"), "/a and /b: Invalid link (OSError)"),
        (ConnectionResetError("peer\nreset it"), "peer reset it (ConnectionResetError)"),
        (OSError(), "OSError"),
    ],
)
def test_an_error_of_the_operating_system_is_one_line(
    error: OSError, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(argv: Sequence[str]) -> int:
        raise error

    with pytest.raises(SystemExit, match=r"^1$"):
        run_command(fail)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert said.replace(r"\\", "\\") in line


def test_a_reader_that_ends_early_ends_the_command_without_a_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    argv = [sys.executable, "-m", "jobs.score", "--help"]
    with os.fdopen(writer, "wb") as closed:
        done = subprocess.run(argv, stdout=closed, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["error: whoever read the output, such as head, has ended"]


def test_a_variable_of_ours_that_says_nothing_known_is_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ATTENTDIFFERNET_BF16", "yes")
    with pytest.raises(SystemExit, match=r"^2$"):
        run_command(lambda _: pytest.fail("it works"))
    assert (
        capsys.readouterr().err == "error: ATTENTDIFFERNET_BF16 needs auto or off, got 'yes': correct it, or unset it\n"
    )
