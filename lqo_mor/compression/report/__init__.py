"""What a compression did: records, an HTML page, its plots."""
