"""The client of a Hub: one target, what a Hub may lack, its newest head, the repo's own rules, and patience."""
