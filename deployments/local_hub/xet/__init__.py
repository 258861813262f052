"""Xet: content in chunks, chunks in xorbs, files as lists of chunk ranges.

How it works:

- The client cuts files into chunks of about 64 KiB by their content, packs new chunks into **xorbs** of up to 64 MiB
  and sends those (`xorb`), then a **shard** (`shard`) that says for each file which chunk ranges of which xorbs it is.
- Every hash is computed again here (`hashes`): each chunk, each xorb, each file, and the sha256 of each file's bytes.
  Only then does the repo hold the content (`store`).
- A download asks for a **reconstruction** (`routes`): the ranges, with signed URLs of the xorbs' bytes. A client
  without Xet gets the file put together by the server.

Source: Hub documentation, "Xet Protocol Specification".
"""
