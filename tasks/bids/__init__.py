"""What BIDS datasets are made of: texts, licences, git-annex, NIfTI images and pictures of them."""
