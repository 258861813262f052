"""The staging folder of a target, and every file of ours beside the staged shards."""
