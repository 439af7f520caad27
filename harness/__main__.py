"""The `harness` command, also as `python -m harness`."""

import sys


def main() -> None:
    try:
        from harness.cli import main as command
    except KeyboardInterrupt:
        sys.exit(130)  # nothing is begun, and nothing to be said
    command()


if __name__ == "__main__":
    main()
