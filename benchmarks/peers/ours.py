"""Our train stage, by its public call. Tokens and losses are those of its trainer_log.jsonl."""

import json
import sys
from pathlib import Path

import watch

job = watch.job()
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from harness.artefact.call import StageCall  # noqa: E402
from harness.train.run import run  # noqa: E402

seen = watch.Watch(job)
work = Path(job["work"])
work.mkdir(parents=True, exist_ok=True)
result = run(
    StageCall(
        stage="train",
        key="0" * 64,
        params={
            "train": {
                "learning_rate": job["learning_rate"],
                "scheduler": job["scheduler"],
                "batch_size": job["micro"],
                "accumulation": job["batch"] // job["micro"],
                "steps": job["steps"],
                "cutoff_length": job["cutoff"],
                "threads": job["threads"],
                "checkpoint_steps": 10**6,
                **job.get("settings", {}),
            },
            "model": {"path": {"path": job["model"], "sha256": None}},
            "template": job.get(
                "template", {"prompt": {"path": "prompt.txt", "text": "{instruction} "}}
            ),
            "data": {"path": job["data"], "sha256": None},
        },
        inputs={},
        work=str(work),
    )
)
with (work / "trainer_log.jsonl").open(encoding="utf-8") as lines:
    log = [json.loads(line) for line in lines]
for end, line in zip(seen.ends, log, strict=True):
    end["tokens"] = end["slots"] = line["tokens"] + line["prompt_tokens"]
seen.write([line["loss"] for line in log], counts=result.counts, used=result.used)
