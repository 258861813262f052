"""The staging folder of a target: the staged shards, and every other file of ours in it."""
