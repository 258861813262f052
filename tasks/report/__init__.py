"""What people are told and shown: the evidence at a gate, sentences, the status, progress and lineage."""
