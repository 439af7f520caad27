"""The matrix, manifests and findings at the terminal. All text is escaped: it may be a model's."""

import json
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.doctor import Finding
from harness.progress import plain
from harness.report.matrix import HEADINGS, Line, display
from harness.store import Artefact

SHOWN = ("row", "varied", "metric", "reported", "reproduced", "judged", "replicates", "verdict")


def show_matrix(console: Console, lines: Sequence[Line]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in SHOWN:
        table.add_column(heading, overflow="fold")
    for line in lines:
        cells = dict(zip(HEADINGS, display(line), strict=True))
        table.add_row(*(escape(plain(cells[h])) for h in SHOWN))
    console.print(table)


def show_artefact(console: Console, artefact: Artefact, checked: bool) -> None:
    """A manifest's main parts; `harness show --json` has all of it."""
    m = artefact.manifest
    console.print(f"[bold]{m['stage']}[/] {m['key']}", highlight=False)
    fields = {
        "row": m["row"] + (f" ({m['label']})" if m["label"] else ""),
        "folder": str(artefact.folder),
        "made": f"{m['finished']} by the {m['executor']['executor']} executor",
        "simulated": ", ".join(m["simulated"]) or "nothing",
        "weights": "began random" if m["random_weights"] else "",
        "inputs": ", ".join(f"{n}: {i['stage']}/{i['key'][:12]}" for n, i in m["inputs"].items()),
        "parameters": json.dumps(m["document"]["params"], indent=2, ensure_ascii=False),
        "metrics": json.dumps(m["metrics"], indent=2),
        "counts": json.dumps(m["counts"]),
        "cost": json.dumps(m["cost"]),
        "seeds": json.dumps(m["seeds"]),
        "used": json.dumps({k: v for k, v in m["used"].items() if k != "environment"}),
        "files": "\n".join(f"{n}  {f['size']:,} bytes" for n, f in m["files"].items())
        + ("\nevery file has the digest it was made with" if checked else ""),
    }
    for name, text in fields.items():
        if text and text not in ("{}",):
            indented = plain(text).replace("\n", "\n" + " " * 13)
            console.print(f"  {name:<10} {escape(indented)}", highlight=False)


def show_findings(console: Console, findings: Sequence[Finding]) -> None:
    for finding in findings:
        mark = "[green]yes[/]" if finding.there else "[yellow]no [/]"
        line = f"{mark} {escape(finding.what):<24} {escape(plain(finding.state))}"
        if finding.prevents:
            line += f"\n    [dim]without it: {escape(finding.prevents)}[/]"
        console.print(line, highlight=False)
