"""Native entries: what runs below Python when an op or a compiled function is called."""
