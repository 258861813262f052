"""The two flows: the whole chain (`push_bids`), and only its last part (`cleanup_staging`)."""
