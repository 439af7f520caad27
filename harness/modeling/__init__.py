"""What training and answering share: models, tokenizers, prompt texts, the files they read.

The settings below must be in the environment before the libraries are imported: no stage with a
model reaches the network (a hub model arrives as a folder), and none compiles.
"""

import os

for _name, _value in {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # Some libraries call torch.compile when they are imported, at a cost of seconds.
    "TORCHDYNAMO_DISABLE": "1",
}.items():
    os.environ.setdefault(_name, _value)
