"""What the stages hand to each other: values that check themselves, errors that name the way out, settings, names."""
