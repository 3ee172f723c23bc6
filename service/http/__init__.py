"""The way in: connections, uploads, keys, limits and deadlines."""
