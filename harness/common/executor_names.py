"""What `--executor` can be."""

from harness.errors import InputError

IN_IMAGES = ("docker", "podman", "apptainer", "charliecloud")
"""Those that run a stage in its pinned image. Which of them did is in no key."""
BY_SERVICE = ("docker", "podman")
"""Of these: whose containers have a network of their own, and a server beside the stage on it."""
EXECUTORS = ("local", *IN_IMAGES)


def check_name(name: str, setting: str) -> None:
    """Raises InputError for the name of no executor: a stage must not run without the confinement that
    was meant. `setting`: where the name stands."""
    if name not in EXECUTORS:
        raise InputError(
            f"{setting}: there is no executor {name!r}", f"There are {', '.join(EXECUTORS)}."
        )
