"""The `export` job: uploads a trained model, its card and its log to the hub, as one commit."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.artefact import events
from harness.artefact.call import StageCall, StageResult
from harness.artefact.network_files import files_below
from harness.errors import HarnessError, InputError
from harness.llm.secrets import read_key, redact
from harness.modeling.generation import BASE_CHAT_TEMPLATE

if TYPE_CHECKING:
    from huggingface_hub import HfApi

MODEL, CARD = "model", "README.md"
BESIDE = ("loss_curve.png", "trainer_log.jsonl", "template.json")
"""What is exported of the train artefact beside its model."""
TOKEN = "HF_TOKEN"
MAIN = "main"
UNASKED = (".gitattributes",)
"""What the hub puts into every new repository."""
REPLACED = (".safetensors", ".safetensors.index.json", "adapter_config.json")
"""Endings of files of an earlier upload that would be taken for a part of this one."""
TAKEN = "Choose another name; or, if that may go, delete it on the hub first."


def contents(artefact: Path) -> dict[str, Path]:
    """What is exported but for the card: the model's own files at the top, so that from_pretrained
    finds them, and the log beside them. Name -> file."""
    model = artefact / MODEL
    files = {path.relative_to(model).as_posix(): path for path in files_below(model)}
    for name in (CARD, BASE_CHAT_TEMPLATE):
        files.pop(name, None)
    return files | {name: artefact / name for name in BESIDE if (artefact / name).is_file()}


@dataclass(frozen=True)
class Upload:
    """Parameters of an `export` job. row: whose model it is."""

    repo: str
    revision: str
    private: bool
    row: str
    card: str
    message: str


def run(call: StageCall) -> StageResult:
    """Upload the artefact `call.inputs["model"]` to `call.params["repo"]`.

    Files that are there already are not sent again, and where nothing changed there is no commit.

    Raises:
        InputError: no token, or one that is refused; the name is another model's, or public.
        HarnessError: the hub cannot be reached, or does not take the upload.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    params = Upload(**call.params)
    repo, branch = params.repo, params.revision
    token = read_key(TOKEN, f"uploading to {repo}")
    api = HfApi(token=token)
    with _in_words(repo, token):
        is_private, present = _prepare(api, params)
        before = api.repo_info(repo, revision=branch).sha
        commit = _commit(api, params, contents(Path(call.inputs["model"])), present)
    return StageResult(
        keep=[],
        used={
            "url": f"{api.endpoint}/{repo}" + ("" if branch == MAIN else f"/tree/{branch}"),
            "commit": commit,
            "private": is_private,
            "unchanged": commit == before,
        },
    )


def _prepare(api: "HfApi", params: Upload) -> tuple[bool, set[str]]:
    """Make the repository or the branch where it is not there: is it private, which files it holds.

    A repository that holds something else than this row's exports is left alone.
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    repo, branch = params.repo, params.revision
    try:
        info = api.repo_info(repo)
    except RepositoryNotFoundError:
        api.create_repo(repo, private=params.private)
        is_private, present = params.private, set()
        events.note(f"made the {'private' if is_private else 'public'} model {repo}")
    else:
        is_private = bool(info.private)
        present = {file.rfilename for file in info.siblings or []} - set(UNASKED)
        _check_ours(info.card_data, present, params)
        if params.private and not is_private:
            raise InputError(
                f"{repo} is on the hub already, and public",
                "Say --public if this is meant, or choose another name.",
            )
        if is_private and not params.private:
            events.note(f"{repo} was private and stays so; its settings on the hub change that")
    if branch != MAIN:
        api.create_branch(repo, branch=branch, exist_ok=True)
        present = set(api.list_repo_files(repo, revision=branch)) - set(UNASKED)
    return is_private, present


def _check_ours(card: Any, present: set[str], params: Upload) -> None:
    """Whose upload it is stands in the head of its card."""
    about = card.to_dict().get("harness") if card is not None else None
    row = about.get("row") if isinstance(about, dict) else None
    if present and row != params.row:
        whose = f"the export of row {row}" if row else "something else"
        raise InputError(f"the name {params.repo} is taken on the hub: it is {whose}", TAKEN)


def _commit(api: "HfApi", params: Upload, files: dict[str, Path], present: set[str]) -> str:
    """Send the files, then commit all of them at once; the commit that now is the branch's last."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    repo, branch = params.repo, params.revision
    card = CommitOperationAdd(CARD, params.card.encode())
    additions = [card, *(CommitOperationAdd(name, str(path)) for name, path in files.items())]
    total, done = sum(a.upload_info.size for a in additions), 0
    events.progress("upload", 0, total, "bytes")
    for addition in additions:
        api.preupload_lfs_files(repo, additions=[addition], revision=branch, free_memory=False)
        done += addition.upload_info.size
        events.progress("upload", done, total, "bytes", file=addition.path_in_repo)
    left = sorted(n for n in present - {*files, CARD} if n.endswith(REPLACED))
    removals = [CommitOperationDelete(name, is_folder=False) for name in left]
    commit = api.create_commit(
        repo, [*additions, *removals], commit_message=params.message, revision=branch
    )
    return str(commit.oid)


@contextlib.contextmanager
def _in_words(repo: str, token: str) -> Iterator[None]:
    """The hub's refusals, a sentence each. The token is in none of them."""
    from httpx2 import HTTPError
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RevisionNotFoundError

    try:
        yield
    except HFValidationError as e:
        raise InputError(f"{repo} cannot be a model's name on the hub: {e}") from None
    except RevisionNotFoundError:
        raise InputError(f"{repo} has no such branch on the hub", "Correct --revision.") from None
    except (HTTPError, OSError, ValueError) as e:
        if isinstance(e, OSError) and e.errno is not None:
            raise
        status = e.response.status_code if isinstance(e, HfHubHTTPError) else None
        if status == 401:
            raise InputError(
                f"the hub does not accept the token in {_where()}", "Give one that is valid."
            ) from None
        if status in (402, 403, 404):
            raise InputError(
                f"the hub does not let the token in {_where()} write to {repo}",
                f"Give a token with write access to {repo.split('/')[0]}, or choose another name.",
            ) from None
        if status == 409:
            raise InputError(f"the name {repo} is taken on the hub", TAKEN) from None
        reason = redact(" ".join(str(e).split()), token)
        raise HarnessError(
            f"{repo} could not be uploaded to the hub: {reason}",
            "Run the same command again when the network is there; what was sent is not sent twice.",
        ) from None


def _where() -> str:
    return TOKEN if os.environ.get(TOKEN, "").strip() else f"{TOKEN}_FILE"
