"""Why a call to an actor failed, in words for the screen."""

from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError

from pipeline.storage import first_line


def cause(error: RayError) -> str:
    """One line of what went wrong, without the way it travelled."""
    if isinstance(error, RayTaskError) and error.cause is not None:
        return (
            f"{type(error.cause).__name__}: {error.cause}"
            if not isinstance(error.cause, ValueError)
            else str(error.cause)
        )
    if isinstance(error, OutOfMemoryError):
        return "Ray ended it because its machine ran low on memory"
    if isinstance(error, RayActorError):
        return "its process died"
    return first_line(error)
