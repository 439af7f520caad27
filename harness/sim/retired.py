"""The simulated judge in an older version that is said to be gone: what its verdicts, which stand in
specs/smoke/twin/retired, are called there."""

NAME, BASELINE = "simulated-retired", "prompts"
"""What the old version, and what it compared with, is called in its verdicts."""
OWN = "own"
BRIDGING = ("bridge-1", "bridge-2", "bridge-3")
"""Models whose answers it judged."""
ANSWERS, VERDICTS = "{}.json", "{}_annotations.json"
PROMPT_SETS = ("set-1.json", "set-2.json")
"""Files among which the prompts are dealt out, for rows with several sets."""
