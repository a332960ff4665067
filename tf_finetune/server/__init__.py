"""OpenAI's fine-tuning API on this machine: files, jobs that are commands, models."""
