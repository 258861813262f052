"""The client of a Hub: one target, its newest head, the repo's own rules, and patience with a busy Hub."""
