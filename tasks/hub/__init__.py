"""The client of a Hub: one target, its newest head, its rules for names, and the patience with a busy one."""
