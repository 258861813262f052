"""The flows: the chain (`push_bids`), its last part alone (`cleanup_staging`), and the way back (`restore_bids`)."""
