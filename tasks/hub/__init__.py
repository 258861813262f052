"""The client of a Hub: one target, what a Hub may lack and how much it allows, the repo's own rules, and retries."""
