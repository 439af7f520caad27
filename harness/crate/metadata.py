"""The crate's description: RO-Crate 1.1 with the profiles Process Run 0.5 and Workflow Run 0.5
(w3id.org/ro/wfrun). The workflow is the row's spec; each stage is an action of its own."""

import mimetypes
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harness import __version__
from harness.artefact.environment import image_tag, kind_of
from harness.artefact.keys import file_digest
from harness.artefact.network_files import files_below
from harness.crate import CRATE_FILE, METADATA
from harness.run.plan import RowPlan, StagePlan

ROCRATE = "https://w3id.org/ro/crate/1.1"
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": ("Workflow RO-Crate", "1.0"),
}
CONTEXT = [f"{ROCRATE}/context", "https://w3id.org/ro/terms/workflow-run/context"]
DONE = "http://schema.org/CompletedActionStatus"
LANGUAGE = "#row-spec"
LICENCES = "#licences"
RUN = "#run"
LICENCE = (
    "The files keep the licences of what they come from: base models, teachers, judges and data sets "
    "each have their own."
)
Entity = dict[str, Any]


def metadata_of(
    plan: RowPlan,
    stages: Sequence[StagePlan],
    specs: Sequence[str],
    snapshots: Sequence[str],
    folder: Path,
) -> Entity:
    """The JSON-LD of a crate whose other files are all in `folder`. Its dates are the manifests'."""
    row = plan.row
    finished = max(s.made.manifest.finished for s in stages)
    artefacts = [_place(s) for s in stages]
    folders = [f"{name}/" for name in (*artefacts, *snapshots)]
    folders += sorted(f"{p.relative_to(folder)}/" for p in folder.glob("given/*/*") if p.is_dir())
    files = [e for e in _files(folder) if e["@id"] not in specs[:1]]
    graph: list[Entity] = [
        {
            "@id": METADATA,
            "@type": "CreativeWork",
            "about": _ref("./"),
            "conformsTo": [_ref(ROCRATE), _ref(list(PROFILES)[-1])],
        },
        {
            "@id": "./",
            "@type": "Dataset",
            "name": f"{row.row}: {row.title}",
            "description": _description(plan),
            "datePublished": finished,
            "license": _ref(LICENCES),
            "conformsTo": [_ref(profile) for profile in PROFILES],
            "hasPart": [
                _ref(specs[0]), *map(_ref, folders),
                *(_ref(e["@id"]) for e in files if not e["@id"].startswith(tuple(folders))),
            ],
            "mainEntity": _ref(specs[0]),
            "mentions": [_ref(RUN), *(_ref(f"#{_name(s)}") for s in stages)],
        },
        *(
            {"@id": url, "@type": "CreativeWork", "name": name, "version": version}
            for url, (name, version) in PROFILES.items()
        ),
        {
            "@id": LICENCES,
            "@type": "CreativeWork",
            "name": "Licences of the parts",
            "description": LICENCE,
        },
        _workflow(plan, stages, specs, folder),
        {
            "@id": LANGUAGE,
            "@type": "ComputerLanguage",
            "name": "Row spec: YAML that harness reads",
            "version": __version__,
        },
        {
            "@id": RUN,
            "@type": "CreateAction",
            "name": f"Run of the row {row.row}",
            "description": f"{len(stages)} stages, each an action of its own",
            "instrument": _ref(specs[0]),
            "object": _refs(e["@id"] for e in files if e["@id"].startswith("given/")),
            "result": _refs(f"{_place(s)}/" for s in stages),
            "startTime": min(s.made.manifest.ran for s in stages),
            "endTime": finished,
            "actionStatus": DONE,
        },
        *(entity for planned in stages for entity in _stage(planned)),
        *(_dataset(name, files) for name in folders),
        *files,
    ]  # fmt: skip
    by_id = {e["@id"]: e for e in graph}
    return {"@context": CONTEXT, "@graph": list(by_id.values())}


def _description(plan: RowPlan) -> str:
    row = plan.row
    sentences = [
        f"One row of the results table {row.table}, with everything that recomputes its numbers."
    ]
    if row.source is not None:
        sentences.append(f"Published in: {row.source.document}.")
    if any(s.made.manifest.simulated for s in plan.stages) or row.scale != "full":
        sentences.append("Simulated: its numbers say nothing about any real model.")
    return " ".join(sentences)


def _workflow(
    plan: RowPlan, stages: Sequence[StagePlan], specs: Sequence[str], folder: Path
) -> Entity:
    return {
        **_file(folder / specs[0], folder),
        "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow"],
        "name": plan.row.row,
        "description": plan.row.title,
        "programmingLanguage": _ref(LANGUAGE),
        "version": __version__,
        "hasPart": _refs(sorted({_tool(s) for s in stages})),
    }


def _stage(planned: StagePlan) -> Iterator[Entity]:
    """The action of one stage, and the application that it ran."""
    manifest = planned.made.manifest
    cost = {name: manifest.cost[name] for name in sorted(manifest.cost)}
    yield {
        "@id": f"#{_name(planned)}",
        "@type": "CreateAction",
        "name": " ".join(filter(None, (planned.stage, planned.label))),
        "description": "; ".join(f"{name}: {value}" for name, value in cost.items()),
        "instrument": _ref(_tool(planned)),
        "object": _refs(f"{_place(s)}/" for s in planned.inputs.values()),
        "result": _ref(f"{_place(planned)}/"),
        "startTime": manifest.ran,
        "endTime": manifest.finished,
        "actionStatus": DONE,
    }
    environment = manifest.document["environment"]
    image = kind_of(environment)
    tool: Entity = {
        "@id": _tool(planned),
        "@type": "SoftwareApplication",
        "name": f"harness {planned.stage}",
        "softwareVersion": f"{__version__}, code version {manifest.document['code_version']}",
    }
    if image != "local":
        tool["description"] = (
            f"In the image {image}, whose lock has the sha256 {environment['lock']}"
        )
        tool["containerImage"] = image_tag(planned.stage, image.rpartition("-")[2] or "cpu")
    yield tool


def _dataset(name: str, files: Sequence[Entity]) -> Entity:
    inside = _refs(e["@id"] for e in files if e["@id"].startswith(name))
    return {"@id": name, "@type": "Dataset", "name": name.rstrip("/"), "hasPart": inside}


def _files(folder: Path) -> list[Entity]:
    return [_file(path, folder) for path in files_below(folder) if path.name != METADATA]


def _file(path: Path, folder: Path) -> Entity:
    name = str(path.relative_to(folder))
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    kinds = {".jsonl": "application/jsonl", ".yaml": "application/yaml", ".md": "text/markdown"}
    entity: Entity = {
        "@id": name,
        "@type": "File",
        "name": path.name,
        "contentSize": str(path.stat().st_size),
        "encodingFormat": kinds.get(path.suffix, kind),
        "sha256": file_digest(path),
    }
    if name == CRATE_FILE:
        entity["description"] = "What the harness reads: the row and its stages, to replay them"
    if name == "README.md":
        entity["about"] = _ref("./")
    return entity


def _place(planned: StagePlan) -> str:
    return f"artefacts/{planned.stage}/{planned.made.folder.name}"


def _name(planned: StagePlan) -> str:
    return f"{planned.stage}-{planned.key[:12]}"


def _tool(planned: StagePlan) -> str:
    document = planned.made.manifest.document
    return f"#{planned.stage}-{kind_of(document['environment'])}-{document['code_version']}"


def _ref(name: str) -> Entity:
    return {"@id": name}


def _refs(names: Iterable[str]) -> Entity | list[Entity]:
    """A list, or its only member: RO-Crate wants no lists of one."""
    refs = [_ref(name) for name in names]
    return refs[0] if len(refs) == 1 else refs
