"""A row as a research object (RO-Crate) that another machine can replay: `pack` writes it, `unpack`
makes a volume and a plan of it again."""

CRATE_FILE = "harness.json"
"""What the harness itself reads of a crate."""
CRATE_FORMAT = 1
METADATA = "ro-crate-metadata.json"
ARCHIVES = (
    ".tar", ".gz", ".tgz", ".bz2", ".tbz", ".tbz2", ".xz", ".txz", ".zst", ".tzst", ".lz", ".lz4",
    ".7z", ".rar",
)  # fmt: skip
"""Endings of archives that a crate is not."""
WEIGHTS = (".safetensors", ".bin", ".pt", ".gguf")
"""Files that a replay does not read, and that are left out unless they are asked for."""
