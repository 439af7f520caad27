"""Takes vLLM's command line and answers as its OpenAI-compatible server: each reply says how many
tokens it was asked with. FAKE_VLLM_ENDS in the model's folder makes it end at once."""

import argparse
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

parser = argparse.ArgumentParser()
for option in ("--model", "--served-model-name", "--host", "--dtype", "--generation-config"):
    parser.add_argument(option, required=True)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--seed", type=int)
parser.add_argument("--gpu-memory-utilization", type=float)
parser.add_argument("--max-model-len", type=int)
parser.add_argument("--tensor-parallel-size", type=int)
parser.add_argument("--enable-lora", action="store_true")
parser.add_argument("--lora-modules", default="")
parser.add_argument("--max-lora-rank", type=int)
given = parser.parse_args()

folder = Path(given.model)
json.loads((folder / "config.json").read_text())
if (folder / "FAKE_VLLM_ENDS").exists():
    sys.exit("ValueError: no GPU of this kind is known")
names = [given.served_model_name]
if given.lora_modules:
    name, adapter = given.lora_modules.split("=")
    json.loads((Path(adapter) / "adapter_config.json").read_text())
    names.append(name)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/health":
            self.answer({})
        elif self.path == "/v1/models":
            self.answer({"object": "list", "data": [{"id": n, "object": "model"} for n in names]})
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if asked["model"] not in names:
            self.send_error(404)
            return
        tokens = asked["prompt"]
        assert isinstance(tokens, list), "the prompt is not given as tokens"
        choice = {
            "index": 0,
            "text": f"asked with {len(tokens)} tokens",
            "finish_reason": "stop",
            "logprobs": None,
        }
        self.answer(
            {
                "id": "cmpl-0",
                "object": "text_completion",
                "created": int(time.time()),
                "model": asked["model"],
                "choices": [choice],
                "usage": {
                    "prompt_tokens": len(tokens),
                    "completion_tokens": 4,
                    "total_tokens": len(tokens) + 4,
                },
            }
        )

    def answer(self, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        pass


ThreadingHTTPServer((given.host, given.port), Handler).serve_forever()
