"""The stages of a push, one a file, in the chain's order.

load, plan, stage (embed, write), upload, verify, approve, cleanup: pure functions, and the thin ``@task`` over them.
A stage imports the values of `tasks.values.models`, the small modules that all stages stand on (`errors`, `files`,
`settings`, `staging`, `hub`) and libraries, never another stage.
"""
