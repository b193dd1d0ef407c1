"""What went wrong in the cluster as one line, where Ray gives a traceback as text in place of the error."""

from __future__ import annotations

import ray.exceptions

from jobs.cluster.session import explain_error

TRACEBACK = """\x1b[36mray::TrainController.__init__()\x1b[39m (pid=7, ip=10.0.0.2)
  File "controller.py", line 1, in __init__
OSError: When listing objects: AWS Error ACCESS_DENIED during ListObjectsV2 operation"""


def test_an_actor_that_cannot_start_is_explained_by_the_end_of_its_traceback() -> None:
    failed = ray.exceptions.RayTaskError(  # type: ignore[no-untyped-call]
        "TrainController.__init__", TRACEBACK, OSError("denied")
    )
    error = ray.exceptions.ActorDiedError(failed)
    assert (
        explain_error(error) == "OSError: When listing objects: AWS Error ACCESS_DENIED during ListObjectsV2 operation"
    )


def test_an_actor_that_died_of_something_else_is_explained_by_what_ray_says_first() -> None:
    said = explain_error(ray.exceptions.ActorDiedError())
    assert said == "ActorDiedError: The actor died unexpectedly before finishing this task."
