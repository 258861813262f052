"""The two flows: the chain (`push_bids`) and its tail alone (`cleanup_staging`)."""
