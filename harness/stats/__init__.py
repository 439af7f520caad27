"""Statistics of scores over prompts and replicates: functions of numbers, which read no files."""
