"""What is handed from stage to stage: values that check themselves, errors that name the way out, settings, names."""
