"""From pixel embeddings to clusters."""
