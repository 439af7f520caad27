"""The train stage: fine-tuning."""
