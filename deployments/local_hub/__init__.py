"""A Hub for one machine: the real huggingface_hub client and `datasets` talk to it over HTTP, nothing patched.

How it works:

- **Transport**: one uvicorn process, one ASGI application (`app`), one table of routes (`routes`). A handler that needs
  no streaming is a plain function on a small thread pool; bodies of unknown size stream through `receive`.
- **What must change together** (accounts, refs, git objects, who holds which content) is in one SQLite database
  (`database`): a commit is one transaction and one fsync, so that a killed server shows all of it or nothing.
- **Content** (LFS objects, Xet xorbs) is in files named by their digest (`content`, `xet`), written to `tmp/`, hashed
  while they arrive, fsynced, and only then linked to their name. A file under its name is whole.
- **Git** objects are git's own, with git's ids (`git`, `trees`, `commits`).

Nothing here deletes content that a commit can reach. `check` re-hashes everything.
"""
