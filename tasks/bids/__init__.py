"""What BIDS datasets are made of: file names, texts, licences, git-annex, NIfTI images and pictures of them."""
