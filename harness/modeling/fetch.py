"""Downloads a model from the hub to the volume: the only step of training that needs a network."""

import os

from harness.call import StageCall, StageResult
from harness.errors import HarnessError, InputError
from harness.spec.models import HubModel

WANTED = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "LICENSE*", "README.md"]
"""No pickle files, no code."""
SNAPSHOT = "snapshot"


def run(call: StageCall) -> StageResult:
    """Download `call.params["hub"]`; files that an interrupted try left whole are not fetched again.

    A gated model needs HF_TOKEN (or HF_TOKEN_FILE, a file that holds it).

    Raises:
        InputError: there is no such model or revision, or it may not be read with this token.
        HarnessError: the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    from harness.llm.secrets import read_key

    hub = HubModel.model_validate(call.params["hub"])
    named = any(os.environ.get(n) for n in ("HF_TOKEN", "HF_TOKEN_FILE"))
    token = read_key("HF_TOKEN", "the hub") if named else False
    try:
        snapshot_download(
            hub.id,
            revision=hub.revision,
            local_dir=call.folder / SNAPSHOT,
            allow_patterns=WANTED,
            token=token,
        )
    except GatedRepoError:
        raise InputError(
            f"the hub does not let this token read {hub.id}",
            "Accept the model's terms on its page, and give a token in HF_TOKEN.",
        ) from None
    except RevisionNotFoundError:
        raise InputError(f"{hub.id} has no revision {hub.revision} on the hub") from None
    except RepositoryNotFoundError:
        raise InputError(
            f"there is no model {hub.id} on the hub, or it is private",
            "Check model.hub.id; for a private model give a token in HF_TOKEN.",
        ) from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as e:
        if isinstance(e, OSError) and e.errno is not None:
            raise
        raise HarnessError(
            f"{hub.id} could not be downloaded from the hub: {e}",
            "Run the same command again when the network is there; or name a local folder "
            "with model.path.",
        ) from None
    return StageResult(keep=[SNAPSHOT], used={"hub": hub.model_dump()})
