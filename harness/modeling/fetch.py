"""Downloads a model or a data set from the hub to the volume: the only step that needs its network."""

from pathlib import Path
from typing import NamedTuple

from harness.artefact.call import StageCall, StageResult
from harness.errors import HarnessError, InputError
from harness.spec.hub import HubData
from harness.spec.model_source import HubModel

SNAPSHOT = "snapshot"


class Wanted(NamedTuple):
    """What is downloaded of one kind of repository, and how the spec speaks of it."""

    kind: str
    repo_type: str
    patterns: list[str]
    field: str
    """Where the spec names it."""
    instead: str
    """Where the spec would name a local copy."""


MODEL = Wanted(
    "model",
    "model",
    ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "LICENSE*", "README.md"],
    "model.hub",
    "model.path",
)
"""No pickle files, no code."""
CODE = MODEL._replace(patterns=[*MODEL.patterns, "*.py"])
"""Of a model whose row says trust_remote_code."""
DATA_FILES = ("*.json", "*.jsonl", "*.parquet", "*.csv")
DATA = Wanted(
    "data set", "dataset", [*DATA_FILES, "LICENSE*", "README.md"], "hub", "file or folder"
)
"""No loading scripts. The README's head says which files make which config and split."""


def run(call: StageCall) -> StageResult:
    """Download the model `call.params["hub"]` or the data set `call.params["hub_data"]`; files that
    an interrupted try left whole are not fetched again.

    What is gated or private needs HF_TOKEN (or HF_TOKEN_FILE, a file that holds it).

    Raises:
        InputError: there is no such repository or revision, it may not be read with this token, or
            the data set has no data file of a known format.
        HarnessError: the hub cannot be reached.
    """
    if "hub_data" in call.params:
        data = HubData.model_validate(call.params["hub_data"])
        _download(call, data, DATA)
        if not _has_data(call.folder / SNAPSHOT):
            raise InputError(
                f"the data set {data.id} holds no {', '.join(DATA_FILES)} at revision "
                f"{data.revision}",
                "Convert it to one of these and name the file in the spec in place of hub.",
            )
        return StageResult(keep=[SNAPSHOT], used={"hub_data": data.model_dump()})
    model = HubModel.model_validate(call.params["hub"])
    _download(call, model, CODE if call.params.get("code") else MODEL)
    return StageResult(keep=[SNAPSHOT], used={"hub": model.model_dump()})


def _has_data(snapshot: Path) -> bool:
    """Whether there is a data file beside what the hub's client keeps for itself in .cache."""
    paths = (p.relative_to(snapshot) for pattern in DATA_FILES for p in snapshot.rglob(pattern))
    return any(not p.parts[0].startswith(".") for p in paths)


def _download(call: StageCall, hub: HubModel | HubData, snapshot: Wanted) -> None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    from harness.llm.secrets import key_variable, read_key

    token = read_key("HF_TOKEN", "the hub") if key_variable("HF_TOKEN") else False
    try:
        snapshot_download(
            hub.id,
            repo_type=snapshot.repo_type,
            revision=hub.revision,
            local_dir=call.folder / SNAPSHOT,
            allow_patterns=snapshot.patterns,
            token=token,
        )
    except GatedRepoError:
        raise InputError(
            f"the hub does not let this token read {hub.id}",
            f"Accept the {snapshot.kind}'s terms on its page, and give a token in HF_TOKEN.",
        ) from None
    except RevisionNotFoundError:
        raise InputError(
            f"{hub.id} has no revision {hub.revision} on the hub",
            f"Correct {snapshot.field}.revision: the full hash of a commit of this {snapshot.kind}.",
        ) from None
    except RepositoryNotFoundError:
        raise InputError(
            f"there is no {snapshot.kind} {hub.id} on the hub, or it is private",
            f"Check {snapshot.field}.id; for a private {snapshot.kind} give a token in HF_TOKEN.",
        ) from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as e:
        if isinstance(e, OSError) and e.errno is not None:
            raise
        raise HarnessError(
            f"{hub.id} could not be downloaded from the hub: {e}",
            "Run the same command again when the network is there; or name a local copy with "
            f"{snapshot.instead}.",
        ) from None
