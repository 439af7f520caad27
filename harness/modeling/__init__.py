"""What training and answering share: models, tokenizers, prompt texts, the files they read."""
