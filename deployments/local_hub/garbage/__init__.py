"""Content that no commit needs: planned first (`plan`), then asked for by a person, then removed (`remove`).

How it works:

- `needed` decides, from the database alone, what has to stay: what a ref, a kept commit or a tag reaches with all its
  history, and what was sent or promised (`promises`) in the last days. Where a history cannot be read to its end,
  nothing is decided.
- `plan` looks at the files of the store, and writes down those that nothing needs, with the reason for each, and the
  commits that nothing reaches. It changes nothing, and works while a server runs.
- `remove` is the only code that removes content. It takes a plan that a person approved and the folder for itself, so
  that no server promises anything meanwhile; decides anew; and removes what the plan names *and* nothing needs now:
  first, in one transaction, the lines of the database, then file after file. Killed in between, it leaves files that no
  line names: a store that is whole, and a next plan that names them.
"""
