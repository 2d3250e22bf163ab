"""From images to pixel embeddings."""
