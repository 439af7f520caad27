"""A row's trained model, with its card, to the hub or into a folder."""

import re
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from harness.artefact import caches
from harness.artefact.call import CHECKPOINT, model_input
from harness.artefact.keys import key_names
from harness.artefact.store import Artefact
from harness.common.progress import ProgressView, plain
from harness.crate import ARCHIVES, check_target
from harness.errors import InputError, holds_key
from harness.llm.secrets import read_key
from harness.modeling.upload import CARD, MAIN, TOKEN, contents
from harness.run.executors import Job, carry_out
from harness.run.plan import RowPlan, StagePlan, trained
from harness.run.runner import Runner
from harness.spec.base import HUB_ID
from harness.train import model_card

HUB = "hub:"
BRANCH = "^[A-Za-z0-9][A-Za-z0-9._/-]*$"


class Target(NamedTuple):
    """Where to, as the command line says it."""

    to: str
    """`hub:OWNER/NAME`, or a folder that is not there yet."""
    public: bool = False
    revision: str = MAIN
    label: str = ""
    """Which replicate."""
    simulated: bool = False
    """Upload although the weights began random or the data is simulated."""


def export(runner: Runner, plan: RowPlan, target: Target) -> list[str]:
    """Upload, or copy, the model; what was done, in words.

    Raises:
        InputError: see `trained`; the row scores other weights than the last; the target cannot be
            used; the model is marked and `simulated` is not said.
        Damaged: a file of the model is not what its manifest says.
        HarnessError: the upload failed.
    """
    planned = trained(plan, target.label)
    artefact = planned.made
    if plan.row.checkpoint is not None:
        kept = model_input(artefact.folder, {CHECKPOINT: plan.row.checkpoint}) / "model"
        raise InputError(
            f"row {plan.row.row} scores the weights of step {plan.row.checkpoint}, and what is given "
            "away are a training's last",
            f"Copy {kept}, or name a row with the same training and without eval.checkpoint.",
        )
    artefact.check()
    if not target.to.startswith(HUB):
        return _copy(artefact, _card(runner, planned, "."), Path(target.to))
    repo = target.to.removeprefix(HUB)
    if not re.fullmatch(HUB_ID, repo) or holds_key(repo):
        raise InputError(f"--to {target.to}: {repo!r} is no name on the hub", "hub:OWNER/NAME")
    if not re.fullmatch(BRANCH, target.revision) or ".." in target.revision:
        raise InputError(f"--revision {target.revision!r} cannot be a branch's name")
    marks = model_card.marks(artefact.manifest.to_json())
    if marks and not target.simulated:
        raise InputError(
            f"the model of row {planned.row} is not what a reader of the hub would take it for: "
            + "; ".join(marks),
            "Say --simulated to upload it all the same; its card says what it is.",
        )
    read_key(TOKEN, f"uploading to {repo}")
    branch = "" if target.revision == MAIN else target.revision
    return _upload(runner, planned, target, _card(runner, planned, repo, branch))


def _card(runner: Runner, planned: StagePlan, place: str, revision: str = "") -> str:
    facts = {**planned.made.manifest.to_json(), "place": place, "revision": revision}
    facts |= {"row": planned.row, "label": planned.label}
    facts |= {"title": planned.owner.title, "table": planned.owner.table}
    data = planned.inputs.get("data")
    data_artefact = runner.store.find(data.stage, data.key) if data else None
    facts["data"] = data_artefact.manifest.to_json() if data_artefact else None
    return model_card.text_of(facts)


def _copy(artefact: Artefact, card: str, folder: Path) -> list[str]:
    """Into a folder that appears when it is whole."""
    if folder.suffix.lower() in (".zip", *ARCHIVES):
        raise InputError(
            f"--to {folder}: a model is copied into a folder, and this is the name of an archive",
            f"Name a folder, for example {folder.with_suffix('').with_suffix('')}.",
        )
    check_target(folder, "Name a folder that is not, or hub:OWNER/NAME.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        part.chmod(0o755)
        for name, path in contents(artefact.folder).items():
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, part / name)
        (part / CARD).write_text(card, encoding="utf-8")
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return [f"copied to {folder}"]


def _upload(runner: Runner, planned: StagePlan, target: Target, card: str) -> list[str]:
    artefact, repo = planned.made, target.to.removeprefix(HUB)
    name = f"{artefact.key[:16]}-{repo.replace('/', '--')}"
    title = f"export: {planned.row} to {repo}"
    root = runner.store.root
    with runner.store.lock("export", name) as lock:
        work = root / "work" / f"export-{name}"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        job = Job(
            stage="export",
            key=name,
            title=title,
            params={
                "repo": repo,
                "row": planned.row,
                "private": not target.public,
                "revision": target.revision,
                "message": f"Row {planned.row}{planned.in_brackets}, train/{artefact.key[:12]}",
                "card": card,
            },
            inputs={"model": str(artefact.folder)},
            work=str(work),
            log=root / "logs" / f"export-{name}.log",
            lock=lock,
            image_stage="train",
            network=True,
            secrets=(TOKEN,),
            others_keys=key_names(planned.owner),
            caches=caches.for_libraries(caches.prepare(root)),
        )
        result = carry_out(
            job, runner.executor, runner.files, ProgressView(runner.console, job.title)
        )
        shutil.rmtree(work)
    visibility = "private" if result.used["private"] else "public"
    what = "nothing has changed there" if result.used["unchanged"] else "uploaded"
    url, commit = result.used["url"], result.used["commit"]
    return [plain(f"{what}: {url} ({visibility}), commit {commit[:12]}")]
