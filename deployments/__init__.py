"""What is needed to run bids-push: the local Hub, the demo and its data, automations."""
