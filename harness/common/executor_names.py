"""What `--executor` can be."""

IN_IMAGES = ("docker", "podman", "apptainer", "charliecloud")
"""Those that run a stage in its pinned image. Which of them did is in no key."""
BY_SERVICE = ("docker", "podman")
"""Of these: whose containers have a network of their own, and a server beside the stage on it."""
EXECUTORS = ("local", *IN_IMAGES)
