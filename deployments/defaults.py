"""What the help of the commands has to know of what they do: the answers that a gate takes, and the watch's times."""

#: What a gate may ask for, and the answers that it takes.
CHOICES = {"decision": ("delete", "keep"), "removals": ("remove", "keep")}
EVERY = 10.0  # seconds between two looks of the watch
SILENCE = 12 * 60.0  # seconds without a sign of life; a run that works gives one every 20
