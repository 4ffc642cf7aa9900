"""Face verification: pairs, embeddings, the ten-fold LFW protocol, metrics and the report."""
