"""The publication record: what a target holds, what is left to do, what changed, and what would be removed."""
