"""This run on the Prefect server: its name, its lease of the target, and the gates that wait."""
